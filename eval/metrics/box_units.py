"""Boxes in pixels -> whole units of a grid over the image, as models write them, and back."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .boxes import Box

Size = tuple[int, int]
Found = tuple[str, Sequence[str]]  # a label, and four numbers in the order of the text
NUMBER = r"\s*(-?[0-9]+(?:\.[0-9]+)?)\s*"
NUMBERS = ",".join([NUMBER] * 4)
NOISE = 1e-6  # 2.142 px of 306 come out as 6.999999999999999 thousandths and mean 7


class LabelledBox(NamedTuple):
    """A box `[x1, y1, x2, y2]` in pixels, and its label: "" where the text has none for it."""

    box: Box
    label: str


@dataclass(frozen=True)
class BoxCodec:
    """Boxes in pixels -> the text of a family of models, which counts whole units of a grid over the image, and back.

    Pixel boxes are `[x1, y1, x2, y2]` of the displayed image, `size` is its `(width, height)` in pixels. A round trip
    moves a coordinate by less than a unit. A family says how its text is written and read (`_write`, `_find`) and,
    where it differs: the grid's size, by default 1000 units a side; the `last` unit that it writes; whether y comes
    before x; whether a coordinate is rounded to the nearest unit or cut to a whole one; whether it is read as its
    unit's middle or beginning; and what no label may spell (`marks`), for it would be read as something else.
    """

    last, y_first, rounded, middle, marks = None, False, False, False, ()

    def encode(self, boxes: Sequence[Box], size: Size, labels: Sequence[str]) -> str:
        """Write boxes in pixels, one label each, as the model's text.

        What reaches over the image's edge is clipped. Raises ValueError for a box that is empty, inverted, not
        finite or wholly outside, for a different number of labels, and for a label that spells one of the `marks`.
        """
        if len(boxes) != len(labels):
            raise ValueError(f"labels: {len(labels)} for {len(boxes)} boxes; give one label per box")
        for label in labels:
            if spelt := [mark for mark in self.marks if mark in label]:
                raise ValueError(f"label {label!r} has {spelt[0]!r} in it, which {type(self).__name__} cannot write")
        units = [self._in_units(box, size) for box in boxes]
        return self._write([(label, [box[i] for i in self._order]) for label, box in zip(labels, units, strict=True)])

    def decode(self, text: str, size: Size) -> list[Box]:
        """Read the boxes in a model's text, in pixels, whatever the text: what is no box is skipped.

        Special tokens may be missing (`skip_special_tokens=True`), unless the coordinates are such; fences and a
        cut-off end do no harm. Coordinates are clipped to the image; empty and inverted boxes are dropped. An empty
        list means that nothing could be read.
        """
        return [found.box for found in self.decode_labelled(text, size)]

    def decode_labelled(self, text: str, size: Size) -> list[LabelledBox]:
        """The same boxes, each with its label."""
        grid, found = self._grid(size), []
        for label, numbers in self._find(text):
            sides = [0.0] * 4
            for side, number in zip(self._order, numbers, strict=True):
                units = grid[side % 2]
                unit = min(max(float(number), 0.0), self._last(units)) + 0.5 * self.middle
                sides[side] = unit / units * size[side % 2]
            if sides[0] < sides[2] and sides[1] < sides[3]:
                found.append(LabelledBox(sides, label))
        return found

    def used_with(self, processor: Any) -> "BoxCodec":
        """This codec for the images that `processor` makes; another one only where it counts these images' pixels."""
        return self

    @property
    def _order(self) -> tuple[int, ...]:
        return (1, 0, 3, 2) if self.y_first else (0, 1, 2, 3)

    def _last(self, units: int) -> int:
        return units if self.last is None else self.last

    def _in_units(self, box: Box, size: Size) -> list[int]:
        clipped = [min(max(edge, 0.0), size[side % 2]) for side, edge in enumerate(box)]
        if not (
            len(box) == 4 and all(map(math.isfinite, box)) and clipped[0] < clipped[2] and clipped[1] < clipped[3]
        ):
            raise ValueError(
                f"box {list(box)} is not [x1, y1, x2, y2] with x1 < x2 and y1 < y2 "
                f"in pixels of the {size[0]}x{size[1]} image"
            )
        written = [0, 0, 0, 0]
        for axis, units in enumerate(self._grid(size)):
            last = self._last(units)
            exact = [clipped[side] / size[axis] * units for side in (axis, axis + 2)]
            low, high = (min(int(edge + (0.5 if self.rounded else NOISE)), last) for edge in exact)
            if low == high:  # a box thinner than a unit gets a whole one: read back, an empty box would be dropped
                low = min(int(sum(exact) / 2 + NOISE), last - 1)
                high = low + 1
            written[axis], written[axis + 2] = low, high
        return written

    def _grid(self, size: Size) -> Size:
        return 1000, 1000

    def _write(self, boxes: list[tuple[str, list[int]]]) -> str:
        raise NotImplementedError

    def _find(self, text: str) -> Iterable[Found]:
        raise NotImplementedError
