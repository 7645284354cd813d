"""One text per row; `compute` also takes `labels`, `types`, `groups` and `majority`."""

import datasets

from vlm_recipes.eval.metrics.classification import classification_metrics
from vlm_recipes.eval.metrics.scripts import metric_class

ClassificationMetrics = metric_class(classification_metrics, datasets.Value("string"))
