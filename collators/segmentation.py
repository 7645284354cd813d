"""Chat rows whose answers say `[SEG]`, and a mask for each -> a batch for LISA."""

from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco
from transformers import BatchFeature, ProcessorMixin

from ..rows.conventions import IGNORE_INDEX, IGNORED_PIXEL, SEG_TOKEN
from .chat import ChatCollator
from .conversation import Messages, clean_messages
from .images import by_image, named, open_only_image
from .length import padded
from .rendering import Segments


@dataclass
class SegmentationCollator:
    """Collate rows for LISA: each image once for LLaVA and once for SAM, the answers' tokens, the masks at full size.

    A row is one query about its `image`, with `messages`, `masks` and `ignore`, or an image with all its `queries`, a
    list of such. `masks` are run lengths (pycocotools' compressed `{"size": [H, W], "counts"}`), one for each `[SEG]`
    that the assistant says; `ignore` is None or the run lengths of pixels that do not count. Rows of a batch with the
    same `image_id` share their image: it is opened once.

    Returns `input_ids`, `attention_mask`, `labels` `[B, S]` and `image_index` `[B]`, B counting queries; per image
    `pixel_values` `[I, 3, h, w]`, `sam_pixel_values` `[I, 3, s, s]`, `original_sizes` and `reshaped_input_sizes`
    `[I, 2]` (height, width); and `masks`, per query `[n, H, W]` of 0, 1 and 255 (does not count).

    Args:
        processor: a `vlm_recipes.models.lisa.loading.LisaProcessor`: LLaVA's, with SAM's image processor as
            `sam_image_processor`, and a tokenizer that knows `[SEG]`.
        prompt_only: for generation. The last answer is left out, padding goes to the left, no labels, no masks.
        background: what is transparent in a picture shows it, a colour's name.

    Raises `ValueError` naming the row whose answer has another number of `[SEG]` than of masks, or whose mask has
    another size than its image.
    """

    processor: ProcessorMixin
    prompt_only: bool = False
    background: str = "white"
    chat: ChatCollator = field(init=False, repr=False)
    share_images = True

    def __post_init__(self):
        self.chat = ChatCollator(self.processor, prompt_only=self.prompt_only)
        self.seg_token_id = self.processor.tokenizer.convert_tokens_to_ids(SEG_TOKEN)

    def __call__(self, rows: list[dict[str, Any]]) -> BatchFeature:
        shown, image_index, queries = by_image(rows)
        images = [named(row, open_only_image, row, self.background) for row in shown]
        places = [[n for n, of in enumerate(image_index) if of == i] for i in range(len(images))]
        asked = [[queries[n] for n in own] for own in places]
        conversations = [[named(query, self._segments, query["messages"]) for query in own] for own in asked]
        sequences, pixels = self.chat.encode_by_image(asked, conversations, [[image] for image in images])
        found = dict(zip(chain(*places), chain(*sequences), strict=True))
        ids, labels = zip(*(found[n] for n in range(len(queries))), strict=True)
        side = "left" if self.prompt_only else "right"
        batch = BatchFeature({"input_ids": padded(ids, self.processor.tokenizer.pad_token_id, side)})
        batch["attention_mask"] = padded([torch.ones_like(row) for row in ids], 0, side)
        if not self.prompt_only:
            batch["labels"] = padded(labels, IGNORE_INDEX)
        batch["image_index"] = torch.tensor(image_index)
        batch.update(pixels)
        for_sam = self.processor.sam_image_processor(images, return_tensors="pt")
        batch["sam_pixel_values"] = for_sam["pixel_values"]
        batch |= {key: for_sam[key] for key in ("original_sizes", "reshaped_input_sizes")}
        if not self.prompt_only:
            said = (batch["labels"] == self.seg_token_id).sum(1).tolist()
            sizes = batch["original_sizes"][batch["image_index"]].tolist()
            batch["masks"] = [
                named(query, self._masks, query, n, size) for query, n, size in zip(queries, said, sizes, strict=True)
            ]
        return batch

    def _segments(self, messages: Messages) -> Segments:
        """A conversation about one image as text; no question may spell the token that draws."""
        harmless = clean_messages(messages, 1, (*self.chat.placeholders, SEG_TOKEN))
        pairs = zip(messages, harmless, strict=True)
        asked = [message if message["role"] == "assistant" else other for message, other in pairs]
        return self.chat.segments({"messages": asked}, n_images=1)

    def _masks(self, query: dict[str, Any], said: int, size: list[int]) -> torch.Tensor:
        masks, ignore = query.get("masks") or [], query.get("ignore")
        if said != len(masks):
            raise ValueError(f"the answer says {SEG_TOKEN} {said} times, and there are {len(masks)} masks")
        for part in [*masks, ignore] if ignore else masks:
            if list(part["size"]) != size:
                raise ValueError(f"a mask of {part['size']} for an image of {size} (height, width)")
        decoded = np.zeros((len(masks), *size), dtype=np.uint8)
        for target, mask in zip(decoded, masks, strict=True):
            target[:] = coco.decode(mask)
        if ignore:
            decoded[:, coco.decode(ignore) == 1] = IGNORED_PIXEL
        return torch.from_numpy(decoded)
