"""One text per row; `compute` takes `types`, and may take `questions`, `groups` and `majority`."""

from vlm_recipes.eval.metrics.scripts import TEXT, metric_class
from vlm_recipes.eval.metrics.type_accuracy import type_accuracy

TypeAccuracy = metric_class(type_accuracy, TEXT)
