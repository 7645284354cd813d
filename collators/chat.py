"""Chat rows -> a batch whose labels are what the assistant says, and nothing else."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from PIL import Image
from transformers import BatchFeature, ProcessorMixin

from ..rows.conventions import IGNORE_INDEX
from .conversation import Messages, Segments, clean_messages, encode, render
from .fit import FitToLength
from .images import named, open_images


@dataclass
class ChatCollator:
    """Collate chat rows for Qwen2-VL, Qwen2.5-VL, LLaVA and alike.

    A row has `messages` (TRL's conversational format) and `images` (or `image`): PIL images or paths, none for a
    text-only row; `id` is used in messages to the reader. Images are decoded, rotated by their EXIF tag and resized
    here, that is in the data loader's workers.

    Returns `input_ids`, `attention_mask`, `labels` `[B, S]`, padded on the right, and what the image processor gives
    (Qwen2-VL: `pixel_values` `[patches, 1176]`, `image_grid_thw` `[images, 3]`; LLaVA: `pixel_values`
    `[images, 3, H, W]`), plus `mm_token_type_ids` `[B, S]` where the model reads it.

    Args:
        processor: turns text and images into tensors; its tokenizer must be a fast one (offsets are needed).
        train_on: "assistant" puts only the assistant's answers and their end-of-turn tokens into the labels; "all"
            everything but padding and image tokens.
        max_length: longest sequence in tokens. A longer row gets smaller images, then a shorter prompt; a row that
            still does not fit is left out and named. `truncated` counts each. None: no limit.
        prompt_only: for generation. The last answer is left out, padding goes to the left, there are no labels.
        chat_template: instead of the processor's own.

    In several processes a batch without images gets a black one among its padding, where no token sees it: the vision
    tower has to run, and to get its (zero) gradients, in all processes or in none.

    Raises `ValueError` when a row's messages and images disagree, or when no token of the batch would be trained.
    """

    processor: ProcessorMixin
    train_on: Literal["assistant", "all"] = "assistant"
    max_length: int | None = None
    prompt_only: bool = False
    chat_template: str | None = None
    fit: FitToLength | None = field(init=False, default=None, repr=False)

    def __post_init__(self):
        self.tokenizer = self.processor.tokenizer
        if not self.tokenizer.is_fast:
            raise ValueError(f"{type(self.tokenizer).__name__} is not a fast tokenizer, labels need its offsets")
        self.image_token = str(self.processor.image_token)
        self.image_token_id = self.tokenizer.convert_tokens_to_ids(self.image_token)
        video_token = getattr(self.processor, "video_token", None)  # LLaVA has none
        self.placeholders = tuple(str(token) for token in (self.image_token, video_token) if token)
        self.fit = FitToLength(self.processor, self.max_length) if self.max_length else None
        self.one_of_several = int(os.environ.get("WORLD_SIZE", 1)) > 1

    @property
    def truncated(self) -> Counter:
        """How many rows got smaller images or a shorter prompt, or were left out, in all workers so far."""
        return self.fit.counts if self.fit else Counter()

    def __call__(self, rows: list[dict[str, Any]]) -> BatchFeature:
        prepared = [item for row in rows if (item := self._prepare(row)) is not None]
        if not prepared:
            raise ValueError(f"no row of this batch fits into max_length={self.max_length}: {_names(rows)}")
        images = [image for images, _ in prepared for image in images]
        pixels = self.processor.image_processor(images, return_tensors="pt") if images else {}
        batch = self.text_batch([segments for _, segments in prepared], self.tokens_per_image(pixels, len(images)))
        batch.update(pixels)
        if not images and self.one_of_several:
            batch = self._with_unseen_image(batch)
        if not self.prompt_only and not (batch["labels"] != IGNORE_INDEX).any():
            raise ValueError(f"no token of this batch would be trained: {_names(rows)} have no answer")
        return batch

    def _with_unseen_image(self, batch: BatchFeature) -> BatchFeature:
        pixels = self.processor.image_processor([Image.new("RGB", (32, 32))], return_tensors="pt")
        unseen = torch.full((len(batch["input_ids"]), *self.tokens_per_image(pixels, 1)), self.tokenizer.pad_token_id)
        unseen[0] = self.image_token_id
        columns = {"input_ids": unseen, "labels": IGNORE_INDEX, "attention_mask": 0}
        columns["mm_token_type_ids"] = (unseen == self.image_token_id).long()
        for key, values in batch.items():
            added = torch.zeros_like(unseen) + columns[key]
            batch[key] = torch.cat([added, values] if self.prompt_only else [values, added], dim=1)
        batch.update(pixels)
        return batch

    def tokens_per_image(self, pixels: dict[str, torch.Tensor], n_images: int) -> list[int]:
        """How many tokens each image of the image processor's output `pixels` takes in the text."""
        return [self.processor.replace_image_token(pixels, i).count(self.image_token) for i in range(n_images)]

    def text_batch(self, conversations: list[Segments], tokens_per_image: Iterable[int]) -> BatchFeature:
        """Tokens, mask and labels of rendered conversations, whose images take these numbers of tokens, in order."""
        return self._pad(self.sequences(conversations, tokens_per_image))

    def sequences(
        self, conversations: list[Segments], tokens_per_image: Iterable[int]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Each rendered conversation's tokens and labels `[S]`, not padded; see `text_batch`."""
        tokens_per_image, sequences = iter(tokens_per_image), []
        for segments in conversations:
            encoded = encode(self.tokenizer, segments)
            ids = torch.tensor(encoded["input_ids"])
            trained = self._trained(ids, encoded["offset_mapping"], segments)
            # One placeholder in the text becomes as many tokens as the image has.
            repeats = torch.ones_like(ids)
            is_image = ids == self.image_token_id
            repeats[is_image] = torch.tensor([next(tokens_per_image) for _ in range(int(is_image.sum()))]).long()
            ids, trained = ids.repeat_interleave(repeats), trained.repeat_interleave(repeats)
            sequences.append((ids, torch.where(trained, ids, IGNORE_INDEX)))
        return sequences

    def segments(self, messages: Messages, n_images: int) -> Segments:
        """A conversation about `n_images` as text, in segments by who speaks.

        Raises `ValueError` when messages and images disagree.
        """
        return self._render(clean_messages(messages, n_images, self.placeholders))

    def answer_ids(self, answer: str) -> list[int]:
        """The tokens that training shows for an answer: after the generation prompt, end of turn included.

        Raises `ValueError` if the prompt's own tokens change when the answer follows.
        """
        turns = [
            {"role": role, "content": [{"type": "text", "text": text}]}
            for role, text in (("user", "?"), ("assistant", answer))
        ]
        turns = clean_messages(turns, 0, self.placeholders)
        (prompt, _), (spoken, _) = render(self.processor, turns, self.chat_template)[:2]
        before = encode(self.tokenizer, [(prompt, False)])["input_ids"]
        ids = encode(self.tokenizer, [(prompt, False), (spoken, True)])["input_ids"]
        if ids[: len(before)] != before:
            raise ValueError(f"the tokens of the prompt change before the answer {answer!r}")
        return ids[len(before) :]

    def _prepare(self, row: dict[str, Any]) -> tuple[list, Segments] | None:
        return self.fitted(row, named(row, open_images, row))

    def fitted(self, row: dict[str, Any], images: list[Image.Image]) -> tuple[list[Image.Image], Segments] | None:
        """A row's images, its opened `images` made smaller where need be, and its text; None if it does not fit."""
        messages = named(row, clean_messages, row["messages"], len(images), self.placeholders)
        segments = named(row, self._render, messages)
        if self.fit is None:
            return images, segments
        return self.fit(images, messages, self._render, _names([row]), required=self.prompt_only)

    def _render(self, messages: list[dict[str, Any]]) -> Segments:
        segments = render(self.processor, messages, self.chat_template, self.prompt_only)
        placed = sum(text.count(self.image_token) for text, _ in segments)
        if placed != (shown := sum(part["type"] == "image" for m in messages for part in m["content"])):
            raise ValueError(f"the chat template writes {placed} image tokens for {shown} images")
        return segments

    def _trained(self, ids: torch.Tensor, offsets: list, segments: Segments) -> torch.Tensor:
        if self.prompt_only:
            return torch.zeros(len(ids), dtype=torch.bool)
        if self.train_on == "all":
            return ids != self.image_token_id
        starts = torch.tensor([start for start, _ in offsets])
        trained, position = torch.zeros(len(ids), dtype=torch.bool), 0
        for text, spoken in segments:
            if spoken:
                trained |= (starts >= position) & (starts < position + len(text))
            position += len(text)
        return trained

    def _pad(self, sequences: list[tuple[torch.Tensor, torch.Tensor]]) -> BatchFeature:
        side = "left" if self.prompt_only else "right"

        def padded(tensors: list[torch.Tensor], value: int) -> torch.Tensor:
            return torch.nn.utils.rnn.pad_sequence(tensors, True, value, padding_side=side)

        ids = [ids for ids, _ in sequences]
        batch = BatchFeature(
            {
                "input_ids": padded(ids, self.tokenizer.pad_token_id),
                "attention_mask": padded([torch.ones_like(row) for row in ids], 0),
            }
        )
        if not self.prompt_only:
            batch["labels"] = padded([labels for _, labels in sequences], IGNORE_INDEX)
        if "mm_token_type_ids" in self.processor.model_input_names:
            batch["mm_token_type_ids"] = (batch["input_ids"] == self.image_token_id).long()
        return batch


def _names(rows: list[dict[str, Any]]) -> str:
    return "row " + ", ".join(repr(row.get("id", "without id")) for row in rows)
