"""Does a model look at its images? The same questions about grey ones, side by side."""

import io
from collections.abc import Sequence
from functools import cache
from typing import Any

import PIL.Image
from datasets import Dataset, Features, Image, List
from transformers import PreTrainedModel

from ...eval.evaluation import Evaluation
from ...eval.generation.generate import without_images
from ...eval.generation.kept import KeptAnswers
from ...eval.metrics.number import flat
from ...eval.metrics.statistics import summarize
from ...eval.report.check import Check
from ...eval.sampling import chosen, evenly_spread
from ...rows.conventions import Row, picture_sizes

PICTURES = ("image", "images", "frames")  # columns
SIZE = (64, 64)  # width and height of an image whose size is not known


def with_blank_images(rows: Dataset | Sequence[Row]) -> Dataset | list[Row]:
    """Each row with grey images of its `image_sizes`, or one of its `image_size` (or 64×64).

    What is then right, the question alone told.
    """
    blank = [[_grey(*size) for size in _sizes(row)] for row in without_images(rows)]
    if not isinstance(rows, Dataset):
        others = [{name: value for name, value in row.items() if name not in PICTURES} for row in rows]
        opened = [[Image().decode_example(image) for image in own] for own in blank]
        return [
            row | ({"images": own} if "image_sizes" in row else {"image": own[0]})
            for row, own in zip(others, opened, strict=True)
        ]
    several = "image_sizes" in rows.column_names
    column, kind = ("images", List(Image())) if several else ("image", Image())
    rows = rows.remove_columns([name for name in PICTURES if name in rows.column_names])
    images = blank if several else [own[0] for own in blank]
    return Dataset.from_dict(rows.to_dict() | {column: images}, features=Features(rows.features | {column: kind}))


def _sizes(row: Row) -> Sequence[Sequence[int]]:
    return picture_sizes(row) if "image_sizes" in row else picture_sizes(row) or [SIZE]


@cache
def _grey(width: int, height: int) -> dict[str, Any]:
    file = io.BytesIO()
    PIL.Image.new("RGB", (width, height), "grey").save(file, format="PNG")
    return {"bytes": file.getvalue(), "path": None}


def check_blank_images(
    evaluation: Evaluation,
    model: PreTrainedModel,
    rows: Dataset | Sequence[Row],
    predictions: Sequence[Row],
    asked: int = 500,
    kept: KeptAnswers | None = None,
) -> Check:
    """Answer `asked` of the `rows` that have images, evenly spread, with blank ones; compare with the `predictions`.

    Passes where the scores with images are higher: where the 95% interval, over images, of the paired difference is
    above 0. Every process has to call this. `kept` is as in `Evaluation.answer`.
    """
    pictured = [i for i, row in enumerate(without_images(rows)) if any(map(all, _sizes(row)))]
    some = [pictured[i] for i in evenly_spread(len(pictured), asked)]
    again = chosen(rows, some)
    plain = without_images(again)
    answers = evaluation.answer(model, with_blank_images(again), kept=kept and kept.of("blank images"))
    blank = evaluation.score(answers, plain)
    pairs = [(predictions[i]["score"], grey) for i, grey in zip(some, blank, strict=True)]
    pairs = [(None, None) if None in pair else pair for pair in pairs]  # a score that does not count for its row
    scores = {"with_images": [seen for seen, _ in pairs], "blank": [grey for _, grey in pairs]}
    scores["gain"] = [None if seen is None else seen - grey for seen, grey in pairs]
    images = [row.get("image_id", row.get("id", i)) for i, row in enumerate(plain)]
    compared = summarize(scores, [image if image is None else str(image) for image in images])
    seen, grey, gain = compared.values()
    if gain.low is None:
        return Check("blank images", "skip", "too few rows to compare", flat(compared))
    found = (
        f"{evaluation.headline} {seen.value:.3f}, with blank images {grey.value:.3f}: a difference of "
        f"{gain.value:.3f} ({gain.low:.3f} to {gain.high:.3f}, n = {gain.n:,})"
    )
    if gain.low <= 0:
        return Check("blank images", "warn", f"{found}: the model may not look at its images", flat(compared))
    return Check("blank images", "pass", found, flat(compared))
