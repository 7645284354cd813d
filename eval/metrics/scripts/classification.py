"""`evaluate.load` by path: `classification_metrics` for whoever collects with `add_batch`."""

import datasets
import evaluate

from vlm_recipes.eval.metrics.classification import classification_metrics


class ClassificationMetrics(evaluate.Metric):
    """One text per row; `compute` also takes `labels`, `types`, `groups` and `majority`."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": text})
        return evaluate.MetricInfo(description=classification_metrics.__doc__, citation="", features=features)

    def _compute(self, predictions: list, references: list, **more) -> dict[str, float]:
        return classification_metrics(predictions, references, **more)
