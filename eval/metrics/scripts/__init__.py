"""The metrics for `evaluate.load` by path, which copies a script elsewhere: its imports are absolute."""

from collections.abc import Callable
from typing import Any

import datasets
import evaluate


def metric_class(function: Callable[..., dict[str, float]], of_row: Any) -> type[evaluate.Metric]:
    """A metric that computes `function`, with `of_row` as the feature of one row's prediction and of its reference."""

    class FunctionMetric(evaluate.Metric):
        def _info(self) -> evaluate.MetricInfo:
            features = datasets.Features({"predictions": of_row, "references": of_row})
            return evaluate.MetricInfo(description=function.__doc__, citation="", features=features)

        def _compute(self, predictions: list, references: list, **more) -> dict[str, float]:
            return function(predictions, references, **more)

    FunctionMetric.__name__ = function.__name__  # names the folder that collects its batches
    return FunctionMetric
