"""Rows -> what can be said of them without looking at a picture: sizes, boxes, masks, questions and answers."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import datasets
import numpy as np
from pycocotools import mask as coco

Rows = datasets.Dataset | Sequence[Mapping[str, Any]]
TYPES = ("question_type", "kind")  # a row's type is in the first of these columns that there is
COLUMNS = ("image_id", "image_size", "image_ids", "image_sizes", "boxes", "masks", "answer", *TYPES)


@dataclass
class Part:
    """What is known of one split's rows; what its rows do not have is empty."""

    name: str
    n: int
    questions: Counter[Hashable]  # how many rows ask about each image
    sizes: np.ndarray  # [images, 2], width and height in pixels
    what: str  # "box" or "mask", whatever the rows have, else ""
    areas: np.ndarray  # [boxes or masks], shares of the image's area; of a box whose corners are in the wrong order 0
    types: Counter[str]  # how many rows are of each type, where rows have types
    answers_of: defaultdict[str, Counter[str]]  # per type, "" without, how often each is given

    @cached_property
    def answers(self) -> Counter[str]:
        """How often each answer is given."""
        return sum(self.answers_of.values(), Counter())


def summarize_part(name: str, rows: Rows) -> Part:
    """Read the columns that the page speaks of, all optional; no image is decoded.

    `image_size` is `[width, height]` in pixels as displayed, `boxes` are `[x1, y1, x2, y2]` in those pixels, `masks`
    run lengths as from `vlm_recipes.eval.metrics.masks.encode`; `answer` is a text, `question_type` or `kind` its
    type. Rows with the same `image_id` are about the same image, one without is about its own; rows with several
    pictures have `image_ids` and `image_sizes`. A row without a size counts neither for sizes nor for boxes.
    """
    n = len(rows)
    if isinstance(rows, datasets.Dataset):
        columns = rows.select_columns([column for column in COLUMNS if column in rows.column_names]).to_dict()
    else:
        columns = {column: [row.get(column) for row in rows] for column in COLUMNS}
    columns = defaultdict(lambda: [None] * n, columns)
    sizes = _known(columns["image_size"])
    images = [(name, i) if image is None else image for i, image in enumerate(columns["image_id"])]
    shown = sizes
    if any(columns["image_ids"]):
        images = list(chain.from_iterable(columns["image_ids"]))
        shown = _known(list(chain.from_iterable(columns["image_sizes"])))
    # as in its first row
    of_images = shown[sorted({image: i for i, image in reversed([*enumerate(images)])}.values())]
    boxes = _areas_of_boxes(columns["boxes"], sizes)
    masks = [mask for of_row in columns["masks"] for mask in of_row or ()]
    kinds = next((columns[column] for column in TYPES if any(columns[column])), [""] * n)
    answers_of = defaultdict(Counter)
    for answer, kind in zip(columns["answer"], kinds, strict=True):
        if answer is not None:
            answers_of[str(kind or "")][str(answer)] += 1
    return Part(
        name,
        n,
        questions=Counter(images),
        sizes=of_images[np.isfinite(of_images).all(axis=1)],
        what="mask" if masks else "box" if len(boxes) else "",
        areas=np.array([coco.area(mask) / np.prod(mask["size"]) for mask in masks]) if masks else boxes,
        types=Counter(str(kind) for kind in kinds if kind),
        answers_of=answers_of,
    )


def _known(sizes: Sequence[Sequence[int] | None]) -> np.ndarray:
    """Widths and heights `[sizes, 2]`, NaN where they are not known."""
    known = [size if size and min(size) > 0 else (np.nan, np.nan) for size in sizes]
    return np.array(known, dtype=float).reshape(len(sizes), 2)


def _areas_of_boxes(boxes: Iterable[Sequence | None], sizes: np.ndarray) -> np.ndarray:
    """Shares of their images that the boxes of all rows cover `[boxes]`, without boxes that are no numbers."""
    boxes = [of_row or () for of_row in boxes]
    flat = np.array([box for of_row in boxes for box in of_row], dtype=float).reshape(-1, 4)
    sides = (flat[:, 2:] - flat[:, :2]) / np.repeat(sizes, [len(of_row) for of_row in boxes], axis=0)
    return np.prod(sides[np.isfinite(sides).all(axis=1)].clip(min=0), axis=1)


def have_text_answers(parts: Sequence[Part]) -> bool:
    """Whether answers can be counted: those of rows with boxes spell them, and those with masks are set phrases."""
    return any(part.answers for part in parts) and not any(part.what for part in parts)
