"""labelme's shapes: checked, their boxes, and their pixels."""

import base64
import io
import math
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..boxes import SLACK
from ..conventions import Row
from ..errors import BadRow
from .read import numbers_of, shown, text_of

POINTS = {"rectangle": (2, 4), "oriented_rectangle": (4,), "rotation": (4,), "circle": (2,), "mask": (2,)}  # labelme's
DRAWN = ("polygon", *POINTS)  # all others of labelme's have no area


def shape_of(shape: Any, which: str) -> Row:
    """One shape as `vlm_recipes.rows.segments` reads it, with its label and group."""
    if not isinstance(shape, dict):
        raise BadRow(f"{which} is {shown(shape)} and no object")
    label = text_of(shape.get("label"), f"{which}: its label")
    kind = shape.get("shape_type") or "polygon"  # which labelme 3 did not write
    if kind not in DRAWN:
        raise BadRow(f"{which} ({label}): a {shown(kind)} has no area: one of {', '.join(DRAWN)} is due")
    points = shape.get("points")
    if not isinstance(points, list):
        raise BadRow(f"{which} ({label}): its points, {shown(points)}, are no list")
    points = [numbers_of(point, 2, f"{which} ({label}): a point") for point in points]
    try:
        left, top, right, bottom = extent(kind, points)
    except BadRow as error:
        raise BadRow(f"{which} ({label}): {error}") from error
    if not (left < right and top < bottom):
        raise BadRow(f"{which} ({label}): its points {shown(points)} have no area")
    if kind == "mask" and not isinstance(shape.get("mask"), str):
        raise BadRow(f"{which} ({label}): its mask, {shown(shape.get('mask'))}, is no text")
    group = shape.get("group_id")
    if not isinstance(group, int | str | None):
        raise BadRow(f"{which} ({label}): its group_id, {shown(group)}, is neither a number nor a text")
    found = {"which": f"{which} ({label})", "label": label, "shape_type": kind, "points": points}
    return {**found, "group": group, "box": [left, top, right, bottom], "mask": shape.get("mask")}


def drawn(segment: dict[str, Any], size: list[int]) -> np.ndarray:
    """One of labelme's shapes, as `labelme.utils.shape_to_mask` draws it (5.5)."""
    points, shape = [tuple(point) for point in segment["points"]], segment["shape_type"]
    left, top, right, bottom = extent(shape, points)
    check_inside([left, right], [top, bottom], size)
    if shape == "mask":
        return _of_png(segment["mask"], [int(left), int(top), int(right), int(bottom)], size)
    canvas = Image.new("1", tuple(size))
    brush = ImageDraw.Draw(canvas)
    if shape == "circle":
        brush.ellipse([left, top, right, bottom], outline=1, fill=1)
    elif len(points) == 2:
        brush.rectangle([left, top, right, bottom], outline=1, fill=1)
    else:
        brush.polygon(points, outline=1, fill=1)
    return np.array(canvas)


def _of_png(png: str, box: list[int], size: list[int]) -> np.ndarray:
    left, top, right, bottom = box
    try:
        with Image.open(io.BytesIO(base64.b64decode(png, validate=True)), formats=["PNG"]) as picture:
            if picture.size != (right - left, bottom - top):
                raise BadRow(f"its mask is of {picture.size}, and its points are of {(right - left, bottom - top)}")
            part = np.array(picture.convert("L")) > 0
    except BadRow:
        raise
    except Exception as error:  # decoders raise anything
        raise BadRow(f"its mask is no PNG in base64: {error}") from error
    pixels = np.zeros(size[::-1], dtype=bool)
    pixels[top:bottom, left:right] = part[: size[1] - top, : size[0] - left]
    return pixels


def extent(shape: str, points: list[Any]) -> list[float]:
    """`[x1, y1, x2, y2]` around one of labelme's shapes: a circle has a centre and a point on it, a mask whole pixels.

    Raises `BadRow` for too few points, or too many.
    """
    due = POINTS.get(shape)
    if len(points) not in due if due else len(points) < 3:
        raise BadRow(f"a {shape} of {len(points)} points")
    if shape == "circle":
        (x, y), (other_x, other_y) = points
        radius = math.hypot(other_x - x, other_y - y)
        return [x - radius, y - radius, x + radius, y + radius]
    xs, ys = zip(*points, strict=True)
    last = 1 if shape == "mask" else 0  # its second point is the last pixel
    return [min(xs), min(ys), max(xs) + last, max(ys) + last]


def check_inside(xs: list[float], ys: list[float], size: list[int]) -> None:
    for side, length in zip((xs, ys), size, strict=True):
        slack = SLACK * length + 1
        if min(side) < -slack or max(side) > length + slack:
            raise BadRow(
                f"from ({min(xs):g}, {min(ys):g}) to ({max(xs):g}, {max(ys):g}) outside of {size[0]}×{size[1]}"
            )
