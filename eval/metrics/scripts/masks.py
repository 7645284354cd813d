"""One list of run lengths per row; `compute` also takes `ignores` and `image_ids`."""

import datasets

from vlm_recipes.eval.metrics.masks import mask_metrics
from vlm_recipes.eval.metrics.scripts import metric_class

MaskMetrics = metric_class(
    mask_metrics, datasets.List({"size": datasets.List(datasets.Value("int64")), "counts": datasets.Value("string")})
)
