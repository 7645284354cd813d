"""Box metrics: boxes matched one to one, IoU and GIoU."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_iou, generalized_box_iou

from .number import Scores
from .statistics import summarize

Box = Sequence[float]  # x1, y1, x2, y2


def _tensor(boxes: Sequence[Box], field: str, row: int) -> torch.Tensor:
    if all(len(box) == 4 for box in boxes):
        tensor = torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)
        if tensor.isfinite().all() and (tensor[:, 2:] > tensor[:, :2]).all():
            return tensor
    raise ValueError(f"{field}[{row}] {boxes} has a box that is not [x1, y1, x2, y2] with x1 < x2 and y1 < y2")


def box_scores(
    predictions: Sequence[Sequence[Box]], references: Sequence[Sequence[Box]]
) -> list[dict[str, float | None]]:
    """What `box_metrics` averages, for each image; arguments and errors as there."""
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references; give one per image")
    return [
        _image_scores(_tensor(predicted, "predictions", row), _tensor(true, "references", row))
        for row, (predicted, true) in enumerate(zip(predictions, references, strict=True))
    ]


def _image_scores(predicted: torch.Tensor, true: torch.Tensor) -> dict[str, float | None]:
    """Scores of one image from `[n, 4]` boxes; every unmatched box, predicted or true, costs a whole match."""
    n_larger, n_matched = max(len(predicted), len(true)), min(len(predicted), len(true))
    first = None if len(true) == 0 else 0.0
    if n_larger == 0:
        return {"iou": 1.0, "giou": 1.0, "accuracy_50": 1.0, "accuracy_70": 1.0, "iou_first": first}
    ious, gious = box_iou(predicted, true), generalized_box_iou(predicted, true)
    # GIoU only decides where IoU does not (boxes that miss everything), so that the order of boxes never matters
    pairs = linear_sum_assignment((ious + 1e-9 * gious).numpy(), maximize=True)
    matched = ious[pairs]
    return {
        "iou": matched.sum().item() / n_larger,
        "giou": (gious[pairs].sum().item() - (n_larger - n_matched)) / n_larger,
        "accuracy_50": (matched >= 0.5).sum().item() / n_larger,
        "accuracy_70": (matched >= 0.7).sum().item() / n_larger,
        "iou_first": ious[0, 0].item() if n_matched else first,
    }


def box_metrics(
    predictions: Sequence[Sequence[Box]], references: Sequence[Sequence[Box]], groups: Sequence[str] | None = None
) -> Scores:
    """Score predicted boxes against true ones, image by image.

    Both are one list of `[x1, y1, x2, y2]` boxes per image, in pixels; an empty prediction means that nothing
    could be parsed. Within an image, boxes are matched one to one so that the summed IoU is largest (Hungarian).
    An image's IoU is that sum over the larger of the two counts, so extra and missing boxes both cost (no box
    where none is true: 1). GIoU counts -1 for each unmatched box; accuracy is the share of matches at IoU >= 0.5
    or 0.7, over the same larger count. `groups` names rows that are not independent (the image's id).

    Returns, all as shares of 1 over images: `iou_mean`, `iou_median`, `giou_mean`, `giou_median`, `accuracy_50`,
    `accuracy_70`, `detection_rate` (at least one box was parsed), `unparseable_rate` (none was, though one is
    true), `iou_first` (first true against first predicted box, 0 where nothing was parsed: the number that the
    nutrition-table reference reports; images without a true box do not count), each with its 95% bootstrap interval
    (for two or more images or groups).

    Raises ValueError for lists of different lengths and for boxes that are empty, inverted or not finite.
    Source: GIoU of Rezatofighi et al., arXiv 1902.09630.
    """
    scores = box_scores(predictions, references)
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
