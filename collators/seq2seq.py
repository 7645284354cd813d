"""Question-and-answer rows -> a batch for an encoder-decoder such as BLIP-2 with T5."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import BatchFeature, ProcessorMixin

from ..rows.conventions import IGNORE_INDEX
from .conversation import defuse
from .images import by_image, named, open_only_image
from .length import padded


@dataclass
class Seq2SeqCollator:
    """Collate rows with `image`, `prompt` and `answer`: the question goes to the encoder, the answer to the decoder.

    Returns `input_ids` and `attention_mask` `[B, S]` (image tokens first, padded on the right: T5's positions are
    relative), `pixel_values` `[B, 3, H, W]`, and `labels` `[B, T]`: the answer's tokens and the end-of-sequence
    token, with -100 as padding.

    With `share_images`, for a model that takes `image_index` (`vlm_recipes.models.blip2`), a row may also be an image
    with `queries`, a list of rows without images (`vlm_recipes.rows.grouping.group_by_image`), and rows of a batch
    with the same `image_id` share their image: it is opened once, `pixel_values` are `[I, 3, H, W]`, and `image_index`
    `[B]` says which image a question is about.

    Args:
        image_transform: applied to each decoded RGB image before the processor, in the data loader's workers.
        prompt_only: for generation; there are no labels.
        background: what is transparent in a picture shows it, a colour's name.

    Raises `ValueError` naming the rows without an answer, and a row without an image, with several or a broken one.
    """

    processor: ProcessorMixin
    image_transform: Callable[[Image.Image], Image.Image] | None = None
    prompt_only: bool = False
    share_images: bool = False
    background: str = "white"

    def __call__(self, rows: list[dict[str, Any]]) -> BatchFeature:
        shown, image_index, rows = by_image(rows) if self.share_images else (rows, None, rows)
        images = [named(row, open_only_image, row, self.background) for row in shown]
        if self.image_transform is not None:
            images = [self.image_transform(image) for image in images]
        # Padded afterwards: BLIP-2's processor puts the image tokens in front of text that is padded already.
        encoded = self.processor(images=images, text=[self._text(row["prompt"]) for row in rows])
        tokenizer = self.processor.tokenizer
        batch = tokenizer.pad(
            {key: encoded[key] for key in ("input_ids", "attention_mask")}, padding_side="right", return_tensors="pt"
        )
        batch = BatchFeature({**batch, "pixel_values": torch.stack(list(encoded["pixel_values"]))})
        if image_index is not None:
            batch["image_index"] = torch.tensor(image_index)
        if not self.prompt_only:
            batch["labels"] = self._labels(rows)
        return batch

    def _text(self, text: str) -> str:
        """No text of a row may claim an image, end an answer early or pass for padding."""
        return defuse(text, (str(self.processor.image_token), *self.processor.tokenizer.all_special_tokens))

    def _labels(self, rows: list[dict[str, Any]]) -> torch.Tensor:
        if silent := [row.get("id") for row in rows if not (row["answer"] or "").strip()]:
            raise ValueError(f"rows without an answer: {silent}")
        eos = self.processor.tokenizer.eos_token_id
        answers = self.processor.tokenizer(text_target=[self._text(row["answer"]) for row in rows])["input_ids"]
        answers = [torch.tensor(ids if ids[-1] == eos else ids + [eos]) for ids in answers]
        return padded(answers, IGNORE_INDEX)
