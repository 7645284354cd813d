"""`evaluate.load` by path: `text_metrics` for whoever collects with `add_batch`."""

import datasets
import evaluate

from vlm_recipes.eval.metrics.text import text_metrics


class TextMetrics(evaluate.Metric):
    """One text per row; `compute` also takes `closed` and `groups`."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": text})
        return evaluate.MetricInfo(description=text_metrics.__doc__, citation="", features=features)

    def _compute(self, predictions: list, references: list, **more) -> dict[str, float]:
        return text_metrics(predictions, references, **more)
