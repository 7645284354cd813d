"""Boxes as a dataset gives them -> boxes in pixels, or the reason why they cannot be used."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import datasets
import pyarrow.compute as pc

from .errors import BadRow, start_of

SLACK = 0.01  # of a side: annotators overshoot the edge
ORDERS = {  # of a box's four numbers
    "yxyx": "[y_min, x_min, y_max, x_max]",
    "xyxy": "[x_min, y_min, x_max, y_max]",
    "xywh": "[x_min, y_min, width, height]",
    "cxcywh": "[x_center, y_center, width, height]",
}
UNITS = {"relative": 1.0, "thousandths": 1000.0, "pixels": None}  # so many are a side


@dataclass(frozen=True)
class BoxFormat:
    """In which of `ORDERS` a dataset gives a box's numbers, in which of `UNITS`, and whether anybody has said so."""

    order: str = "yxyx"
    unit: str = "relative"
    declared: bool = True

    @classmethod
    def given(cls, settings: Any, by_format: "BoxFormat | None", known: bool) -> "BoxFormat":
        """How a dataset gives boxes: as its format says, else as `box_format` and `box_unit` of the `settings` do.

        Without either it is by default `[y_min, x_min, y_max, x_max]` in 0-1: declared only where that is `known` of
        the dataset. Raises `DataError` where the settings say it of a format that says it itself.
        """
        order, unit = settings.box_format, settings.box_unit
        if by_format is not None:
            settings.refuse_without_effect("box_(format|unit)", f"the format says it: {by_format}")
            return by_format
        return cls(order or cls.order, unit or cls.unit, known or bool(order and unit))

    def __str__(self) -> str:
        return f"{ORDERS[self.order]} {'in 0-1' if self.unit == 'relative' else f'in {self.unit}'}"

    def in_pixels(self, box: Sequence[float], size: Sequence[int]) -> list[float]:
        """`[x1, y1, x2, y2]` in pixels of an image of `size`, `[width, height]`; nothing is checked."""
        width, height = (1.0, 1.0) if self.unit == "pixels" else (side / UNITS[self.unit] for side in size)
        a, b, c, d = box
        corners = {
            "yxyx": (b, a, d, c),
            "xyxy": (a, b, c, d),
            "xywh": (a, b, a + c, b + d),
            "cxcywh": (a - c / 2, b - d / 2, a + c / 2, b + d / 2),
        }[self.order]
        return [corner * scale for corner, scale in zip(corners, (width, height) * 2, strict=True)]

    def from_pixels(self, box: Sequence[float], size: Sequence[int]) -> list[float]:
        """The numbers that `in_pixels` makes this box of."""
        width, height = (1.0, 1.0) if self.unit == "pixels" else (side / UNITS[self.unit] for side in size)
        x1, y1, x2, y2 = box[0] / width, box[1] / height, box[2] / width, box[3] / height
        return {
            "yxyx": [y1, x1, y2, x2],
            "xyxy": [x1, y1, x2, y2],
            "xywh": [x1, y1, x2 - x1, y2 - y1],
            "cxcywh": [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1],
        }[self.order]


PUBLISHED = BoxFormat()  # openfoodfacts/nutrition-table-detection's


def lies_inside(box: Sequence[float], size: Sequence[int]) -> bool:
    """Whether a box in pixels has an area and lies in the image, but for `SLACK`."""
    (x1, y1, x2, y2), (width, height) = box, size
    return -SLACK * width <= x1 < x2 <= (1 + SLACK) * width and -SLACK * height <= y1 < y2 <= (1 + SLACK) * height


def also_fitting(boxes: Iterable[tuple[Sequence[float], Sequence[int]]], given: BoxFormat) -> list[BoxFormat]:
    """Other formats in which the same numbers were boxes inside their images, all of them, of a pixel a side or more.

    `boxes` are in pixels, as read by `given`, each with its image's `[width, height]`.
    """
    others = [BoxFormat(order, unit) for order in ORDERS for unit in UNITS]
    others = [other for other in others if (other.order, other.unit) != (given.order, given.unit)]
    for box, size in boxes:
        numbers = given.from_pixels(box, size)
        read = [(other, other.in_pixels(numbers, size)) for other in others]
        others = [
            other
            for other, (x1, y1, x2, y2) in read
            if lies_inside((x1, y1, x2, y2), size) and min(x2 - x1, y2 - y1) >= 1  # 0.25 is no side in pixels
        ]
    return others


def doubt_of(rows: datasets.Dataset, given: BoxFormat) -> str:
    """What is to be said where nobody has declared how boxes are given, and all of these rows' fit otherwise, too."""
    if given.declared:
        return ""
    sized = zip(rows["boxes"][:], rows["image_size"][:], strict=True)
    others = also_fitting(((box, size) for boxes, size in sized for box in boxes), given)
    fit = " or ".join(map(str, others))
    look = "look at the data page, and name what is right: --box_format, --box_unit"
    return fit and f"nothing says that they are {given}, as they were read; all fit as {fit}, too: {look}"


def named_boxes(
    objects: Mapping[str, Any] | None, size: Sequence[int], given: BoxFormat
) -> tuple[list[list[float]], list[str]]:
    """A row's boxes as `[x1, y1, x2, y2]` in pixels, in reading order, and the names of their categories.

    Args:
        objects: `bbox`, the boxes as `given` says, and `category_name`, a name each; both may be empty.
        size: `[width, height]` in pixels.

    Raises `BadRow` for a row without `objects`, and for a box that is no four numbers, inverted, outside the image, or
    has no usable name.
    """
    boxes = []
    if objects is None:
        raise BadRow("no objects: empty lists are due for a picture without any")
    found, names = objects["bbox"] or (), objects["category_name"]
    if len(found) != len(names or ()):
        raise BadRow(f"{len(found)} boxes and {len(names or ())} names of categories")
    for name, box in zip(names or (), found, strict=True):
        if not (isinstance(box, list | tuple) and len(box) == 4 and all(map(_is_number, box))):
            raise BadRow(f"box {start_of(str(box))} is not four numbers: {given} are due")
        if not isinstance(name, str) or not name.strip() or "<|" in name:
            raise BadRow(f"category {name!r} is empty or spells a control token")
        in_pixels = given.in_pixels(box, size)
        if not lies_inside(in_pixels, size):
            raise BadRow(f"box {list(box)} is inverted or outside the image of {size[0]}×{size[1]}: {given} are due")
        boxes.append((in_pixels, name))
    boxes.sort(key=lambda item: (item[0][1], item[0][0]))
    return [box for box, _ in boxes], [name for _, name in boxes]


def _is_number(side: object) -> bool:
    return isinstance(side, Real) and not isinstance(side, bool) and math.isfinite(side)


def is_without_boxes(rows: datasets.Dataset) -> bool:
    """Whether the `objects` of all rows that have some are empty."""
    objects = rows.select_columns("objects").with_format("arrow")[:]["objects"].drop_null()
    counts = pc.list_value_length(pc.struct_field(objects, "bbox"))
    return len(objects) > 0 and not pc.sum(counts).as_py()


def categories_of(rows: datasets.Dataset) -> list[str]:
    """The names of categories in the `objects` of all rows, sorted."""
    names = rows.select_columns("objects").with_format("arrow")[:]["objects"]
    names = pc.list_flatten(pc.struct_field(names, "category_name"))
    return sorted(filter(None, pc.unique(names).to_pylist()))
