"""`evaluate.load` by path: `classification_metrics` for whoever collects with `add_batch`."""

import datasets
import evaluate

from vlm_recipes.eval.metrics.classification import classification_metrics


class ClassificationMetric(evaluate.Metric):
    """`evaluate.load("eval/classification.py")`: `classification_metrics` for whoever collects with `add_batch`.

    One text per row; `compute` also takes `labels`, `types` and `groups`.
    """

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=classification_metrics.__doc__,
            citation="",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        labels: list[str] | None = None,
        types: list[list[str]] | None = None,
        groups: list[str] | None = None,
    ) -> dict[str, float]:
        return classification_metrics(predictions, references, labels=labels, types=types, groups=groups)
