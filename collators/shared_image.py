"""Images with all their questions -> a batch in which each image is encoded and read once."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import BatchFeature, LlavaProcessor, ProcessorMixin, Qwen2_5_VLProcessor, Qwen2VLProcessor

from ..rows.conventions import IGNORE_INDEX
from .chat import ChatCollator
from .images import by_image, named, open_images
from .length import image_tokens, padded
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

KNOWN = (Qwen2VLProcessor, Qwen2_5_VLProcessor, LlavaProcessor)


@dataclass
class SharedImageCollator(ChatCollator):
    """Collate images with their conversations for Qwen2-VL, Qwen2.5-VL and LLaVA, so that each image is read once.

    A row is an image with `queries`, as `vlm_recipes.rows.grouping.group_by_image` makes it, or a chat row as
    `ChatCollator` takes it; rows of a batch with the same `image_id` come together. What the conversations of an image
    have in common (system message, images, first words) begins a sequence, and each goes on from there as a branch
    which sees no other: loss and gradient are those of separate rows. Where an image comes only after words that
    differ, they are separate.

    Returns, for B sequences: `input_ids` and `labels` `[B, S]`, padded on the right; `position_ids` `[3, B, S]`
    (Qwen-VL) or `[B, S]`, at which every branch follows the shared part; `attention_mask` `[B, 1, S, S]`, boolean,
    as the attention called "sdpa" reads it; and what the image processor gives, in the order of the images' tokens.
    `SharedImageCallback` makes of the mask what "eager" adds to the scores, refuses an attention without masks
    (flash), and has the Trainer count questions and tokens, not images and pairs of tokens.

    With `prompt_only`, for `vlm_recipes.eval.generation.generate`: of the B questions `input_ids`, `attention_mask`
    and `position_ids`, the padding between the shared part and the rest; `image_index` `[B]`, and of the G shared
    parts `prefix_input_ids`, `prefix_attention_mask` and `prefix_position_ids`.

    Arguments are `ChatCollator`'s. More conversations than fit into `max_length` go on in another sequence, with the
    image again; one that is too long by itself is an error. With `train_on="all"` they are separate.

    Raises `ValueError` for another model's processor, and as `ChatCollator` does.
    """

    share_images = True

    def __post_init__(self):
        if not isinstance(self.processor, KNOWN):
            raise ValueError(f"{type(self.processor).__name__}: its positions are not known here, use ChatCollator")
        super().__post_init__()
        self.padding = self.tokenizer.pad_token_id

    def __call__(self, rows: list[dict[str, Any]]) -> BatchFeature:
        shown, image_index, queries = by_image(rows)
        asked: list[list[tuple[int, dict]]] = [[] for _ in shown]
        for number, (place, query) in enumerate(zip(image_index, queries, strict=True)):
            asked[place].append((number, query))
        trees = [tree for row, own in zip(shown, asked, strict=True) for tree in self._trees(row, own)]
        return self._prompts(trees) if self.prompt_only else self._batch(trees)

    def _trees(self, row: dict[str, Any], queries: list[tuple[int, dict]]) -> list[PrefixTree]:
        """The conversations about the images of `row`: one tree, or several where too long or too unlike."""
        images = named(row, open_images, row)
        pixels = self.processor.image_processor(images, return_tensors="pt") if images else {}
        tokens = image_tokens(self.processor, pixels, len(images))
        numbers, asked = zip(*queries, strict=True)
        rendered = [named(query, self.segments, query["messages"], len(images)) for query in asked]
        sequences = self.sequences(asked, rendered, tokens * len(asked))
        conversations = [
            Conversation(number, ids, labels, self._positions(ids, pixels))
            for number, (ids, labels) in zip(numbers, sequences, strict=True)
        ]
        if shared := shared_length(conversations, self.image_token_id):
            return [grow(part, shared, pixels) for part in split(conversations, shared, self.max_length)]
        return [grow([one], shared_length([one], self.image_token_id), pixels) for one in conversations]

    def _positions(self, ids: torch.Tensor, pixels: dict[str, torch.Tensor]) -> torch.Tensor:
        if isinstance(self.processor, LlavaProcessor):
            return rope_positions(ids, self.image_token_id, None)
        grid = pixels.get("image_grid_thw", torch.empty(0, 3, dtype=torch.long))
        return rope_positions(ids, self.image_token_id, grid, self.processor.image_processor.merge_size)

    def _batch(self, trees: list[PrefixTree]) -> BatchFeature:
        batch = {
            "input_ids": padded([tree.input_ids for tree in trees], self.padding),
            "labels": padded([tree.labels for tree in trees], IGNORE_INDEX),
            "position_ids": padded_positions([tree.position_ids for tree in trees]),
            "attention_mask": seen_pairs(padded([tree.branches for tree in trees], NONE)),
        }
        if not (batch["labels"] != IGNORE_INDEX).any():
            raise ValueError("no token of this batch would be trained: its rows have no answer")
        return BatchFeature(batch | _images(trees))

    def _prompts(self, trees: list[PrefixTree]) -> BatchFeature:
        of_tree = torch.arange(len(trees)).repeat_interleave(torch.tensor([len(tree.members) for tree in trees]))
        order = torch.tensor([number for tree in trees for number in tree.members]).argsort()
        shared = self._prompt([tree.part(0) for tree in trees])
        own = self._prompt([tree.part(1 + k) for tree in trees for k in range(len(tree.members))])
        image_index = of_tree[order]
        batch = {key: torch.cat([shared[key][..., image_index, :], own[key][..., order, :]], dim=-1) for key in own}
        batch |= {f"prefix_{key}": value for key, value in shared.items()}
        return BatchFeature({**batch, "image_index": image_index, **_images(trees)})

    def _prompt(self, parts: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Parts of prompts, padded on the left."""
        ids, positions = zip(*parts, strict=True)
        return {
            "input_ids": padded(ids, self.padding, "left"),
            "attention_mask": padded([torch.ones_like(one) for one in ids], 0, "left"),
            "position_ids": padded_positions(positions, "left"),
        }


def _images(trees: list[PrefixTree]) -> dict[str, torch.Tensor]:
    """What the image processor gave for each tree, one after another."""
    shown = [tree.pixels for tree in trees if tree.pixels]
    return {key: torch.cat([pixels[key] for pixels in shown]) for key in (shown[0] if shown else ())}


def chat_collator(processor: ProcessorMixin, questions_per_row: int, **settings) -> ChatCollator:
    """A `SharedImageCollator` where rows hold several questions about an image, else a `ChatCollator`."""
    return (SharedImageCollator if questions_per_row > 1 else ChatCollator)(processor, **settings)
