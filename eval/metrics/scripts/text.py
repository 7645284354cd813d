"""One text per row; `compute` also takes `closed` and `groups`."""

from vlm_recipes.eval.metrics.scripts import TEXT, metric_class
from vlm_recipes.eval.metrics.text import text_metrics

TextMetrics = metric_class(text_metrics, TEXT)
