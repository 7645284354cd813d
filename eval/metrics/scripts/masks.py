"""`evaluate.load` by path: `mask_metrics` for whoever collects with `add_batch`."""

import datasets
import evaluate

from vlm_recipes.eval.metrics.masks import mask_metrics


class MaskMetrics(evaluate.Metric):
    """One list of run lengths per row; `compute` also takes `ignores` and `image_ids`."""

    def _info(self) -> evaluate.MetricInfo:
        masks = datasets.List({"size": datasets.List(datasets.Value("int64")), "counts": datasets.Value("string")})
        features = datasets.Features({"predictions": masks, "references": masks})
        return evaluate.MetricInfo(description=mask_metrics.__doc__, citation="", features=features)

    def _compute(self, predictions: list, references: list, **more) -> dict[str, float]:
        return mask_metrics(predictions, references, **more)
