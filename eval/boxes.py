"""How rows with boxes are evaluated: boxes and their names read from the answers, beside a constant box."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
from accelerate import PartialState
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from ..rows.conventions import Row
from .drawing import draw_boxes
from .evaluation import Evaluation
from .metrics.baselines import ConstantBox, by_frequency
from .metrics.box_codecs import FAMILIES, BoxCodec, Qwen2VLBoxes, box_codec
from .metrics.box_units import LabelledBox
from .metrics.boxes import Box, box_metrics, box_scores, image_boxes
from .metrics.detection import class_names, detection_metrics, paired_classes
from .metrics.number import Scores

COMPARED = ("iou_mean", "iou_median", "iou_first", "giou_mean", "giou_median", "accuracy_50", "accuracy_70")
SHOWN = 6  # boxes of an answer that people read of
Said = str | list[Box] | list[LabelledBox]


def codec_of(model: PreTrainedModel | None, processor: ProcessorMixin | None) -> BoxCodec:
    """How this model writes boxes, where it counts pixels with its processor's budget; without a model, as Qwen2-VL.

    Where no format of its family is known, boxes are written as Qwen3-VL does, and the main process says so once.
    """
    if model is None:
        return Qwen2VLBoxes()
    if model.config.model_type not in FAMILIES:
        _announce(model.config.model_type)
    return box_codec(model.config.model_type, processor)


@cache
def _announce(model_type: str) -> None:
    if PartialState().is_main_process:
        print(f"no box format of {model_type!r} is known: boxes are JSON as Qwen3-VL's, in thousandths of the image")


def box_evaluation(
    collator: Any,
    codec: BoxCodec,
    max_new_tokens: int,
    baseline: ConstantBox | Box | None = None,
    categories: Sequence[str] = (),
    **settings,
) -> Evaluation:
    """An `Evaluation` of chat rows with `boxes` (`[x1, y1, x2, y2]` in pixels as displayed), `image_size` (`[width,
    height]`) and, optionally, `categories`, a name for each of the boxes, and `image_id`.

    The metrics are `box_metrics` and `detection_metrics`, with intervals over images, and as baseline those of
    `baseline` given for every image. The reference is written by the codec. An answer is a text, or boxes in pixels
    that somebody has read already, with their names or without.

    Names count where there are two categories or more: boxes are matched within a class, as the metrics say. With a
    single category its name is in the question, and numbers stay comparable with published ones: whatever an answer
    calls its boxes, they count. How many there are is what `categories` says, else what `baseline` has seen in
    training; where neither does, the names of rows that have some count.

    Args:
        collator: a `ChatCollator` with `prompt_only=True`.
        codec: reads boxes out of the model's text, see `codec_of`; where it counts pixels, those of the images that
            the collator's processor makes.
        baseline: from `constant_box` of the training rows, or a box in shares of the image's sides.
        categories: all names that may be answered, in the order to show; the first is the baseline's.
        settings: further arguments of `Evaluation`.
    """
    constant = baseline if isinstance(baseline, ConstantBox | None) else ConstantBox(baseline)
    classes = class_names(categories or (constant.categories if constant else ()))

    def names_count(row: Row) -> bool:
        return len(classes) > 1 or (not classes and "categories" in row)

    def constant_name(rows: list[Row]) -> str:
        """The constant box's: the first of the categories, or where none are known the most frequent of the rows."""
        own = by_frequency(chain.from_iterable(row["categories"] for row in rows)) if not classes else ()
        return next(iter(classes.values() or own), "")

    def used() -> BoxCodec:  # each time: a processor's budget may be set later
        return codec if collator is None else codec.used_with(collator.processor)

    def found_in(answer: Said, row: Row) -> list[LabelledBox]:
        if isinstance(answer, str):
            return used().decode_labelled(answer, row["image_size"])
        return [one if isinstance(one, LabelledBox) else LabelledBox(one, "") for one in answer]

    def compared(answers: list[Said], rows: list[Row]) -> dict[str, list | None]:
        found = [found_in(answer, row) for answer, row in zip(answers, rows, strict=True)]
        named = any(map(names_count, rows))
        return {
            "predictions": [[one.box for one in own] for own in found],
            "references": [row["boxes"] for row in rows],
            "predicted_categories": [[one.label for one in own] for own in found] if named else None,
            "reference_categories": [row["categories"] for row in rows] if named else None,
        }

    def metric(answers: list[Said], rows: list[Row]) -> Scores:
        given, blind, blindly = compared(answers, rows), Scores(), None
        images = [row.get("image_id") for row in rows]
        if constant is not None:
            boxes = [[np.multiply(constant.box, [*row["image_size"]] * 2).tolist()] for row in rows]
            names = given["reference_categories"] and [[constant_name(rows)]] * len(rows)
            blindly = boxes, names
            blind = box_metrics(**given | {"predictions": boxes, "predicted_categories": names})
        metrics = box_metrics(**given, groups=images)
        metrics |= {name: replace(metrics[name], baseline=blind[name].value) for name in COMPARED if name in blind}
        return metrics | detection_metrics(**given, groups=images, classes=classes.values(), baseline=blindly)

    def score(answers: list[Said], rows: list[Row]) -> list[float | None]:
        return [image["iou"] for image in box_scores(**compared(answers, rows))]

    def class_pairs(row: Row, answer: Said) -> list[tuple[str | None, str | None]]:
        if not names_count(row):
            return []
        shown = class_names([*classes.values(), *row["categories"]])
        pairs = paired_classes(*image_boxes(**compared([answer], [row])))
        return [tuple(key and shown.get(key, key) for key in pair) for pair in pairs]

    def reference(row: Row) -> str:
        names = row["categories"] if names_count(row) else [""] * len(row["boxes"])
        return used().encode(row["boxes"], row["image_size"], names)

    def read(row: Row, answer: Said) -> Row:
        found = found_in(answer, row)
        labels = {"predicted_categories": [one.label for one in found]} if names_count(row) else {}
        return {"predicted_boxes": [one.box for one in found], **labels}

    def restore(line: Row) -> tuple[Row, Said]:
        written = [] if "boxes" in line else found_in(line["reference"], line)
        true = {"boxes": line["boxes"] if "boxes" in line else [one.box for one in written]}
        if names_count(line):
            of_text = "boxes" not in line and "categories" not in line
            true["categories"] = [one.label for one in written] if of_text else line["categories"]
        if "predicted_boxes" not in line:
            return true, line["prediction"]
        boxes = line["predicted_boxes"]
        names = line["predicted_categories"] if names_count(line) else [""] * len(boxes)
        if len(names) != len(boxes):
            raise ValueError(f"predicted_categories: {len(names)} names for {len(boxes)} boxes")
        return true, [LabelledBox(*one) for one in zip(boxes, names, strict=True)]

    def shown(row: Row, answer: Said) -> str:
        found, (width, height) = found_in(answer, row), row["image_size"]
        if not found:
            return str(answer)
        lines = [f"{label} ({x1:.0f}, {y1:.0f}) to ({x2:.0f}, {y2:.0f})" for (x1, y1, x2, y2), label in found[:SHOWN]]
        more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        return "\n".join([*(" ".join(line.split()) for line in lines), *more, f"in pixels of {width}×{height}"])

    def draw(image: Image.Image, row: Row, answer: Said) -> Image.Image:
        found = found_in(answer, row)
        names = ((), ()) if len(classes) == 1 else (row.get("categories", ()), [one.label for one in found])
        return draw_boxes(image, row["boxes"], [one.box for one in found], *names)

    own = {"reference": reference, "shown": shown, "draw": draw, "blind": constant, "baseline": "the constant box's"}
    settings = own | settings
    settings |= {"keep": ("image_id", "image_size", "boxes"), "restore": restore, "read": read}
    if len(classes) != 1:
        settings |= {"keep": (*settings["keep"], "categories"), "class_pairs": class_pairs}
    return Evaluation(collator, metric, score, "iou_mean", max_new_tokens, **settings)
