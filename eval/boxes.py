"""How rows with boxes are evaluated: boxes read from the answers, beside a constant box."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from accelerate import PartialState
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from ..rows.conventions import Row
from .drawing import draw_boxes
from .evaluation import Evaluation
from .metrics.box_codecs import FAMILIES, BoxCodec, Qwen2VLBoxes, box_codec
from .metrics.boxes import Box, box_metrics, box_scores
from .metrics.number import Scores

COMPARED = ("iou_mean", "iou_median", "iou_first", "giou_mean", "giou_median", "accuracy_50", "accuracy_70")


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
    collator: Any, codec: BoxCodec, max_new_tokens: int, baseline: Box | None = None, **settings
) -> Evaluation:
    """An `Evaluation` of chat rows with `boxes` (`[x1, y1, x2, y2]` in pixels as displayed), `image_size` (`[width,
    height]`) and, optionally, `image_id`.

    The metric is `box_metrics`, with intervals over images, and as baseline that of `baseline` given for every
    image. The reference is written by the codec, without names of categories. An answer is a text, or boxes in pixels
    that somebody has read already, as in the lines of `predictions.jsonl` (`predicted_boxes`).

    Args:
        collator: a `ChatCollator` with `prompt_only=True`.
        codec: reads boxes out of the model's text, see `codec_of`; where it counts pixels, those of the images that
            the collator's processor makes.
        baseline: in shares of the image's sides, from `constant_box` of the training rows.
        settings: further arguments of `Evaluation`.
    """

    def used() -> BoxCodec:  # each time: a processor's budget may be set later
        return codec if collator is None else codec.used_with(collator.processor)

    def boxes_in(answer: str | list[Box], row: Row) -> list[Box]:
        return answer if isinstance(answer, list) else used().decode(answer, row["image_size"])

    def read(answers: list[str], rows: list[Row]) -> list[list[Box]]:
        return [boxes_in(answer, row) for answer, row in zip(answers, rows, strict=True)]

    def restore(line: Row) -> tuple[Row, str | list[Box]]:
        boxes = line["boxes"] if "boxes" in line else boxes_in(line["reference"], line)
        return {"boxes": boxes}, line["predicted_boxes"] if "predicted_boxes" in line else line["prediction"]

    def metric(answers: list[str], rows: list[Row]) -> Scores:
        references = [row["boxes"] for row in rows]
        images = [row["image_id"] for row in rows] if rows and "image_id" in rows[0] else None
        metrics = box_metrics(read(answers, rows), references, images)
        if baseline is None:
            return metrics
        constant = [[np.multiply(baseline, [*row["image_size"]] * 2).tolist()] for row in rows]
        blind = box_metrics(constant, references)
        return metrics | {name: replace(metrics[name], baseline=blind[name].value) for name in COMPARED}

    def score(answers: list[str], rows: list[Row]) -> list[float | None]:
        return [image["iou"] for image in box_scores(read(answers, rows), [row["boxes"] for row in rows])]

    def reference(row: Row) -> str:
        return used().encode(row["boxes"], row["image_size"], [""] * len(row["boxes"]))

    def draw(image: Image.Image, row: Row, answer: str) -> Image.Image:
        return draw_boxes(image, row["boxes"], boxes_in(answer, row))

    settings = {"baseline": "the constant box's", "reference": reference, "draw": draw, "blind": baseline, **settings}
    settings |= {"keep": ("image_id", "image_size", "boxes"), "restore": restore}
    settings |= {"read": lambda row, answer: {"predicted_boxes": boxes_in(answer, row)}}
    return Evaluation(collator, metric, score, "iou_mean", max_new_tokens, **settings)
