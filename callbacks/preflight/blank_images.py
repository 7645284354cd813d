"""Does a model look at its images? The same questions about grey ones, side by side."""

import io
from collections.abc import Sequence
from functools import cache

import PIL.Image
from datasets import Dataset, Features, Image
from transformers import PreTrainedModel

from ...eval.evaluation import Evaluation
from ...eval.generation.generate import without_images
from ...eval.metrics.number import flat
from ...eval.metrics.statistics import summarize
from ...eval.report.check import Check
from ...rows.conventions import Row

PICTURES = ("image", "images", "frames")  # columns
ASKED = 500  # rows that are asked again
SIZE = (64, 64)  # width and height of an image whose size is not known


def with_blank_images(rows: Dataset | Sequence[Row]) -> Dataset | list[Row]:
    """Each row with a grey image of its `image_size` (or 64×64): what is then right, the question alone told."""
    if not isinstance(rows, Dataset):
        return [_without(row) | {"image": PIL.Image.new("RGB", row.get("image_size") or SIZE, "grey")} for row in rows]
    sizes = rows["image_size"] if "image_size" in rows.column_names else [SIZE] * len(rows)
    blank = {"image": [{"bytes": _grey(*size), "path": None} for size in sizes]}
    others = rows.remove_columns([name for name in PICTURES if name in rows.column_names])
    return Dataset.from_dict(others.to_dict() | blank, features=Features(others.features | {"image": Image()}))


def _without(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in PICTURES}


@cache
def _grey(width: int, height: int) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (width, height), "grey").save(file, format="PNG")
    return file.getvalue()


def check_blank_images(
    evaluation: Evaluation, model: PreTrainedModel, rows: Dataset | Sequence[Row], predictions: Sequence[Row]
) -> Check:
    """Answer up to 500 of the `rows` that have images, evenly spread, with blank ones; compare with the `predictions`.

    Passes where the scores with images are higher: where the 95% interval, over images, of the paired difference is
    above 0. Every process has to call this.
    """
    pictured = [i for i, row in enumerate(without_images(rows)) if all(row.get("image_size", SIZE))]
    some = pictured[:: max(1, -(-len(pictured) // ASKED))]
    asked = rows.select(some) if isinstance(rows, Dataset) else [rows[i] for i in some]
    plain = without_images(asked)
    blank = evaluation.score(evaluation.answer(model, with_blank_images(asked)), plain)
    pairs = [(predictions[i]["score"], grey) for i, grey in zip(some, blank, strict=True)]
    pairs = [(None, None) if None in pair else pair for pair in pairs]  # a score that does not count for its row
    scores = {"with_images": [seen for seen, _ in pairs], "blank": [grey for _, grey in pairs]}
    scores["gain"] = [None if seen is None else seen - grey for seen, grey in pairs]
    compared = summarize(scores, [str(row.get("image_id", row["id"])) for row in plain])
    seen, grey, gain = compared.values()
    if gain.low is None:
        return Check("blank images", "skip", "too few rows to compare", flat(compared))
    found = (
        f"{evaluation.headline} {seen.value:.3f}, with blank images {grey.value:.3f}: a difference of "
        f"{gain.value:.3f} ({gain.low:.3f} to {gain.high:.3f}, n = {len(pairs):,})"
    )
    if gain.low <= 0:
        return Check("blank images", "warn", f"{found}: the model may not look at its images", flat(compared))
    return Check("blank images", "pass", found, flat(compared))
