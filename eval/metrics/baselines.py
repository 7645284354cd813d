"""The constant mask: the one answer that knows the training masks but not the image, a baseline for `mask_metrics`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .masks import RLE, decode, encode, union


@dataclass(frozen=True, eq=False)
class ConstantMask:
    """A mask for every image: `mask` is `[grid, grid]` bools, each cell an equal share of the image's sides."""

    mask: np.ndarray

    def rle(self, size: Sequence[int]) -> RLE:
        """Run lengths of the mask on an image of `size` (height, width); a pixel belongs to the cell of its centre."""
        height, width = size
        return encode(
            np.asarray(Image.fromarray(self.mask.view(np.uint8)).resize((width, height), Image.Resampling.NEAREST))
        )


def best_constant_mask(
    references: Sequence[Sequence[RLE]], ignores: Sequence[RLE | None] | None = None, grid: int = 64
) -> ConstantMask:
    """The thresholded heat map of the training masks that, given to every row, has the highest gIoU on them.

    `references` holds each row's true masks and `ignores` its pixels that do not count, as for `mask_metrics`. Each
    row is averaged over the areas of `grid` x `grid` cells; the heat of a cell is the share of its pixels, over all
    rows, that are true. Every threshold is tried, and so are the empty and the full mask; of equals the smallest wins.
    IoU is computed from the cells' shares, not from cells rounded to 0 or 1, in which small objects would be lost. The
    result is the best of these nested masks; another one might be better still. Raises ValueError without rows.

    Masks are decoded one at a time, equal rows once, and `grid**2` bytes per distinct row stay in memory (twice that
    where pixels are ignored).
    """
    if not references:
        raise ValueError("references: none, so there is no constant mask")
    rows = list(zip(references, [None] * len(references) if ignores is None else ignores, strict=True))
    times = Counter(map(_key, rows))
    distinct = {_key(row): row for row in rows}
    cells = [(*_cells(*row, grid), times[key]) for key, row in distinct.items()]
    trues = sum(true.astype(np.int64) * n for true, _, n in cells)
    counted = sum(count.astype(np.int64) * n for _, count, n in cells)
    heat = np.divide(trues, counted, out=np.zeros(grid * grid), where=counted > 0)
    hottest = np.argsort(-heat, kind="stable")
    ious = np.zeros(grid * grid + 1)
    for true, count, n in cells:
        ious += n * _ious_of_hottest(true[hottest], np.broadcast_to(count, grid * grid)[hottest])
    thresholds = np.flatnonzero(
        np.diff(heat[hottest], prepend=np.inf, append=-np.inf)
    )  # cells of one heat go together
    mask = np.zeros(grid * grid, dtype=bool)
    mask[hottest[: thresholds[ious[thresholds].argmax()]]] = True
    return ConstantMask(mask.reshape(grid, grid))


def _key(row: tuple[Sequence[RLE], RLE | None]) -> tuple:
    true, ignore = row
    return tuple((*rle["size"], rle["counts"]) for rle in true), ignore and (*ignore["size"], ignore["counts"])


def _cells(true: Sequence[RLE], ignore: RLE | None, grid: int) -> tuple[np.ndarray, np.ndarray]:
    """How much of each cell is true and how much counts, 0 to 255: `[grid * grid]`, the second `[1]` if all does."""
    known = [*true, *([] if ignore is None else [ignore])]
    target = union(true, known[0]["size"] if known else (1, 1))
    if ignore is None:
        return _average(target, grid), np.array([255], dtype=np.uint8)
    counted = ~decode(ignore)
    return _average(target & counted, grid), _average(counted, grid)


def _average(mask: np.ndarray, grid: int) -> np.ndarray:
    # run lengths go down the columns: transposed, a decoded mask is contiguous and Pillow does not copy it
    image = Image.fromarray(mask.T.view(np.uint8) * np.uint8(255))
    return np.asarray(image.resize((grid, grid), Image.Resampling.BOX)).T.ravel()


def _ious_of_hottest(true: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """One row's IoU with the 0, 1, … all hottest cells, `[cells + 1]`; 1 where there is nothing in either."""
    outside = counted.astype(np.int64) - true
    intersections = np.append(0, np.cumsum(true, dtype=np.int64))
    unions = np.append(0, np.cumsum(outside)) + intersections[-1]
    return np.divide(intersections, unions, out=np.ones(len(unions)), where=unions > 0)
