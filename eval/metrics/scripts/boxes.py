"""One list of `[x1, y1, x2, y2]` boxes (pixels) per image; `compute` also takes `groups`."""

import datasets

from vlm_recipes.eval.metrics.boxes import box_metrics
from vlm_recipes.eval.metrics.scripts import metric_class

BoxMetrics = metric_class(box_metrics, datasets.List(datasets.List(datasets.Value("float64"))))
