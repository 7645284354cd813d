"""How rows with masks are evaluated: gIoU and cIoU, over all rows, by kind of query and beside a constant mask."""

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from PIL import Image

from ..rows.conventions import SEG_TOKEN, Row
from .drawing import draw_masks
from .evaluation import Evaluation
from .metrics.baselines import ConstantMask
from .metrics.masks import RLE, Overlap, decode, encode, mask_overlaps, overlap_metrics
from .metrics.number import Scores, flags
from .metrics.statistics import average, by_class, numbered

UNKNOWN = (256, 256)  # for the baseline, the size of an image none of whose rows has a mask


def mask_evaluation(
    collator: Any, max_new_tokens: int, constant: ConstantMask | None = None, kinds: tuple[str, ...] = (), **settings
) -> Evaluation:
    """An `Evaluation` of rows with `question`, `answer`, `masks`, `ignore`, `image_id`, `kind` and `first`.

    Answers are `{"text": str, "masks": [RLE, …]}`. The metric is `mask_metrics`, with intervals over images, and

    - `seg_rate`: share of rows whose text has as many `[SEG]` as the true answer;
    - `giou` by kind, for each of `kinds`;
    - `giou_first_query` and `ciou_first_query` over the rows whose `first` is true, where others are among them:
      LISA's protocol scores one query of each image;
    - with `constant`, the baseline of `giou` and `ciou`: that mask given to every row.

    Args:
        collator: a `SegmentationCollator` with `prompt_only=True`.
        constant: for the baselines, from `best_constant_mask` of the training rows.
        kinds: the kinds of query in the order in which the report shows them.
        settings: further arguments of `Evaluation`; `ask` for a model without `generate_masks`.
    """
    constant_rle = None if constant is None else cache(constant.rle)

    def overlaps_of(predictions: list[list[RLE]], rows: list[Row]) -> list[Overlap]:
        return mask_overlaps(predictions, [row["masks"] for row in rows], [row["ignore"] for row in rows])

    def score(answers: list[dict[str, Any]], rows: list[Row]) -> list[float]:
        return [overlap.iou for overlap in overlaps_of([answer["masks"] for answer in answers], rows)]

    def metric(answers: list[dict[str, Any]], rows: list[Row]) -> Scores:
        images, own_kinds = ([row[key] for row in rows] for key in ("image_id", "kind"))
        overlaps = overlaps_of([answer["masks"] for answer in answers], rows)
        metrics = overlap_metrics(overlaps, images)
        agree = [
            float(answer["text"].count(SEG_TOKEN) == row["answer"].count(SEG_TOKEN))
            for answer, row in zip(answers, rows, strict=True)
        ]
        blind, blind_ious = Scores(), None
        if constant_rle is not None:
            numbers = numbered(images, len(rows)).tolist()
            given = ((image, [*row["masks"], row["ignore"]]) for image, row in zip(numbers, rows, strict=True))
            sizes = {image: tuple(rle["size"]) for image, masks in given for rle in masks if rle is not None}
            blind_overlaps = overlaps_of([[constant_rle(sizes.get(image, UNKNOWN))] for image in numbers], rows)
            blind, blind_ious = overlap_metrics(blind_overlaps), [overlap.iou for overlap in blind_overlaps]
        by_kind = by_class([overlap.iou for overlap in overlaps], own_kinds, kinds, images, baseline=blind_ious)
        first = [i for i, is_first in enumerate(flags("first", [row["first"] for row in rows])) if is_first]
        first = first if len(first) < len(rows) else []  # of all rows it would be the same again
        of_first = overlap_metrics([overlaps[i] for i in first], [images[i] for i in first])
        for name, groups in (("giou", by_kind), ("ciou", {})):
            baseline = blind[name].value if blind else None
            metrics |= {name: replace(metrics[name], baseline=baseline, groups=groups)}
            metrics |= {f"{name}_first_query": replace(of_first[name], partial=bool(first))}
        return metrics | {"seg_rate": average(agree, images)}

    return Evaluation(
        collator=collator,
        metric=metric,
        score=score,
        headline="giou",
        max_new_tokens=max_new_tokens,
        reference=lambda row: {"text": row["answer"], "masks": row["masks"]},
        keep=("image_id", "question", "kind", "first", "ignore"),
        restore=lambda line: (
            {"answer": line["reference"]["text"], "masks": line["reference"]["masks"]},
            line["prediction"],
        ),
        blind=constant,
        groups=kinds,
        group=lambda row: row["kind"],
        baseline="the constant mask's",
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
