"""Chat rows -> a batch whose labels are what the assistant says, and nothing else."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image
from transformers import BatchFeature, ProcessorMixin

from ..rows.conventions import IGNORE_INDEX
from .conversation import Messages, Segments, clean_messages, encode, render
from .images import named, open_images
from .length import check_length, image_tokens, image_tokens_of_sizes, padded


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
        max_length: longest sequence in tokens, None: no limit. A longer row is an error, because no image, prompt or
            answer is ever cut: leave it out beforehand with `dataset.filter(collator.fits)`.
        prompt_only: for generation. The last answer is left out, padding goes to the left, there are no labels.
        chat_template: instead of the processor's own.

    In several processes a batch without images gets a black one among its padding, where no token sees it: the vision
    tower has to run, and to get its (zero) gradients, in all processes or in none.

    Raises `ValueError` naming the row when it is longer than `max_length` or its messages and images disagree, and
    when no token of the batch would be trained.
    """

    processor: ProcessorMixin
    train_on: Literal["assistant", "all"] = "assistant"
    max_length: int | None = None
    prompt_only: bool = False
    chat_template: str | None = None

    def __post_init__(self):
        self.tokenizer = self.processor.tokenizer
        if not self.tokenizer.is_fast:
            raise ValueError(f"{type(self.tokenizer).__name__} is not a fast tokenizer, labels need its offsets")
        self.image_token = str(self.processor.image_token)
        self.image_token_id = self.tokenizer.convert_tokens_to_ids(self.image_token)
        video_token = getattr(self.processor, "video_token", None)  # LLaVA has none
        self.placeholders = tuple(str(token) for token in (self.image_token, video_token) if token)
        self.one_of_several = int(os.environ.get("WORLD_SIZE", 1)) > 1

    def __call__(self, rows: list[dict[str, Any]]) -> BatchFeature:
        opened = [named(row, open_images, row) for row in rows]
        conversations = [
            named(row, self.segments, row["messages"], len(own)) for row, own in zip(rows, opened, strict=True)
        ]
        images = [image for own in opened for image in own]
        pixels = self.processor.image_processor(images, return_tensors="pt") if images else {}
        tokens = image_tokens(self.processor, pixels, len(images))
        batch = self.text_batch(self.sequences(rows, conversations, tokens))
        batch.update(pixels)
        if not images and self.one_of_several:
            batch = self._with_unseen_image(batch)
        if not self.prompt_only and not (batch["labels"] != IGNORE_INDEX).any():
            names = ", ".join(repr(row.get("id", "without id")) for row in rows)
            raise ValueError(f"no token of this batch would be trained: row {names} have no answer")
        return batch

    def fits(self, row: dict[str, Any]) -> bool:
        """Whether a row, or each of its `queries`, has at most `max_length` tokens: for `dataset.filter`."""
        return self.max_length is None or self.length(row) <= self.max_length

    def length(self, row: dict[str, Any], sizes: Sequence[Sequence[int]] | None = None) -> int:
        """How many tokens a row has, or the longest of its `queries`; raises `ValueError` as the collator does.

        With the images' `sizes` (width, height in pixels, as displayed) the images themselves are not needed.
        """
        if sizes is None:
            sizes = [image.size for image in named(row, open_images, row)]
        of_images = (self.processor, self.processor.to_json_string(), tuple(map(tuple, sizes)))
        tokens = image_tokens_of_sizes(*of_images) if sizes else []
        conversations = [
            named(query, self.segments, query["messages"], len(sizes)) for query in row.get("queries") or [row]
        ]
        return max(len(encode(self.tokenizer, one).input_ids) for one in conversations) + sum(tokens) - len(tokens)

    def _with_unseen_image(self, batch: BatchFeature) -> BatchFeature:
        pixels = self.processor.image_processor([Image.new("RGB", (32, 32))], return_tensors="pt")
        is_image = torch.zeros(len(batch["input_ids"]), *image_tokens(self.processor, pixels, 1), dtype=torch.long)
        is_image[0] = 1
        ids = torch.where(is_image == 1, self.image_token_id, self.tokenizer.pad_token_id)
        columns = {"input_ids": ids, "labels": IGNORE_INDEX, "attention_mask": 0, "mm_token_type_ids": is_image}
        for key, values in batch.items():
            added = torch.zeros_like(ids) + columns[key]
            batch[key] = torch.cat([added, values] if self.prompt_only else [values, added], dim=1)
        batch.update(pixels)
        return batch

    def sequences(
        self, rows: Sequence[dict[str, Any]], conversations: list[Segments], tokens_per_image: Iterable[int]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Tokens and labels `[S]` of each row's rendered conversation, whose images take so many tokens, in order."""
        tokens_per_image, sequences = iter(tokens_per_image), []
        for row, segments in zip(rows, conversations, strict=True):
            encoded = encode(self.tokenizer, segments)
            ids = torch.tensor(encoded["input_ids"])
            trained = self._trained(ids, encoded["offset_mapping"], segments)
            # One placeholder in the text becomes as many tokens as the image has.
            repeats = torch.ones_like(ids)
            is_image = ids == self.image_token_id
            repeats[is_image] = torch.tensor([next(tokens_per_image) for _ in range(int(is_image.sum()))]).long()
            ids, trained = ids.repeat_interleave(repeats), trained.repeat_interleave(repeats)
            named(row, check_length, len(ids), self.max_length)
            sequences.append((ids, torch.where(trained, ids, IGNORE_INDEX)))
        return sequences

    def segments(self, messages: Messages, n_images: int) -> Segments:
        """A conversation about `n_images` as text, in segments by who speaks.

        Raises `ValueError` when messages and images disagree.
        """
        messages = clean_messages(messages, n_images, self.placeholders)
        segments = render(self.processor, messages, self.chat_template, self.prompt_only)
        placed = sum(text.count(self.image_token) for text, _ in segments)
        if placed != (shown := sum(part["type"] == "image" for m in messages for part in m["content"])):
            raise ValueError(f"the chat template writes {placed} image tokens for {shown} images")
        return segments

    def answer_ids(self, answer: str) -> list[int]:
        """The tokens that training shows for an answer: after the generation prompt, end of turn included.

        Raises `ValueError` if the prompt's own tokens change when the answer follows.
        """
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]
        turns = clean_messages(turns, 0, self.placeholders)
        (prompt, _), (spoken, _) = render(self.processor, turns, self.chat_template)[:2]
        before = encode(self.tokenizer, [(prompt, False)])["input_ids"]
        ids = encode(self.tokenizer, [(prompt, False), (spoken, True)])["input_ids"]
        if ids[: len(before)] != before:
            raise ValueError(f"the tokens of the prompt change before the answer {answer!r}")
        return ids[len(before) :]

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

    def text_batch(self, sequences: list[tuple[torch.Tensor, torch.Tensor]]) -> BatchFeature:
        """Tokens, mask and labels `[B, S]` of `sequences`."""
        ids, labels = zip(*sequences, strict=True)
        side = "left" if self.prompt_only else "right"
        batch = BatchFeature({"input_ids": padded(ids, self.tokenizer.pad_token_id, side)})
        batch["attention_mask"] = padded([torch.ones_like(row) for row in ids], 0, side)
        if not self.prompt_only:
            batch["labels"] = padded(labels, IGNORE_INDEX)
        if "mm_token_type_ids" in self.processor.model_input_names:
            batch["mm_token_type_ids"] = (batch["input_ids"] == self.image_token_id).long()
        return batch
