"""Box metrics: boxes matched one to one, within their class where they have names; IoU and GIoU."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_iou, generalized_box_iou

from .number import Scores
from .statistics import summarize

Box = Sequence[float]  # x1, y1, x2, y2


Names = Sequence[Sequence[str]]  # of each image one category for each box
BETWEEN_WORDS = re.compile(r"[\s_-]+")


def category_key(name: str) -> str:
    """What two names of a category are compared by.

    "Traffic-light", " traffic light" and "traffic_light" are one name: case does not count, nor what stands between
    words, blanks, underscores or hyphens, and how many, nor the two Unicode spellings of an accented letter. All else
    does: "trafficlight", "traffic lights" and "the traffic light" are others.
    """
    return BETWEEN_WORDS.sub(" ", unicodedata.normalize("NFC", name)).strip().casefold()


def _tensor(boxes: Sequence[Box], field: str, row: int) -> torch.Tensor:
    if all(len(box) == 4 for box in boxes):
        tensor = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
        if tensor.isfinite().all() and (tensor[:, 2:] > tensor[:, :2]).all():
            return tensor
    raise ValueError(f"{field}[{row}] {boxes} has a box that is not [x1, y1, x2, y2] with x1 < x2 and y1 < y2")


def _keys(
    predictions: Sequence[Sequence[Box]],
    references: Sequence[Sequence[Box]],
    predicted_categories: Names | None,
    reference_categories: Names | None,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Each image's predicted and true categories as `category_key` has them; without names all are "".

    Raises ValueError where lengths differ or only one of the two has names.
    """
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references; give one per image")
    if (predicted_categories is None) != (reference_categories is None):
        raise ValueError("predicted_categories and reference_categories: give both or none")
    keys = []
    for boxes, names, field in (
        (predictions, predicted_categories, "predicted_categories"),
        (references, reference_categories, "reference_categories"),
    ):
        names = [[""] * len(own) for own in boxes] if names is None else names
        if len(names) != len(boxes):
            raise ValueError(f"{field}: names of {len(names)} images for {len(boxes)}")
        for row, (own, of_own) in enumerate(zip(boxes, names, strict=True)):
            if len(own) != len(of_own):
                raise ValueError(f"{field}[{row}]: {len(of_own)} names for {len(own)} boxes; give one per box")
        keys.append([np.array(list(map(category_key, own)), dtype=object) for own in names])
    return keys[0], keys[1]


@dataclass(frozen=True, eq=False)
class ImageBoxes:
    """An image's boxes, compared: IoUs `[predicted, true]`, and the `category_key` of each predicted and true box."""

    ious: np.ndarray
    predicted: np.ndarray
    true: np.ndarray


def image_boxes(
    predictions: Sequence[Sequence[Box]],
    references: Sequence[Sequence[Box]],
    predicted_categories: Names | None = None,
    reference_categories: Names | None = None,
) -> list[ImageBoxes]:
    """Each image's boxes compared; arguments and errors as for `box_metrics`."""
    keys = _keys(predictions, references, predicted_categories, reference_categories)
    return [
        ImageBoxes(box_iou(_tensor(predicted, "predictions", row), _tensor(true, "references", row)).numpy(), *own)
        for row, (predicted, true, *own) in enumerate(zip(predictions, references, *keys, strict=True))
    ]


def box_scores(
    predictions: Sequence[Sequence[Box]],
    references: Sequence[Sequence[Box]],
    predicted_categories: Names | None = None,
    reference_categories: Names | None = None,
) -> list[dict[str, float | None]]:
    """What `box_metrics` averages, for each image; arguments and errors as there."""
    keys = _keys(predictions, references, predicted_categories, reference_categories)
    return [
        _image_scores(_tensor(predicted, "predictions", row), _tensor(true, "references", row), *own)
        for row, (predicted, true, *own) in enumerate(zip(predictions, references, *keys, strict=True))
    ]


