"""How rows with masks are evaluated: gIoU and cIoU, over all rows, by kind of query and beside a constant mask."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..rows.conventions import SEG_TOKEN, Row
from .drawing import draw_masks
from .evaluation import Evaluation
from .metrics.baselines import ConstantMask
from .metrics.masks import RLE, Overlap, decode, encode, mask_overlaps, overlap_metrics
from .metrics.statistics import summarize

UNKNOWN = (256, 256)  # for the baseline, the size of an image none of whose rows has a mask


def mask_evaluation(
    collator: Any,
    max_new_tokens: int,
    constant: ConstantMask | None = None,
    kinds: tuple[str, ...] = (),
    **settings,
) -> Evaluation:
    """An `Evaluation` of rows with `question`, `answer`, `masks`, `ignore`, `image_id`, `kind` and `first`.

    Answers are `{"text": str, "masks": [RLE, …]}`. The metric is `mask_metrics`, with intervals over images, and

    - `seg_rate`: share of rows whose text has as many `[SEG]` as the true answer;
    - `giou_<kind>` and `giou_<kind>_n` for each of `kinds`;
    - `giou_first_query` and `ciou_first_query` over the rows whose `first` is true, where others are among them:
      LISA's protocol scores one query of each image;
    - with `constant`, `baseline_giou`, `baseline_ciou` and `baseline_giou_<kind>`: that mask given to every row.

    Numbers of some of the rows need two or more rows in all.

    Args:
        collator: rows -> prompts.
        constant: for the baselines, from `best_constant_mask` of the training rows.
        kinds: the kinds of query in the order in which the report shows them.
        settings: further arguments of `Evaluation`; `ask` for a model without `generate_masks`.
    """
    constant_rle = None if constant is None else cache(constant.rle)

    def metric(answers: list[dict[str, Any]], rows: list[Row]) -> dict[str, float]:
        references, ignores, images = ([row[key] for row in rows] for key in ("masks", "ignore", "image_id"))
        overlaps = mask_overlaps([answer["masks"] for answer in answers], references, ignores)
        metrics = overlap_metrics(overlaps, images)
        agree = [
            float(answer["text"].count(SEG_TOKEN) == row["answer"].count(SEG_TOKEN))
            for answer, row in zip(answers, rows, strict=True)
        ]
        metrics |= summarize({"seg_rate": agree}, images)
        if len(rows) < 2:
            return metrics
        metrics |= _of_kinds(overlaps, rows, kinds)
        if not all(row["first"] for row in rows):
            metrics |= _of_first_queries(overlaps, rows)
        if constant_rle is not None:
            metrics |= _baselines(constant_rle, rows, kinds)
        return metrics

    return Evaluation(
        collator=collator,
        metric=metric,
        headline="giou",
        max_new_tokens=max_new_tokens,
        reference=lambda row: {"text": row["answer"], "masks": row["masks"]},
        keep=("image_id", "question", "kind"),
        groups=kinds,
        group=lambda row: row["kind"],
        **{"ask": answer_with_masks, "draw": draw_answer, "also": ("ciou",), **settings},
    )


def answer_with_masks(
    model: Any, batch: dict[str, torch.Tensor], **settings
) -> tuple[torch.Tensor, list[dict[str, list[RLE]]]]:
    """The `ask` of a model with `generate_masks`, such as LISA: its tokens, and each row's masks."""
    output = model.generate_masks(**batch, **settings)
    return output.sequences, [{"masks": [encode(mask.cpu().numpy()) for mask in masks]} for masks in output.masks]


def draw_answer(image: Image.Image, row: Row, answer: dict[str, Any]) -> Image.Image:
    """The `draw` of rows with masks: the true ones, the answer's, and what is ignored."""
    true, predicted = ([decode(mask) for mask in masks] for masks in (row["masks"], answer["masks"]))
    return draw_masks(image, true, predicted, decode(row["ignore"]) if row["ignore"] else None)


def _of_kinds(overlaps: Sequence[Overlap], rows: list[Row], kinds: Sequence[str]) -> dict[str, float]:
    scores = {
        f"giou_{kind}": [
            overlap.iou if row["kind"] == kind else None for overlap, row in zip(overlaps, rows, strict=True)
        ]
        for kind in kinds
    }
    counts = {f"{name}_n": len(rows) - ious.count(None) for name, ious in scores.items()}
    return summarize(scores, [row["image_id"] for row in rows]) | counts | {"n": len(rows)}


def _of_first_queries(overlaps: Sequence[Overlap], rows: list[Row]) -> dict[str, float]:
    first = [(overlap, row["image_id"]) for overlap, row in zip(overlaps, rows, strict=True) if row["first"]]
    if not first:
        return {}
    chosen, images = zip(*first, strict=True)
    metrics = overlap_metrics(chosen, images)
    return {
        name.replace("iou", "iou_first_query", 1): value
        for name, value in metrics.items()
        if name.startswith(("giou", "ciou"))
    } | {"giou_first_query_n": len(first), "ciou_first_query_n": len(first)}


def _baselines(
    constant_rle: Callable[[tuple[int, int]], RLE], rows: list[Row], kinds: Sequence[str]
) -> dict[str, float]:
    references, ignores, images = ([row[key] for row in rows] for key in ("masks", "ignore", "image_id"))
    sizes = {
        image: tuple(rle["size"])
        for true, ignore, image in zip(references, ignores, images, strict=True)
        for rle in [*true, *([] if ignore is None else [ignore])]
    }
    predictions = [[constant_rle(sizes.get(image, UNKNOWN))] for image in images]
    overlaps = mask_overlaps(predictions, references, ignores)
    scores = overlap_metrics(overlaps, images)
    metrics = {f"baseline_{name}": scores[name] for name in ("giou", "ciou")}
    for kind in kinds:
        ious = [overlap.iou for overlap, row in zip(overlaps, rows, strict=True) if row["kind"] == kind]
        if ious:
            metrics[f"baseline_giou_{kind}"] = float(np.mean(ious))
    return metrics
