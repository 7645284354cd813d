"""`evaluate.load` by path: `box_metrics` for whoever collects with `add_batch`."""

import datasets
import evaluate

from vlm_recipes.eval.metrics.box_codecs import Box
from vlm_recipes.eval.metrics.boxes import box_metrics


class BoxMetric(evaluate.Metric):
    """`evaluate.load("eval/boxes.py")`: `box_metrics` for whoever collects with `add_batch`.

    One list of `[x1, y1, x2, y2]` boxes (pixels) per image; `compute` also takes `groups`.
    """

    def _info(self) -> evaluate.MetricInfo:
        boxes = datasets.Sequence(datasets.Sequence(datasets.Value("float64")))
        return evaluate.MetricInfo(
            description=box_metrics.__doc__,
            citation="",
            features=datasets.Features({"predictions": boxes, "references": boxes}),
        )

    def _compute(
        self, predictions: list[list[Box]], references: list[list[Box]], groups: list[str] | None = None
    ) -> dict[str, float]:
        return box_metrics(predictions, references, groups)
