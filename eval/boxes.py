"""How rows with boxes are evaluated: boxes read from the answers, beside a constant box."""

from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin

from ..rows.conventions import Row
from .drawing import draw_boxes
from .evaluation import Evaluation
from .metrics.box_codecs import BoxCodec, Qwen2VLBoxes, box_codec
from .metrics.boxes import Box, box_metrics, box_scores
from .metrics.number import Scores

COMPARED = ("iou_mean", "iou_median", "iou_first", "giou_mean", "giou_median", "accuracy_50", "accuracy_70")


def codec_of(model: PreTrainedModel | None, processor: ProcessorMixin | None) -> BoxCodec:
    """How this model writes boxes, with its processor's pixel budget; ValueError for a kind that is not known.

    Without a model, as Qwen2-VL does.
    """
    if model is None:
        return Qwen2VLBoxes()
    size = processor.image_processor.size
    return box_codec(model.config.model_type, size["shortest_edge"], size["longest_edge"])


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
        codec: reads boxes out of the model's text, see `vlm_recipes.eval.metrics.box_codecs.box_codec`.
        baseline: in shares of the image's sides, from `constant_box` of the training rows.
        settings: further arguments of `Evaluation`.
    """

    def boxes_in(answer: str | list[Box], row: Row) -> list[Box]:
        return answer if isinstance(answer, list) else codec.decode(answer, row["image_size"])

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
        return codec.encode(row["boxes"], row["image_size"], [""] * len(row["boxes"]))

    def draw(image: Image.Image, row: Row, answer: str) -> Image.Image:
        return draw_boxes(image, row["boxes"], codec.decode(answer, row["image_size"]))

    settings = {"baseline": "the constant box's", "reference": reference, "draw": draw, "blind": baseline, **settings}
    settings |= {"keep": ("image_id", "image_size", "boxes"), "restore": restore}
    settings |= {"read": lambda row, answer: {"predicted_boxes": boxes_in(answer, row)}}
    return Evaluation(collator, metric, score, "iou_mean", max_new_tokens, **settings)
