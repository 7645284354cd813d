"""The metrics for `evaluate.load` by path, which copies a script elsewhere: its imports are absolute."""

from collections.abc import Callable
from typing import Any

import datasets
import evaluate

from vlm_recipes.eval.metrics.number import Scores, flat

TEXT = datasets.Value("string")


def metric_class(function: Callable[..., Scores], of_row: Any) -> type[evaluate.Metric]:
    """A metric that computes `function`, flat, with `of_row` as the feature of one row's prediction and reference."""

    class FunctionMetric(evaluate.Metric):
        def _info(self) -> evaluate.MetricInfo:
            features = datasets.Features({"predictions": of_row, "references": of_row})
            return evaluate.MetricInfo(description=function.__doc__, citation="", features=features)

        def _compute(self, predictions: list, references: list, **more) -> dict[str, float]:
            return flat(function(predictions, references, **more))

    FunctionMetric.__name__ = function.__name__  # names the folder that collects its batches
    return FunctionMetric
