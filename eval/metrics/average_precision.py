"""Average precision as COCO has it, of boxes that are ranked by their order in an answer, over resampled images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .boxes import ImageBoxes

THRESHOLDS, RECALLS = np.linspace(0.5, 0.95, 10), np.linspace(0, 1, 101)
AT_A_TIME = 2**18  # hits in resamples, about 2 MB an array


@dataclass(frozen=True, eq=False)
class Ranked:
    """The predicted boxes of one class, the first in rank first, and how many boxes are true.

    Args:
        hits: `[10, boxes]`, whether a box has found a true one at each of the `THRESHOLDS` of IoU.
        groups: `[boxes]`, the number of the group of images that each is of.
        n_true: `[groups]`.
    """

    hits: np.ndarray
    groups: np.ndarray
    n_true: np.ndarray

    def average_precision(self, times: np.ndarray) -> np.ndarray:
        """At IoU 0.5, and the mean over the `THRESHOLDS`: `[R, 2]` for groups that are drawn `times` `[R, groups]`.

        The mean over 101 recalls, 0 to 1, of the highest precision that is had at such a recall or a higher one, as
        `COCOeval` of pycocotools has it, but without its limit of 100 boxes an image; NaN where no box is true.
        """
        averages, n_rows = [], max(1, AT_A_TIME // max(1, self.hits.size))
        for some in np.array_split(times, -(-len(times) // n_rows)):
            weights, n_true = some[:, self.groups], (some @ self.n_true)[:, None, None]
            found, counted = np.cumsum(self.hits * weights[:, None], axis=-1), np.cumsum(weights, axis=-1)[:, None]
            precision = np.divide(found, counted, out=np.zeros(found.shape), where=counted > 0)
            precision = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
            recall = np.divide(found, n_true, out=np.zeros(found.shape), where=n_true > 0)
            steps = np.diff(np.searchsorted(RECALLS, recall, side="right"), prepend=0)
            average = (precision * steps).sum(axis=-1) / len(RECALLS)
            average[n_true[:, 0, 0] == 0] = np.nan
            averages.append(np.stack([average[:, 0], average.mean(axis=-1)], axis=-1))
        return np.concatenate(averages)


def ranked(images: Sequence[ImageBoxes], keys: Sequence[str], of_image: np.ndarray) -> list[Ranked]:
    """The boxes of each of the classes `keys`; `of_image` is the number of each image's group.

    Every answer's first box comes before all second ones, whatever their classes, and of equals that of the first
    image. In this order each box takes the free true one of its class and image that it overlaps most.
    """
    n_true = {key: np.zeros(of_image.max() + 1) for key in keys}
    found = {key: [(np.zeros((len(THRESHOLDS), 0), dtype=bool), *np.zeros((2, 0), dtype=int))] for key in keys}
    for image, group in zip(images, of_image, strict=True):
        for key in found.keys() & {*image.predicted, *image.true}:
            places, true = np.flatnonzero(image.predicted == key), np.flatnonzero(image.true == key)
            n_true[key][group] += len(true)
            found[key].append((_hits(image.ious[np.ix_(places, true)]), places, np.full(len(places), group)))
    every = []
    for key in keys:
        hits, places, groups = (np.concatenate(parts, axis=-1) for parts in zip(*found[key], strict=True))
        order = np.argsort(places, kind="stable")
        every.append(Ranked(hits[:, order], groups[order], n_true[key]))
    return every


def _hits(ious: np.ndarray) -> np.ndarray:
    """`[10, predicted]`: which boxes of one image, in their order, find a true one; from `[predicted, true]`."""
    hits = np.zeros((len(THRESHOLDS), len(ious)), dtype=bool)
    free, each = np.tile(ious[:, ::-1], (len(THRESHOLDS), 1, 1)), np.arange(len(THRESHOLDS))
    for box in range(len(ious)) if ious.size else ():
        best = free[:, box].argmax(axis=-1)  # among equals the last, for they stand turned round, as in COCOeval
        hits[:, box] = free[each, box, best] >= THRESHOLDS
        free[each[hits[:, box]], :, best[hits[:, box]]] = -1
    return hits
