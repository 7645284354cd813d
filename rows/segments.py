"""Segments of a picture, as readers of formats keep them, -> their mask."""

import json
from typing import Any

import numpy as np

from .conventions import IGNORED_PIXEL
from .errors import BadRow
from .formats.labelme_shapes import check_inside, drawn
from .formats.read import numbers_of, shown
from .run_lengths import counts_in


def segments_mask(segments: str, size: list[int]) -> np.ndarray:
    """The mask `[H, W]` of segments for an image of `size` (width, height): 0, 1 in one of them, 255 ignored.

    Args:
        segments: JSON, a list of objects with `which`, a name for errors, `ignored` where one is no target, and either
            COCO's `segmentation`, or labelme's `shape_type` and `points` (and `mask`, a PNG in base64).

    COCO's polygons are drawn by pycocotools, and its run lengths read in both of its encodings; labelme's shapes are
    drawn as labelme itself does, with their outlines. Where they overlap a target is not ignored. Raises `BadRow`
    where a segment is none of these, or goes beyond the image, and if no pixel is a target's.
    """
    mask = np.zeros(size[::-1], dtype=np.uint8)
    for segment in sorted(json.loads(segments), key=lambda segment: not segment.get("ignored", False)):
        try:
            pixels = _of_coco(segment["segmentation"], size) if "segmentation" in segment else drawn(segment, size)
        except BadRow as error:
            raise BadRow(f"{segment['which']}: {error}") from error
        mask[pixels] = IGNORED_PIXEL if segment.get("ignored") else 1
    if not (mask == 1).any():
        raise BadRow("its segments cover no pixel")
    return mask


def _of_coco(segmentation: Any, size: list[int]) -> np.ndarray:
    if isinstance(segmentation, dict):
        return _of_runs(segmentation, size)
    if not isinstance(segmentation, list) or not segmentation:
        raise BadRow(f"its segmentation, {shown(segmentation)}, is neither polygons nor run lengths")
    from pycocotools import mask as coco

    for polygon in segmentation:
        count = len(polygon) if isinstance(polygon, list) else 0
        numbers = numbers_of(polygon, max(6, count - count % 2), "a polygon of its segmentation")
        check_inside(numbers[::2], numbers[1::2], size)  # beyond the image pycocotools takes all memory there is
    return coco.decode(coco.merge(coco.frPyObjects(segmentation, *size[::-1]))).astype(bool)


def _of_runs(segmentation: dict[str, Any], size: list[int]) -> np.ndarray:
    """COCO's run lengths, by columns; pycocotools shows what is in memory where they end too early."""
    sides, counts = segmentation.get("size"), segmentation.get("counts")
    if sides != size[::-1]:
        raise BadRow(f"the size of its segmentation is {shown(sides)}, and the image has {size[::-1]}, height first")
    try:
        counts = counts_in(counts).tolist() if isinstance(counts, str) else counts
    except ValueError as error:
        raise BadRow(str(error)) from error
    if not isinstance(counts, list) or not all(type(count) is int and 0 <= count < 2**32 for count in counts):
        raise BadRow(f"the counts of its segmentation, {shown(counts)}, are no whole numbers from 0 on")
    if sum(counts) != size[0] * size[1]:
        raise BadRow(
            f"the counts of its segmentation are of {sum(counts)} pixels, and the image has {size[0] * size[1]}"
        )
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size).T
