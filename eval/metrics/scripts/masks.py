"""`evaluate.load` by path: `mask_metrics` for whoever collects with `add_batch`."""

import datasets
import evaluate

from vlm_recipes.eval.metrics.masks import RLE, mask_metrics


class Masks(evaluate.Metric):
    """`evaluate.load("eval/masks.py")`: `mask_metrics` for whoever collects with `add_batch`.

    One list of run lengths per row; `compute` also takes `ignores` and `image_ids`.
    """

    def _info(self) -> evaluate.MetricInfo:
        size, counts = datasets.List(datasets.Value("int64")), datasets.Value("string")
        masks = datasets.List({"size": size, "counts": counts})
        return evaluate.MetricInfo(
            description=mask_metrics.__doc__,
            citation="",
            features=datasets.Features({"predictions": masks, "references": masks}),
        )

    def _compute(
        self,
        predictions: list[list[RLE]],
        references: list[list[RLE]],
        ignores: list[RLE | None] | None = None,
        image_ids: list[str] | None = None,
    ) -> dict[str, float]:
        return mask_metrics(predictions, references, ignores, image_ids)
