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


def _in_units(box: Box, size: Size, grid: Size) -> list[int]:
    """A box in whole units of a grid laid over the image."""
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


@dataclass(frozen=True)
class BoxCodec:
    """Boxes in pixels -> the text of a Qwen-VL family, which counts whole units of a grid over the image, and back.

    Pixel boxes are `[x1, y1, x2, y2]` of the displayed image, `size` is its `(width, height)` in pixels. A coordinate
    is cut to a whole unit, so a round trip moves it by less than a unit. Unless a family does otherwise, a unit is a
    thousandth of the image's side, and the text a JSON list of `bbox_2d` and `label`.
    """

    def encode(self, boxes: Sequence[Box], size: Size, labels: Sequence[str]) -> str:
        """Write boxes in pixels, one label each, as the model's text.

        What reaches over the image's edge is clipped. Raises ValueError for a box that is empty, inverted, not
        finite or wholly outside, and for a different number of labels.
        """
        if len(boxes) != len(labels):
            raise ValueError(f"labels: {len(labels)} for {len(boxes)} boxes; give one label per box")
        grid = self._grid(size)
        return self._write([(label, _in_units(box, size, grid)) for label, box in zip(labels, boxes, strict=True)])

    def decode(self, text: str, size: Size) -> list[Box]:
        """Read the boxes in a model's text, in pixels, whatever the text: what is no box is skipped.

        Special tokens may be missing (`skip_special_tokens=True`); fences and a cut-off end do no harm. Coordinates
        are clipped to the image; empty and inverted boxes are dropped. An empty list means that nothing could be read.
        """
        grid, boxes = self._grid(size), []
        for numbers in self._find(text):
            x1, y1, x2, y2 = (
                min(max(float(number), 0.0), grid[side % 2]) / grid[side % 2] * size[side % 2]
                for side, number in enumerate(numbers)
            )
            if x1 < x2 and y1 < y2:
                boxes.append([x1, y1, x2, y2])
        return boxes

    def _grid(self, size: Size) -> Size:
        return 1000, 1000

    def _write(self, boxes: list[tuple[str, list[int]]]) -> str:
        return json.dumps([{"bbox_2d": box, "label": label} for label, box in boxes], ensure_ascii=False)

    def _find(self, text: str) -> list[tuple[str, ...]]:
        return _BBOX_2D.findall(text)


class Qwen2VLBoxes(BoxCodec):
    """Qwen2-VL's box text: special tokens around `(x1,y1),(x2,y2)`, joined by a space, in thousandths (0-1000).

    Source: the grounding format of the Qwen2-VL model card and of arXiv 2409.12191.
    """

    def _write(self, boxes: list[tuple[str, list[int]]]) -> str:
        return " ".join(
            f"<|object_ref_start|>{label}<|object_ref_end|><|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>"
            for label, (x1, y1, x2, y2) in boxes
        )

    def _find(self, text: str) -> list[tuple[str, ...]]:
        return _PARENTHESES.findall(_REFERENCE.sub("", text))


@dataclass(frozen=True)
class Qwen25VLBoxes(BoxCodec):
    """Qwen2.5-VL's box text: JSON, in pixels of the resized image.

    `min_pixels` and `max_pixels` must be the image processor's (`size["shortest_edge"]`, `size["longest_edge"]`),
    since the numbers mean pixels of what it makes of the image; `factor` is patch size times merge size. `encode`
    and `decode` raise ValueError where an image's sides differ more than 200-fold, which the processor refuses too.
    Source: arXiv 2502.13923, section 2.
    """

    min_pixels: int
    max_pixels: int
    factor: int = 28

    def _grid(self, size: Size) -> Size:
        height, width = smart_resize(size[1], size[0], self.factor, self.min_pixels, self.max_pixels)
        # Two things the processor of transformers does otherwise, and it is what the model sees: a side that rounds to
        # nothing has the image enlarged to the smallest budget, and no side is less than one patch.
        if 2 * min(size) <= self.factor:
            scale = math.sqrt(self.min_pixels / math.prod(size))
            width, height = (math.ceil(side * scale / self.factor) * self.factor for side in size)
        return max(width, self.factor), max(height, self.factor)


class Qwen3VLBoxes(BoxCodec):
    """Qwen3-VL's box text: JSON, in thousandths. Source: the 2D grounding cookbook of the Qwen3-VL repository."""


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
