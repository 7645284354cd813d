"""`evaluate.load` by path: `box_metrics` for whoever collects with `add_batch`."""

import datasets
import evaluate

from vlm_recipes.eval.metrics.boxes import box_metrics


class BoxMetrics(evaluate.Metric):
    """One list of `[x1, y1, x2, y2]` boxes (pixels) per image; `compute` also takes `groups`."""

    def _info(self) -> evaluate.MetricInfo:
        boxes = datasets.List(datasets.List(datasets.Value("float64")))
        features = datasets.Features({"predictions": boxes, "references": boxes})
        return evaluate.MetricInfo(description=box_metrics.__doc__, citation="", features=features)

    def _compute(self, predictions: list, references: list, **more) -> dict[str, float]:
        return box_metrics(predictions, references, **more)
