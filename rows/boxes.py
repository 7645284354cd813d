"""Boxes as a dataset gives them -> boxes in pixels, or the reason why they cannot be used."""

import math
from collections.abc import Sequence

from .errors import BadRow

SLACK = 0.01  # of a side: annotators overshoot the edge


def relative_boxes(
    found: Sequence[Sequence[float]] | None, names: Sequence[str] | None, size: Sequence[int]
) -> tuple[list[list[float]], list[str]]:
    """Boxes `[y_min, x_min, y_max, x_max]` in 0-1 as `[x1, y1, x2, y2]` in pixels, in reading order, and their names.

    Args:
        found: the boxes; `names` their categories, one each.
        size: `[width, height]` in pixels.

    Raises `BadRow` where there is none, or one that is no box, inverted, outside the image, or has no usable name.
    """
    width, height = size
    boxes = []
    if not found:
        raise BadRow("no box")
    if len(found) != len(names or ()):
        raise BadRow(f"{len(found)} boxes and {len(names or ())} names of categories")
    for name, box in zip(names, found, strict=True):
        if len(box or ()) != 4 or not all(side is not None and math.isfinite(side) for side in box):
            raise BadRow(f"box {box} is not four numbers")
        if not name or "<|" in name:
            raise BadRow(f"category {name!r} is empty or spells a control token")
        y_min, x_min, y_max, x_max = box
        if not (-SLACK <= x_min < x_max <= 1 + SLACK and -SLACK <= y_min < y_max <= 1 + SLACK):
            raise BadRow(f"box {box} is inverted or outside the image: [y_min, x_min, y_max, x_max] are due in 0-1")
        boxes.append(([x_min * width, y_min * height, x_max * width, y_max * height], name))
    boxes.sort(key=lambda item: (item[0][1], item[0][0]))
    return [box for box, _ in boxes], [name for _, name in boxes]
