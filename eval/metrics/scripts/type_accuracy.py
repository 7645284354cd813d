"""`evaluate.load` by path: `type_accuracy` for whoever collects with `add_batch`."""

import datasets
import evaluate

from vlm_recipes.eval.metrics.type_accuracy import type_accuracy


class TypeAccuracyMetric(evaluate.Metric):
    """`evaluate.load("eval/type_accuracy.py")`: `type_accuracy` for whoever collects with `add_batch`.

    One text per row; `compute` takes `types`, and may take `questions` and `groups`.
    """

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=type_accuracy.__doc__,
            citation="",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        types: list[str],
        questions: list[str] | None = None,
        groups: list[str] | None = None,
    ) -> dict[str, float]:
        return type_accuracy(predictions, references, types, questions, groups)
