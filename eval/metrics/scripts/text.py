"""One text per row; `compute` also takes `closed` and `groups`."""

import datasets

from vlm_recipes.eval.metrics.scripts import metric_class
from vlm_recipes.eval.metrics.text import text_metrics

TextMetrics = metric_class(text_metrics, datasets.Value("string"))
