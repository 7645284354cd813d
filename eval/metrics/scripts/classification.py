"""One text per row; `compute` also takes `labels`, `types`, `groups` and `majority`."""

from vlm_recipes.eval.metrics.classification import classification_metrics
from vlm_recipes.eval.metrics.scripts import TEXT, metric_class

ClassificationMetrics = metric_class(classification_metrics, TEXT)
