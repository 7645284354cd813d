"""Chat rows -> a batch whose labels are what the assistant says, and nothing else."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image
from transformers import BatchFeature, ProcessorMixin

from ..rows.conventions import IGNORE_INDEX
from ..rows.formats.chat import messages_of, untrained_messages
from .conversation import clean_messages
from .encoding import Encoded, Tokens, check_spoken, encode, encode_alone, tokenized
from .images import blank, named, open_images
from .length import check_length, length_of
from .placeholders import placeholders_of, with_unseen_image
from .rendering import Segments, Template

TRIED = [("user", "Is it?"), ("assistant", "yes"), ("user", "And?"), ("assistant", "no")]


@dataclass
class ChatCollator:
    """Collate chat rows for any model that transformers loads for images and text (docs/models.md).

    A row has `messages`, or a `prompt` and its `completion`, which alone is trained then (TRL's formats), and `images`
    or `image`, see `vlm_recipes.rows.images.images_of`, none for a text-only row; `id` names it to the reader. Images
    are decoded, rotated by their EXIF tag and resized here, that is in the data loader's workers.

    Returns what the processor's own call on the rendered conversations gives: `input_ids` and `attention_mask`
    `[B, S]`, padded on the right, pixels (Qwen2-VL: `pixel_values` `[patches, 1176]`, `image_grid_thw` `[images, 3]`;
    LLaVA: `pixel_values` `[images, 3, H, W]`) and whatever else the model reads; and `labels` `[B, S]`. In each row
    the trained tokens, decoded, are what the assistant says.

    Args:
        processor: turns text and images into tensors; its tokenizer must be a fast one (offsets are needed).
        train_on: "assistant" puts only the assistant's answers and their end-of-turn tokens into the labels; "all"
            everything but padding and image tokens.
        max_length: longest sequence in tokens, None: no limit. A longer row is an error, because no image, prompt or
            answer is ever cut: leave it out beforehand with `dataset.filter(collator.fits)`.
        prompt_only: for generation. The last answer is left out, padding goes to the left, there are no labels.
        chat_template: instead of the processor's own.
        background: what is transparent in a picture shows it, a colour's name.

    In several processes a batch without images gets a black one among its padding, where no token sees it: the vision
    tower has to run, and to get its (zero) gradients, in all processes or in none.

    Raises `ValueError` for a processor whose call cannot be followed, tried on two short conversations; naming the row
    when it is longer than `max_length`, its messages and images disagree, or its template or tokenizer makes something
    else of an answer; and when no token of the batch would be trained.
    """

    processor: ProcessorMixin
    train_on: Literal["assistant", "all"] = "assistant"
    max_length: int | None = None
    prompt_only: bool = False
    chat_template: str | None = None
    background: str = "white"
    share_images = False

    def __post_init__(self):
        self.tokenizer = self.processor.tokenizer
        if not self.tokenizer.is_fast:
            raise ValueError(f"{type(self.tokenizer).__name__} is not a fast tokenizer, labels need its offsets")
        self.one_of_several = int(os.environ.get("WORLD_SIZE", 1)) > 1
        try:
            self.image_token = str(self.processor.image_token)
            self.template = Template(self.processor, self.chat_template)
            self.placeholders, self.image_token_ids = placeholders_of(self.processor)
            segments = self.segments({"messages": [{"role": role, "content": text} for role, text in TRIED]}, 1)
            tried = encode(self.processor, [segments], [blank([(64, 64)])])
            if not self.prompt_only:
                check_spoken(self.tokenizer, tried.row(0)[0][tried.row(0)[1]], segments)
            self.said_of_tokens = tried.said_of_tokens()
            self.mixes = "cross_attention_mask" not in tried.inputs  # Mllama's images are numbered by rows
        except Exception as error:  # whatever a processor of another kind may raise
            raise ValueError(f"{type(self.processor).__name__} cannot be followed here: {error}") from error

    def __call__(self, rows: list[dict[str, Any]]) -> BatchFeature:
        images = [named(row, open_images, row, self.background) for row in rows]
        if not self.mixes and any(images) and not all(images):
            raise ValueError(
                f"{type(self.processor).__name__} reads no batch of rows with and without images: give all rows of a "
                "dataset images, or none"
            )
        encoded = self._encode(rows, images)
        batch = encoded.inputs
        if not self.prompt_only:
            batch["labels"] = self._labels(batch["input_ids"], encoded.spoken, batch["attention_mask"])
        if self.one_of_several and self.mixes and not any(images):
            batch = with_unseen_image(self.processor, batch, self.prompt_only)
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
        conversations = [named(query, self.segments, query, len(sizes)) for query in row.get("queries") or [row]]
        return max(length_of(self.processor, segments, sizes) for segments in conversations)

    def segments(self, row: dict[str, Any], n_images: int) -> Segments:
        """A row's conversation about `n_images` as text, in segments by who speaks.

        Raises `ValueError` when messages and images disagree.
        """
        messages, untrained = messages_of(row), untrained_messages(row)
        messages = clean_messages(messages, n_images, self.placeholders)
        segments = self.template.segments(messages, self.prompt_only, untrained)
        placed = sum(text.count(self.image_token) for text, _ in segments)
        if placed != (shown := sum(part["type"] == "image" for m in messages for part in m["content"])):
            raise ValueError(f"the chat template writes {placed} image tokens for {shown} images")
        return segments

    def encode_by_image(
        self,
        asked: Sequence[Sequence[dict[str, Any]]],
        conversations: Sequence[Sequence[Segments]],
        images: Sequence[Sequence[Image.Image]],
    ) -> tuple[list[list[Tokens]], dict[str, torch.Tensor]]:
        """Tokens and labels `[S]` of each conversation about the same images, and what the model reads beside tokens.

        The rows `asked` and their `conversations` come by `images`. These go through the image processor once, with
        the first conversation about them; the others are tokenized alone, and get the tokens of the images from there.
        """
        first = encode(self.processor, [own[0] for own in conversations], images)
        sequences = []
        for i, (rows, own) in enumerate(zip(asked, conversations, strict=True)):
            found = [first.row(i)]
            if len(own) > 1:
                again, _ = encode_alone(self.processor, own[0], first, i)
                if not torch.equal(again, found[0][0]):
                    raise ValueError(f"{type(self.processor).__name__}: an image's tokens join the text around them")
                found += [encode_alone(self.processor, one, first, i) for one in own[1:]]
            for row, (ids, spoken), segments in zip(rows, found, own, strict=True):
                named(row, self._check, ids, spoken, segments)
            sequences.append([(ids, self._labels(ids, spoken)) for ids, spoken in found])
        return sequences, first.by_image()

    def answer_ids(self, answer: str) -> list[int]:
        """The tokens that training shows for an answer: after the generation prompt, end of turn included.

        Raises `ValueError` if the prompt's own tokens change when the answer follows.
        """
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]
        segments = self.template.segments(clean_messages(turns, 0, self.placeholders))[:2]
        (before, _), (ids, _) = (tokenized(self.tokenizer, segments[:n]) for n in (1, 2))
        if not torch.equal(ids[: len(before)], before):
            raise ValueError(f"the tokens of the prompt change before the answer {answer!r}")
        check_spoken(self.tokenizer, ids[len(before) :], segments)
        return ids[len(before) :].tolist()

    def _encode(self, rows: Sequence[dict[str, Any]], images: Sequence[Sequence[Image.Image]]) -> Encoded:
        conversations = [named(row, self.segments, row, len(own)) for row, own in zip(rows, images, strict=True)]
        side = "left" if self.prompt_only else "right"
        try:
            encoded = encode(self.processor, conversations, images, side)
        except ValueError:  # which row it is of, the processor does not say
            for row, segments, own in zip(rows, conversations, images, strict=True):
                named(row, encode, self.processor, [segments], [own])
            raise
        for i, (row, segments) in enumerate(zip(rows, conversations, strict=True)):
            named(row, self._check, *encoded.row(i), segments)
        return encoded

    def _check(self, ids: torch.Tensor, spoken: torch.Tensor, segments: Segments) -> None:
        check_length(len(ids), self.max_length)
        if not self.prompt_only:
            check_spoken(self.tokenizer, ids[spoken], segments)

    def _labels(self, ids: torch.Tensor, spoken: torch.Tensor, attention_mask: torch.Tensor | int = 1) -> torch.Tensor:
        if self.prompt_only:
            return torch.full_like(ids, IGNORE_INDEX)
        if self.train_on == "all":
            spoken = (torch.as_tensor(attention_mask) == 1) & ~torch.isin(ids, torch.tensor(self.image_token_ids))
        return torch.where(spoken, ids, IGNORE_INDEX)
