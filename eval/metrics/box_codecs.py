"""Boxes as the text that each Qwen-VL family was trained to write, and back."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from qwen_vl_utils.vision_process import smart_resize

from .boxes import Box

Size = tuple[int, int]

_NUMBER = r"\s*(-?[0-9]+(?:\.[0-9]+)?)\s*"
_PARENTHESES = re.compile(rf"\({_NUMBER},{_NUMBER}\)\s*,\s*\({_NUMBER},{_NUMBER}\)")
_REFERENCE = re.compile(r"<\|object_ref_start\|>(?:(?!<\|object_ref_).)*<\|object_ref_end\|>", re.DOTALL)
# The key with bare double quotes: inside a JSON string they are escaped, so a label cannot pose as a box. A pattern
# rather than a JSON parser, because the boxes before the cut of a truncated answer still count.
_BBOX_2D = re.compile(rf'"bbox_2d"\s*:\s*\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]')


def _to_grid(boxes: Sequence[Box], labels: Sequence[str], size: Size, grid: Size) -> list[tuple[str, list[int]]]:
    """Pair each label with its box in whole units of a grid laid over the image."""
    if len(boxes) != len(labels):
        raise ValueError(f"labels: {len(labels)} for {len(boxes)} boxes; give one label per box")
    return [(label, _box_to_grid(box, size, grid)) for label, box in zip(labels, boxes, strict=True)]


def _box_to_grid(box: Box, size: Size, grid: Size) -> list[int]:
    clipped = [min(max(edge, 0.0), size[side % 2]) for side, edge in enumerate(box)]
    if not (len(box) == 4 and all(map(math.isfinite, box)) and clipped[0] < clipped[2] and clipped[1] < clipped[3]):
        raise ValueError(
            f"box {list(box)} is not [x1, y1, x2, y2] with x1 < x2 and y1 < y2 "
            f"in pixels of the {size[0]}x{size[1]} image"
        )
    units = [0, 0, 0, 0]
    for axis in (0, 1):
        # 1e-6: 2.142 px of 306 come out as 6.999999999999999 thousandths and mean 7
        low, high = (int(edge / size[axis] * grid[axis] + 1e-6) for edge in (clipped[axis], clipped[axis + 2]))
        # a box thinner than a unit gets a whole one: read back, an empty box would be dropped
        high = min(max(high, low + 1), grid[axis])
        units[axis], units[axis + 2] = min(low, high - 1), high
    return units


def _from_grid(matches: list[tuple[str, ...]], size: Size, grid: Size) -> list[Box]:
    """Turn matched numbers in grid units into pixel boxes, clipped to the image; empty and inverted ones go."""
    boxes = []
    for match in matches:
        x1, y1, x2, y2 = (
            min(max(float(number), 0.0), grid[side % 2]) / grid[side % 2] * size[side % 2]
            for side, number in enumerate(match)
        )
        if x1 < x2 and y1 < y2:
            boxes.append([x1, y1, x2, y2])
    return boxes


def _to_json(units: list[tuple[str, list[int]]]) -> str:
    return json.dumps([{"bbox_2d": box, "label": label} for label, box in units], ensure_ascii=False)


@dataclass(frozen=True)
class Qwen2VLBoxes:
    """Qwen2-VL's box text: special tokens around `(x1,y1),(x2,y2)`, in thousandths of the image's sides.

    Pixel boxes are `[x1, y1, x2, y2]` of the displayed image, `size` is its `(width, height)` in pixels; a
    coordinate is cut to a whole unit (0-1000), so a round trip moves it by less than a unit. Source: the grounding
    format of the Qwen2-VL model card and of arXiv 2409.12191.
    """

    def encode(self, boxes: Sequence[Box], size: Size, labels: Sequence[str]) -> str:
        """Write boxes in pixels, one label each, as the model's text, joined by a space.

        What reaches over the image's edge is clipped. Raises ValueError for a box that is empty, inverted, not
        finite or wholly outside, and for a different number of labels.
        """
        return " ".join(
            f"<|object_ref_start|>{label}<|object_ref_end|><|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>"
            for label, (x1, y1, x2, y2) in _to_grid(boxes, labels, size, (1000, 1000))
        )

    def decode(self, text: str, size: Size) -> list[Box]:
        """Read the boxes in a model's text, in pixels, whatever the text: what is no box is skipped.

        The special tokens may be missing (`skip_special_tokens=True`). Coordinates are clipped to the image; empty
        and inverted boxes are dropped. An empty list means that nothing could be read.
        """
        return _from_grid(_PARENTHESES.findall(_REFERENCE.sub("", text)), size, (1000, 1000))


@dataclass(frozen=True)
class Qwen25VLBoxes:
    """Qwen2.5-VL's box text: a JSON list of `bbox_2d` and `label`, in pixels of the resized image.

    `min_pixels` and `max_pixels` must be the image processor's (`size["shortest_edge"]`, `size["longest_edge"]`),
    since the numbers mean pixels of what it makes of the image; `factor` is patch size times merge size. `encode`
    and `decode` take and give pixels of the displayed image, as in `Qwen2VLBoxes`; a round trip moves a coordinate
    by less than a resized pixel. Both raise ValueError where an image's sides differ more than 200-fold, which the
    processor refuses too. Source: arXiv 2502.13923, section 2.
    """

    min_pixels: int
    max_pixels: int
    factor: int = 28

    def _resized(self, size: Size) -> Size:
        height, width = smart_resize(size[1], size[0], self.factor, self.min_pixels, self.max_pixels)
        # Two things the processor of transformers does otherwise, and it is what the model sees: a side that rounds to
        # nothing has the image enlarged to the smallest budget, and no side is less than one patch.
        if 2 * min(size) <= self.factor:
            scale = math.sqrt(self.min_pixels / math.prod(size))
            width, height = (math.ceil(side * scale / self.factor) * self.factor for side in size)
        return max(width, self.factor), max(height, self.factor)

    def encode(self, boxes: Sequence[Box], size: Size, labels: Sequence[str]) -> str:
        """Write boxes in pixels, one label each, as the model's JSON; raises as `Qwen2VLBoxes.encode` does."""
        return _to_json(_to_grid(boxes, labels, size, self._resized(size)))

    def decode(self, text: str, size: Size) -> list[Box]:
        """Read every complete `bbox_2d` in a model's text, in pixels; fences and a cut-off end do no harm."""
        return _from_grid(_BBOX_2D.findall(text), size, self._resized(size))


