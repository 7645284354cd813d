"""Images with all their questions -> a batch in which each image is encoded and read once."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import BatchFeature

from ..rows.conventions import IGNORE_INDEX
from .chat import ChatCollator
from .encoding import encode
from .images import by_image, named, open_images
from .length import padded
from .placeholders import unseen_image
from .prefix_tree import (
    NONE,
    Conversation,
    PrefixTree,
    grow,
    padded_positions,
    rope_positions,
    seen_pairs,
    shared_length,
    split,
)

TRIED = [("What is it?", "yes"), ("Which of these two can be seen?", "this one, or no other")]


class NoSharing(ValueError):
    """A model cannot read an image once for several questions; the message says why."""


@dataclass
class SharedImageCollator(ChatCollator):
    """Collate images with their conversations so that each image is read once, for models of docs/models.md.

    A row is an image with `queries`, as `vlm_recipes.rows.grouping.group_by_image` makes it, or a chat row as
    `ChatCollator` takes it; rows of a batch with the same `image_id` come together. What the conversations of an image
    have in common (system message, images, first words) begins a sequence, and each goes on from there as a branch
    which sees no other: loss and gradient are those of separate rows. Where an image comes only after words that
    differ, they are separate.

    Returns, for B sequences: `input_ids` and `labels` `[B, S]`, padded on the right; `position_ids` `[3, B, S]`
    where the processor gives `image_grid_thw` (Qwen-VL's multimodal rotary embedding), else `[B, S]`, at which every
    branch follows the shared part; `attention_mask` `[B, 1, S, S]`, boolean, as the attention called "sdpa" reads it;
    and what the processor gives by image, in the order of the images' tokens. `SharedImageCallback` proves with the
    model at hand that all this is right for it, makes of the mask what "eager" adds to the scores, refuses an
    attention without masks (flash), and has the Trainer count questions and tokens, not images and pairs of tokens.

    With `prompt_only`, for `vlm_recipes.eval.generation.generate`: of the B questions `input_ids`, `attention_mask`
    and `position_ids`, the padding between the shared part and the rest; `image_index` `[B]`, and of the G shared
    parts `prefix_input_ids`, `prefix_attention_mask` and `prefix_position_ids`.

    Arguments are `ChatCollator`'s. More conversations than fit into `max_length` go on in another sequence, with the
    image again; one that is too long by itself is an error. With `train_on="all"` they are separate.

    Raises `NoSharing` for a processor that says of each token what it sees, and `ValueError` as `ChatCollator` does.
    """

    share_images = True

    def __post_init__(self):
        super().__post_init__()
        if self.said_of_tokens:
            raise NoSharing(
                f"{type(self.processor).__name__} gives {' and '.join(self.said_of_tokens)}: not every token sees all "
                "before it and nothing else"
            )
        self.has_grid = "image_grid_thw" in self.processor.image_processor.model_input_names
        self.padding = self.tokenizer.pad_token_id

    def __call__(self, rows: list[dict[str, Any]]) -> BatchFeature:
        shown, image_index, queries = by_image(rows)
        numbers: list[list[int]] = [[] for _ in shown]
        for number, place in enumerate(image_index):
            numbers[place].append(number)
        images = [named(row, open_images, row, self.background) for row in shown]
        asked = [[queries[number] for number in own] for own in numbers]
        conversations = [
            [named(query, self.segments, query, len(opened)) for query in own]
            for own, opened in zip(asked, images, strict=True)
        ]
        sequences, pixels = self.encode_by_image(asked, conversations, images)
        grids = pixels["image_grid_thw"].split([len(own) for own in images]) if any(images) and self.has_grid else None
        trees, begun_by = [], []
        for i, own in enumerate(sequences):
            grid = grids[i] if grids else torch.empty(0, 3, dtype=torch.long)
            found = self._trees(
                [
                    Conversation(number, ids, labels, self._positions(ids, grid))
                    for number, (ids, labels) in zip(numbers[i], own, strict=True)
                ]
            )
            trees += found
            begun_by += [i] * len(found)
        if begun_by != list(range(len(images))):  # some images begin several sequences
            pixels = encode(
                self.processor, [conversations[i][0] for i in begun_by], [images[i] for i in begun_by]
            ).by_image()
        return self._prompts(trees, pixels) if self.prompt_only else self._batch(trees, pixels)

    def both_ways(self) -> tuple[BatchFeature, BatchFeature]:
        """Two short conversations about one picture, in one sequence and apart, for a model to be tried on."""
        picture = Image.radial_gradient("L").resize((96, 64))
        told = [[("user", question), ("assistant", answer)] for question, answer in TRIED]
        rows = [
            {
                "id": "tried",
                "image_id": "tried",
                "images": [picture],
                "messages": [dict(role=role, content=text) for role, text in one],
            }
            for one in told
        ]
        free = copy.copy(self)
        free.max_length = None  # which is about a dataset's rows
        return free(rows), ChatCollator.__call__(free, rows)

    def _trees(self, conversations: list[Conversation]) -> list[PrefixTree]:
        """The conversations about the same images: one tree, or several where too long or too unlike."""
        ids = self.image_token_ids
        if shared := shared_length(conversations, ids):
            return [grow(part, shared) for part in split(conversations, shared, self.max_length)]
        return [grow([one], shared_length([one], ids)) for one in conversations]

    def _positions(self, ids: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        if not self.has_grid:
            return torch.arange(len(ids))[None]
        return rope_positions(ids, self.image_token_ids, grid, self.processor.image_processor.merge_size)

    def _batch(self, trees: list[PrefixTree], pixels: dict[str, torch.Tensor]) -> BatchFeature:
        if self.one_of_several and self.mixes and not pixels:
            unseen = unseen_image(self.processor)
            trees, pixels = [trees[0].with_padding(unseen.inputs["input_ids"][0]), *trees[1:]], unseen.by_image()
        batch = {
            "input_ids": padded([tree.input_ids for tree in trees], self.padding),
            "labels": padded([tree.labels for tree in trees], IGNORE_INDEX),
            "position_ids": padded_positions([tree.position_ids for tree in trees]),
            "attention_mask": seen_pairs(padded([tree.branches for tree in trees], NONE)),
        }
        if not (batch["labels"] != IGNORE_INDEX).any():
            raise ValueError("no token of this batch would be trained: its rows have no answer")
        return BatchFeature(batch | pixels)

    def _prompts(self, trees: list[PrefixTree], pixels: dict[str, torch.Tensor]) -> BatchFeature:
        of_tree = torch.arange(len(trees)).repeat_interleave(torch.tensor([len(tree.members) for tree in trees]))
        order = torch.tensor([number for tree in trees for number in tree.members]).argsort()
        shared = self._prompt([tree.part(0) for tree in trees])
        own = self._prompt([tree.part(1 + k) for tree in trees for k in range(len(tree.members))])
        image_index = of_tree[order]
        batch = {key: torch.cat([shared[key][..., image_index, :], own[key][..., order, :]], dim=-1) for key in own}
        batch |= {f"prefix_{key}": value for key, value in shared.items()}
        return BatchFeature({**batch, "image_index": image_index, **pixels})

    def _prompt(self, parts: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Parts of prompts, padded on the left."""
        ids, positions = zip(*parts, strict=True)
        return {
            "input_ids": padded(ids, self.padding, "left"),
            "attention_mask": padded([torch.ones_like(one) for one in ids], 0, "left"),
            "position_ids": padded_positions(positions, "left"),
        }
