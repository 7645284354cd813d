"""`evaluate.load` by path: `type_accuracy` for whoever collects with `add_batch`."""

import datasets
import evaluate

from vlm_recipes.eval.metrics.type_accuracy import type_accuracy


class TypeAccuracy(evaluate.Metric):
    """One text per row; `compute` takes `types`, and may take `questions`, `groups` and `majority`."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": text})
        return evaluate.MetricInfo(description=type_accuracy.__doc__, citation="", features=features)

    def _compute(self, predictions: list, references: list, **more) -> dict[str, float]:
        return type_accuracy(predictions, references, **more)