@dataclass(frozen=True)
class Qwen3VLBoxes:
    """Qwen3-VL's box text: Qwen2.5-VL's JSON with Qwen2-VL's thousandths of the image's sides.

    `encode` and `decode` take and give pixels of the displayed image, as in `Qwen2VLBoxes`. Source: the 2D
    grounding cookbook of the Qwen3-VL repository.
    """

    def encode(self, boxes: Sequence[Box], size: Size, labels: Sequence[str]) -> str:
        """Write boxes in pixels, one label each, as the model's JSON; raises as `Qwen2VLBoxes.encode` does."""
        return _to_json(_to_grid(boxes, labels, size, (1000, 1000)))

    def decode(self, text: str, size: Size) -> list[Box]:
        """Read every complete `bbox_2d` in a model's text, in pixels; fences and a cut-off end do no harm."""
        return _from_grid(_BBOX_2D.findall(text), size, (1000, 1000))


BoxCodec = Qwen2VLBoxes | Qwen25VLBoxes | Qwen3VLBoxes


def box_codec(model_type: str, min_pixels: int, max_pixels: int) -> BoxCodec:
    """Choose the codec for a model's `config.model_type`.

    `min_pixels` and `max_pixels` are the image processor's pixel budget; only Qwen2.5-VL's boxes depend on it.
    Raises ValueError, naming the supported types, for any other type.
    """
    codecs = {
        "qwen2_vl": Qwen2VLBoxes(),
        "qwen2_5_vl": Qwen25VLBoxes(min_pixels, max_pixels),
        "qwen3_vl": Qwen3VLBoxes(),
    }
    if model_type not in codecs:
        raise ValueError(f"no box format is known for model_type {model_type!r}; supported: {', '.join(codecs)}")
    return codecs[model_type]
