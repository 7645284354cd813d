"""Mask metrics: gIoU, cIoU and Dice of run-length encoded masks, without the pixels that are to be ignored."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco

from ...rows.run_lengths import refuse_other_counts
from .number import Scores
from .statistics import ratio, summarize

RLE = dict[str, Any]  # {"size": [height, width], "counts": text}: pycocotools' compressed run lengths, fit for JSON


def encode(mask: np.ndarray) -> RLE:
    """Run lengths of a `[height, width]` mask of bools."""
    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")}


def decode(rle: RLE) -> np.ndarray:
    """The `[height, width]` mask of bools that run lengths stand for."""
    return coco.decode(rle).astype(bool)


def union(rles: Sequence[RLE], size: Sequence[int]) -> np.ndarray:
    """The pixels of any of the masks as `[height, width]` bools; empty without masks. `size` is (height, width)."""
    return decode(_merged(rles, size))


def _check(rles: Sequence[RLE], size: Sequence[int]) -> None:
    sizes = [list(rle["size"]) for rle in rles]
    if any(other != list(size) for other in sizes):
        raise ValueError(f"masks of (height, width) {sizes}, but all need to be of the image's, {list(size)}")
    for rle in rles:
        _check_counts(rle["counts"], *size)


@lru_cache(maxsize=4096)  # a row's masks are looked at more than once; wrong ones crash pycocotools, or it never ends
def _check_counts(counts: str | bytes, height: int, width: int) -> None:
    refuse_other_counts(counts if isinstance(counts, str) else counts.decode("latin-1"), height, width)


def _merged(rles: Sequence[RLE], size: Sequence[int]) -> RLE:
    _check(rles, size)
    height, width = size
    empty = {"size": [height, width], "counts": [height * width]}
    return coco.merge(list(rles)) if rles else coco.frPyObjects(empty, height, width)


@lru_cache(maxsize=1024)  # the rows of one image share what is ignored, and only this needs pixels
def _complement(height: int, width: int, counts: str) -> RLE:
    return encode(~decode({"size": [height, width], "counts": counts}))


class Overlap(NamedTuple):
    """What one row adds to the metrics; pixels that are not ignored, but for `empty`."""

    intersection: int
    union: int
    predicted: int
    target: int
    box: int  # the smallest box around both masks
    empty: bool  # nothing was predicted, not even among what is ignored

    @property
    def iou(self) -> float:
        """Intersection over union; 1 where neither mask has a pixel that counts."""
        return self.intersection / self.union if self.union else 1.0

    @property
    def dice(self) -> float:
        """Twice the intersection over the sum of both areas; 1 where neither mask has a pixel that counts."""
        return 2 * self.intersection / (self.predicted + self.target) if self.union else 1.0

    @property
    def box_giou(self) -> float:
        """`iou` less the share of `box` that neither mask covers, as the small-card copy of LISA computes it."""
        return self.iou - (self.box - self.union) / self.box if self.box else 1.0


def overlap(predicted: RLE, target: RLE, ignore: RLE | None = None) -> Overlap:
    """Compare two masks of one size in the pixels outside `ignore`, as run lengths; ValueError for other sizes."""
    _check([target, predicted] + ([] if ignore is None else [ignore]), target["size"])
    empty = coco.area(predicted) == 0
    counted = None if ignore is None else _complement(*ignore["size"], ignore["counts"])
    if counted is not None:
        predicted, target = (coco.merge([mask, counted], intersect=True) for mask in (predicted, target))
    either = coco.merge([predicted, target])
    box = coco.frPyObjects(coco.toBbox(either)[None], *either["size"])[0]
    if counted is not None:
        box = coco.merge([box, counted], intersect=True)
    both = coco.merge([predicted, target], intersect=True)
    return Overlap(*(int(coco.area(mask)) for mask in (both, either, predicted, target, box)), empty=bool(empty))


def mask_overlaps(
    predictions: Sequence[Sequence[RLE]],
    references: Sequence[Sequence[RLE]],
    ignores: Sequence[RLE | None] | None = None,
) -> list[Overlap]:
    """The `Overlap` of each row's union of predicted masks and union of true masks; arguments as `mask_metrics`."""
    ignores = [None] * len(references) if ignores is None else ignores
    if len({len(predictions), len(references), len(ignores)}) > 1:
        raise ValueError(f"{len(predictions)} predictions, {len(references)} references, {len(ignores)} ignores")
    overlaps = []
    for row, (predicted, true, ignore) in enumerate(zip(predictions, references, ignores, strict=True)):
        known = [*true, *([] if ignore is None else [ignore]), *predicted]
        size = known[0]["size"] if known else (1, 1)  # no mask at all: of whatever size, both are empty
        try:
            overlaps.append(overlap(_merged(predicted, size), _merged(true, size), ignore))
        except ValueError as error:
            raise ValueError(f"row {row}: {error}") from error
    return overlaps


def overlap_metrics(overlaps: Sequence[Overlap], image_ids: Sequence[str] | None = None) -> Scores:
    """`mask_metrics` of rows whose `Overlap` is known."""
    ious = [row.iou for row in overlaps]
    scores = {
        "giou": ious,
        "dice": [row.dice for row in overlaps],
        "accuracy_50": [float(iou >= 0.5) for iou in ious],
        "mask_box_giou": [row.box_giou for row in overlaps],
        "empty_rate": [float(row.empty) for row in overlaps],
    }
    intersections, unions = [row.intersection for row in overlaps], [row.union for row in overlaps]
    return summarize(scores, image_ids) | {"ciou": ratio(intersections, unions, image_ids)}


def mask_metrics(
    predictions: Sequence[Sequence[RLE]],
    references: Sequence[Sequence[RLE]],
    ignores: Sequence[RLE | None] | None = None,
    image_ids: Sequence[str] | None = None,
) -> Scores:
    """Score predicted masks against true ones as semantic segmentation: which pixels, not which object.

    Both are one list of masks per row (run lengths as from `encode`, of the image's size). A row's masks are joined
    before they are compared, so that neither their order nor their number counts. `ignores` has, per row, the pixels
    that count for nothing, or None. `image_ids` names rows that are not independent (several queries of one image).

    Returns, as shares of 1, each with its 95% bootstrap interval over images (for two or more rows or images):

    - `giou`: mean over rows of IoU. A row without a pixel in either mask counts 1 (an empty target answered empty),
      and so does a row in which everything is ignored;
    - `ciou`: the sum of intersections over the sum of unions, in pixels, so that large masks of large images weigh
      most and empty rows nothing; 1 where no row has a pixel in any mask;
    - `dice`: mean over rows of twice the intersection over both areas; empty rows as in `giou`;
    - `accuracy_50`: share of rows with IoU >= 0.5;
    - `mask_box_giou`: mean over rows of IoU less the share of the smallest box around both masks that neither covers.
      The small-card copy of LISA calls this gIoU, and mean IoU cIoU. It is below 1 for a perfect mask that does not
      fill its box, so it is only for comparison with numbers of that copy;
    - `empty_rate`: share of rows whose prediction has no pixel at all.

    Raises ValueError for lists of different lengths and, naming the row, for masks of different sizes and for run
    lengths that are not those of a mask of that size. Source: gIoU
    and cIoU of LISA, arXiv 2308.00692, which leaves label 255 out; it adds 1e-5 to each union, which is not done here.
    """
    return overlap_metrics(mask_overlaps(predictions, references, ignores), image_ids)