def _image_scores(
    predicted: torch.Tensor, true: torch.Tensor, predicted_keys: np.ndarray, true_keys: np.ndarray
) -> dict[str, float | None]:
    """Scores of one image from `[n, 4]` boxes; every unmatched box, predicted or true, costs a whole match."""
    first = None if len(true) == 0 else 0.0
    if len(true) == len(predicted) == 0:
        return {"iou": 1.0, "giou": 1.0, "accuracy_50": 1.0, "accuracy_70": 1.0, "iou_first": first}
    ious, gious = box_iou(predicted, true), generalized_box_iou(predicted, true)
    # GIoU only decides where IoU does not (boxes that miss everything), so that the order of boxes never matters
    weights, pairs = (ious + 1e-9 * gious).numpy(), []
    for key in sorted({*predicted_keys, *true_keys}):
        ours, theirs = np.flatnonzero(predicted_keys == key), np.flatnonzero(true_keys == key)
        chosen, partners = linear_sum_assignment(weights[np.ix_(ours, theirs)], maximize=True)
        pairs.append([ours[chosen], theirs[partners]])
    pairs = tuple(np.concatenate(pairs, axis=1))
    matched, n_unmatched = ious[pairs], len(predicted) + len(true) - 2 * len(pairs[0])
    n = len(matched) + n_unmatched
    return {
        "iou": matched.sum().item() / n,
        "giou": (gious[pairs].sum().item() - n_unmatched) / n,
        "accuracy_50": (matched >= 0.5).sum().item() / n,
        "accuracy_70": (matched >= 0.7).sum().item() / n,
        "iou_first": ious[0, 0].item() if ious.numel() else first,
    }


def box_metrics(
    predictions: Sequence[Sequence[Box]],
    references: Sequence[Sequence[Box]],
    groups: Sequence[str] | None = None,
    predicted_categories: Names | None = None,
    reference_categories: Names | None = None,
) -> Scores:
    """Score predicted boxes against true ones, image by image.

    Both are one list of `[x1, y1, x2, y2]` boxes per image, in pixels; an empty prediction means that nothing
    could be parsed. Within an image, boxes are matched one to one so that the summed IoU is largest (Hungarian).
    An image's IoU is that sum over the larger of the two counts, so extra and missing boxes both cost (no box
    where none is true: 1). GIoU counts -1 for each unmatched box; accuracy is the share of matches at IoU >= 0.5
    or 0.7, over the same larger count. `groups` names rows that are not independent (the image's id).

    With categories, a name for each box, only boxes of one class (see `category_key`) match, and what an image is
    divided by is the sum of its classes' larger counts: a right box with a wrong name is one missed and one invented.
    Give them where there are two classes or more: with a single one the question names it, and whether an answer
    repeats that name is not what published numbers count.

    Returns, all as shares of 1 over images: `iou_mean`, `iou_median`, `giou_mean`, `giou_median`, `accuracy_50`,
    `accuracy_70`, `detection_rate` (at least one box was parsed), `unparseable_rate` (none was, though one is
    true), `iou_first` (first true against first predicted box, 0 where nothing was parsed: the number that the
    nutrition-table reference reports, whatever the names; images without a true box do not count), each with its 95%
    bootstrap interval (for two or more images or groups).

    Raises ValueError for lists of different lengths and for boxes that are empty, inverted or not finite.
    Source: GIoU of Rezatofighi et al., arXiv 1902.09630.
    """
    scores = box_scores(predictions, references, predicted_categories, reference_categories)
    ious, gious = [score["iou"] for score in scores], [score["giou"] for score in scores]
    means = {
        "iou_mean": ious,
        "giou_mean": gious,
        **{name: [score[name] for score in scores] for name in ("accuracy_50", "accuracy_70", "iou_first")},
        "detection_rate": [float(len(predicted) > 0) for predicted in predictions],
        "unparseable_rate": [
            float(len(predicted) == 0 and len(true) > 0)
            for predicted, true in zip(predictions, references, strict=True)
        ],
    }
    medians = {"iou_median": ious, "giou_median": gious}
    return summarize(means, groups) | summarize(medians, groups, statistic=np.median)
