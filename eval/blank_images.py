"""Does a model look at its images? The same questions about grey ones, side by side."""

import io
from collections.abc import Sequence
from functools import cache
from typing import Any

import PIL.Image
from datasets import Dataset, Features, Image
from transformers import PreTrainedModel

from eval.checks import Check
from eval.evaluation import Evaluation
from eval.statistics import summarize

ASKED = 500  # rows that are asked again


def with_blank_images(rows: Dataset) -> Dataset:
    """Each row with a grey image of its `image_size` (or 64×64): what is then right, the question alone told."""
    sizes = rows["image_size"] if "image_size" in rows.column_names else [(64, 64)] * len(rows)
    blank = {"image": [{"bytes": _grey(*size), "path": None} for size in sizes]}
    others = rows.remove_columns([name for name in ("image", "images", "frames") if name in rows.column_names])
    return Dataset.from_dict(others.to_dict() | blank, features=Features(others.features | {"image": Image()}))


@cache
def _grey(width: int, height: int) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (width, height), "grey").save(file, format="PNG")
    return file.getvalue()


def check_looking(
    evaluation: Evaluation, model: PreTrainedModel, rows: Dataset, predictions: Sequence[dict[str, Any]]
) -> Check:
    """Answer up to 500 of the `rows`, evenly spread, with blank images; compare with the `predictions` on real ones.

    Passes where the scores with images are higher: where the 95% interval, over images, of the paired difference is
    above 0. Every process has to call this.
    """
    some = range(0, len(rows), -(-len(rows) // ASKED))
    asked = rows.select(some)
    _, blank = evaluation(model, with_blank_images(asked))
    pairs = [(predictions[i]["score"], grey["score"]) for i, grey in zip(some, blank, strict=True)]
    pairs = [(None, None) if None in pair else pair for pair in pairs]  # a score that does not count for its row
    scores = {"with_images": [seen for seen, _ in pairs], "blank": [grey for _, grey in pairs]}
    scores["gain"] = [None if seen is None else seen - grey for seen, grey in pairs]
    numbers = summarize(scores, asked["image_id"][:])
    if "gain_low" not in numbers:
        return Check("blank images", "skip", "too few rows to compare", numbers)
    found = (
        f"{evaluation.headline} {numbers['with_images']:.3f}, with blank images {numbers['blank']:.3f}: a difference "
        f"of {numbers['gain']:.3f} ({numbers['gain_low']:.3f} to {numbers['gain_high']:.3f}, n = {len(pairs):,})"
    )
    if numbers["gain_low"] <= 0:
        return Check("blank images", "warn", f"{found}: the model may not look at its images", numbers)
    return Check("blank images", "pass", found, numbers)
