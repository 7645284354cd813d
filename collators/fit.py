"""What happens to a row that is too long: smaller images, then a shorter prompt, then no row. Never a cut answer."""

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch.utils.data import get_worker_info
from transformers import ProcessorMixin
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from .conversation import Segments, encode

logger = logging.getLogger(__name__)
OUTCOMES = ("image_shrunk", "prompt_cut", "left_out")
MAX_WORKERS = 256


class FitToLength:
    """Make one row fit into `max_length` tokens, counting what it took in `counts` (`OUTCOMES`)."""

    def __init__(self, processor: ProcessorMixin, max_length: int):
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.max_length = max_length
        # Workers are processes: a slot of shared memory for each, so that no count is lost.
        self._counts = torch.zeros(MAX_WORKERS, len(OUTCOMES), dtype=torch.int64).share_memory_()

    @property
    def counts(self) -> Counter:
        return Counter({name: int(n) for name, n in zip(OUTCOMES, self._counts.sum(0), strict=True) if n})

    def _count(self, outcome: str) -> None:
        worker = get_worker_info()
        self._counts[0 if worker is None else 1 + worker.id % (MAX_WORKERS - 1), OUTCOMES.index(outcome)] += 1

    def __call__(
        self,
        images: list[Image.Image],
        messages: list[dict[str, Any]],
        render: Callable[[list[dict[str, Any]]], Segments],
        name: str,
        required: bool = False,
    ) -> tuple[list[Image.Image], Segments] | None:
        """The images and text segments that fit, or None. With `required`, `ValueError` instead of None."""
        segments = render(messages)
        excess = self._text_tokens(segments) + sum(self._image_tokens(images)) - self.max_length
        shrunk = False
        if excess > 0 and images:
            smaller = self._shrink(images, self.max_length - self._text_tokens(segments))
            shrunk = sum(self._image_tokens(smaller)) < sum(self._image_tokens(images))
            images = smaller if shrunk else images
        room = self.max_length - sum(self._image_tokens(images))
        if self._text_tokens(segments) > room:
            segments = self._cut_prompt(messages, render, room)
            if segments is None:
                self._count("left_out")
                message = f"{name} does not fit into max_length={self.max_length} without cutting its answer or image"
                if required:
                    raise ValueError(f"{message}; raise max_length")
                logger.warning("%s; left out of the batch", message)
                return None
            self._count("prompt_cut")
        if shrunk:
            self._count("image_shrunk")
        return images, segments

    def _text_tokens(self, segments: Segments) -> int:
        """Tokens of the text without its image placeholders (`_image_tokens` counts what they become)."""
        placeholders = sum(text.count(str(self.processor.image_token)) for text, _ in segments)
        return len(encode(self.tokenizer, segments).input_ids) - placeholders

    def _image_tokens(self, images: list[Image.Image]) -> list[int]:
        sizes = [(image.height, image.width) for image in images]
        return self.processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"] if sizes else []

    def _shrink(self, images: list[Image.Image], room: int) -> list[Image.Image]:
        """Scale every image to its equal part of `room` tokens, where tokens depend on an image's size at all."""
        image_processor = self.processor.image_processor
        size = image_processor.size
        if "longest_edge" not in size:  # LLaVA: one size for all
            return images
        factor = image_processor.patch_size * image_processor.merge_size
        min_pixels = (size["shortest_edge"] if "shortest_edge" in size else None) or factor**2
        max_pixels = max(room // len(images), 1) * factor**2
        shrunk = []
        for image in images:
            if image.width * image.height > max_pixels:
                budget = max(max_pixels, min_pixels)
                height, width = smart_resize(image.height, image.width, factor, min_pixels=1, max_pixels=budget)
                image = image.resize((width, height), Image.Resampling.BICUBIC)
            shrunk.append(image)
        return shrunk

    def _cut_prompt(self, messages: list[dict[str, Any]], render: Callable, room: int) -> Segments | None:
        """Shorten the longest text that is not the assistant's, from its end, until everything fits into `room`."""
        messages = [{**message, "content": [dict(part) for part in message["content"]]} for message in messages]
        texts = [part for m in messages if m["role"] != "assistant" for part in m["content"] if part["type"] == "text"]
        while (excess := self._text_tokens(segments := render(messages)) - room) > 0:
            longest = max(texts, key=lambda part: len(part["text"]), default=None)
            if longest is None or not longest["text"]:
                return None
            offsets = self.tokenizer(longest["text"], add_special_tokens=False, return_offsets_mapping=True)
            starts = [start for start, _ in offsets["offset_mapping"]]
            longest["text"] = longest["text"][: starts[max(len(starts) - excess, 0)]]
        return segments
