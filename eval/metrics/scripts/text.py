"""`evaluate.load` by path: `text_metrics` for whoever collects with `add_batch`."""

import datasets
import evaluate

from vlm_recipes.eval.metrics.text import text_metrics


class TextMetric(evaluate.Metric):
    """`evaluate.load("eval/text.py")`: `text_metrics` for whoever collects with `add_batch`.

    One text per row; `compute` also takes `closed` and `groups`.
    """

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=text_metrics.__doc__,
            citation="",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        closed: list[bool] | None = None,
        groups: list[str] | None = None,
    ) -> dict[str, float]:
        return text_metrics(predictions, references, closed, groups)
