"""How rows with boxes are evaluated."""

from collections.abc import Callable

from .metrics.box_codecs import Box, BoxCodec
from .metrics.boxes import box_metrics


def answer_box_metrics(codec: BoxCodec, baseline: Box | None = None) -> Callable[[list[str], list[dict]], dict]:
    """Make the metric of an `Evaluation`: `box_metrics` on boxes read from answers.

    The metric takes answers as text and rows with `boxes` (pixels), `image_size` (`[width, height]`, pixels) and,
    optionally, `image_id`, by which the intervals group. With `baseline`, a box in shares of the sides (from
    `constant_box`), it also gives `baseline_<metric>`: the score of answering that box for every image.
    """

    def metric(answers: list[str], rows: list[dict]) -> dict[str, float]:
        references = [row["boxes"] for row in rows]
        groups = [row["image_id"] for row in rows] if rows and "image_id" in rows[0] else None
        predicted = [codec.decode(answer, row["image_size"]) for answer, row in zip(answers, rows, strict=True)]
        metrics = box_metrics(predicted, references, groups)
        if baseline is not None and len(rows) > 1:
            constant = [
                [[share * side for share, side in zip(baseline, [*row["image_size"]] * 2, strict=True)]]
                for row in rows
            ]
            scores = box_metrics(constant, references, groups)
            compared = (name for name in scores if name.startswith(("iou_m", "giou_m", "accuracy", "iou_first")))
            metrics |= {
                f"baseline_{name}": scores[name] for name in compared if not name.endswith(("_low", "_high", "_n"))
            }
        return metrics

    return metric
