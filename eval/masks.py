"""How rows with masks are evaluated: gIoU and cIoU, over all rows, by kind of query and beside a constant mask."""

from functools import cache
from typing import Any

import torch
from PIL import Image

from ..rows.conventions import SEG_TOKEN, Row
from .drawing import draw_masks
from .evaluation import Evaluation
from .metrics.baselines import ConstantMask
from .metrics.masks import RLE, decode, encode, mask_overlaps, overlap_metrics
from .metrics.statistics import by_class, means, summarize

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
        constant: for the baselines, from `best_constant_mask` of the training rows.
        kinds: the kinds of query in the order in which the report shows them.
        settings: further arguments of `Evaluation`; `ask` for a model without `generate_masks`.
    """
    constant_rle = None if constant is None else cache(constant.rle)

    def metric(answers: list[dict[str, Any]], rows: list[Row]) -> dict[str, float]:
        references, ignores, images, own_kinds = (
            [row[key] for row in rows] for key in ("masks", "ignore", "image_id", "kind")
        )
        overlaps = mask_overlaps([answer["masks"] for answer in answers], references, ignores)
        metrics = overlap_metrics(overlaps, images)
        agree = [
            float(answer["text"].count(SEG_TOKEN) == row["answer"].count(SEG_TOKEN))
            for answer, row in zip(answers, rows, strict=True)
        ]
        metrics |= summarize({"seg_rate": agree}, images)
        if len(rows) < 2:
            return metrics
        metrics |= by_class("giou", [overlap.iou for overlap in overlaps], own_kinds, kinds, images)
        first = [(overlap, row["image_id"]) for overlap, row in zip(overlaps, rows, strict=True) if row["first"]]
        if 0 < len(first) < len(rows):
            scores = overlap_metrics(*zip(*first, strict=True))
            metrics |= {
                name.replace("iou", "iou_first_query"): value
                for name, value in scores.items()
                if name.startswith(("giou", "ciou"))
            }
            metrics |= {"giou_first_query_n": len(first), "ciou_first_query_n": len(first)}
        if constant_rle is not None:
            sizes = _image_sizes(rows)
            predictions = [[constant_rle(sizes.get(image, UNKNOWN))] for image in images]
            overlaps = mask_overlaps(predictions, references, ignores)
            metrics["baseline_ciou"] = overlap_metrics(overlaps)["ciou"]
            metrics |= means("baseline_giou", [overlap.iou for overlap in overlaps], own_kinds, kinds)
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


def _image_sizes(rows: list[Row]) -> dict[str, tuple[int, int]]:
    """The (height, width) of each image that has a mask, in whichever of its rows."""
    return {
        row["image_id"]: tuple(rle["size"])
        for row in rows
        for rle in [*row["masks"], *([] if row["ignore"] is None else [row["ignore"]])]
    }
