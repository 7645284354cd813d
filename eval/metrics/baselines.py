"""What is right without a look at the image: the most frequent answer, a constant box, a constant mask."""

import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from .boxes import Box, category_key
from .masks import RLE, decode, encode, union
from .typed_answers import normalize, tidy


def by_frequency(answers: Iterable[str], canonical: Callable[[str], Hashable] = str) -> list[str]:
    """The answers from the one given most often on; equally frequent ones as in the alphabet.

    Answers of one `canonical` form count as one, given back in its most frequent spelling.
    """
    counts = Counter(answers)
    spellings: dict[Hashable, list[str]] = {}
    for answer in sorted(counts, key=lambda answer: (-counts[answer], answer)):
        spellings.setdefault(canonical(answer), []).append(answer)
    ordered = sorted(spellings.values(), key=lambda spelt: (-sum(counts[answer] for answer in spelt), spelt[0]))
    return [spelt[0] for spelt in ordered]


def most_frequent(answers: Iterable[str], canonical: Callable[[str], Hashable] = str) -> str:
    """The first `by_frequency`; ValueError without answers."""
    ordered = by_frequency(answers, canonical)
    if not ordered:
        raise ValueError("answers: none given, so there is no most frequent one")
    return ordered[0]


def by_name(values: Iterable[Any], names: Iterable[Iterable[str]]) -> dict[str, list[Any]]:
    """The rows' values under each of the names that their rows have; ValueError for different lengths."""
    named: dict[str, list[Any]] = {}
    for value, own in zip(values, names, strict=True):
        for name in own:
            named.setdefault(name, []).append(value)
    return named


@dataclass(frozen=True)
class Majority:
    """The most frequent training answer, over all rows, of each type of question and, where counted, each question."""

    overall: str
    by_type: dict[str, str]
    by_question: dict[str, str] = field(default_factory=dict)

    def of_type(self, question_type: str) -> str:
        """The type's answer; for a type that training did not have the overall one."""
        return self.by_type.get(question_type, self.overall)


def majority_answers(answers: Sequence[str], types: Sequence[Iterable[str]] = ()) -> Majority:
    """Count training answers, one per row and compared as they are; `types` names each row's types.

    Raises ValueError without answers and for different lengths.
    """
    of_types = by_name(answers, types) if types else {}
    return Majority(most_frequent(answers), {name: most_frequent(own) for name, own in of_types.items()})


def typed_majority(answers: Sequence[str], types: Sequence[str], questions: Sequence[str] = ()) -> Majority:
    """Count training answers, one per row, in their canonical form: "pink; red" and "red; pink" are one answer.

    Answers of several types are not compared: the overall one is "". Questions that read alike
    (`typed_answers.tidy`) are one question, which has one type.
    """
    asked = [tidy(question) for question in questions]
    type_of = dict(zip(asked, types, strict=bool(asked)))
    by_question = by_name(answers, ([question] for question in asked)) if asked else {}

    def most(given: dict[str, list[str]], kind_of: Callable[[str], str]) -> dict[str, str]:
        return {
            name: most_frequent(own, partial(normalize, question_type=kind_of(name))) for name, own in given.items()
        }

    by_type = by_name(answers, ([kind] for kind in types))
    return Majority("", most(by_type, str), most(by_question, type_of.__getitem__))


@dataclass(frozen=True)
class ConstantBox:
    """A box for every image, `[x1, y1, x2, y2]` as shares of the image's sides (0-1), and what it is called.

    `categories` are the names of all training boxes, the most frequent first, which is the box's own; none where
    they have none.
    """

    box: Box
    categories: list[str] = field(default_factory=list)


def constant_box(
    boxes: Sequence[Sequence[Box]], sizes: Sequence[Sequence[float]], categories: Iterable[Iterable[str]] = ()
) -> ConstantBox:
    """The one box that knows the training set but not the image: the median of each coordinate over all boxes.

    `boxes` holds one list of pixel boxes per training image, `sizes` its `(width, height)` in pixels, `categories` the
    boxes' names. Raises ValueError where there is no box at all.
    """
    shares = [np.divide(box, [*size, *size]) for own, size in zip(boxes, sizes, strict=True) for box in own]
    if not shares:
        raise ValueError(f"boxes: none in {len(boxes)} training images, so there is no constant box")
    names = by_frequency((name for own in categories for name in own), category_key)
    return ConstantBox(np.median(shares, axis=0).tolist(), names)


@dataclass(frozen=True, eq=False)
class ConstantMask:
    """A mask for every image: `mask` is `[grid, grid]` bools, each cell an equal share of the image's sides."""

    mask: np.ndarray

    def rle(self, size: Sequence[int]) -> RLE:
        """Run lengths of the mask on an image of `size` (height, width); a pixel belongs to the cell of its centre."""
        height, width = size
        cells = Image.fromarray(np.asarray(self.mask, dtype=np.uint8))
        return encode(np.asarray(cells.resize((width, height), Image.Resampling.NEAREST)))


def best_constant_mask(
    references: Sequence[Sequence[RLE]], ignores: Sequence[RLE | None] | None = None, grid: int = 64
) -> ConstantMask:
    """The thresholded heat map of the training masks that, given to every row, has the highest gIoU on them.

    `references` holds each row's true masks and `ignores` its pixels that do not count, as for `mask_metrics`. Each
    row is averaged over the areas of `grid` x `grid` cells; the heat of a cell is the share of its pixels, over all
    rows, that are true. Every threshold is tried, and so are the empty and the full mask; of equals the smallest wins.
    IoU is computed from the cells' shares, not from cells rounded to 0 or 1, in which small objects would be lost. The
    result is the best of these nested masks; another one might be better still. Raises ValueError without rows.

    Masks are decoded one at a time, equal rows once, and `2 * grid**2` bytes per distinct row stay in memory.
    """
    if not references:
        raise ValueError("references: none, so there is no constant mask")
    ignores = [None] * len(references) if ignores is None else ignores
    times = Counter(map(json.dumps, zip(references, ignores, strict=True)))
    cells = [(*_cells(*json.loads(row), grid), n) for row, n in times.items()]
    trues = sum(true.astype(np.int64) * n for true, _, n in cells)
    counted = sum(count.astype(np.int64) * n for _, count, n in cells)
    heat = np.divide(trues, counted, out=np.zeros(grid * grid), where=counted > 0)
    hottest = np.argsort(-heat, kind="stable")
    ious = np.zeros(grid * grid + 1)
    for true, count, n in cells:
        ious += n * _ious_of_hottest(true[hottest], count[hottest])
    # cells of one heat go together
    thresholds = np.flatnonzero(np.diff(heat[hottest], prepend=np.inf, append=-np.inf))
    mask = np.zeros(grid * grid, dtype=bool)
    mask[hottest[: thresholds[ious[thresholds].argmax()]]] = True
    return ConstantMask(mask.reshape(grid, grid))


KINDS = {kind.__name__: kind for kind in (Majority, ConstantBox, ConstantMask)}


def as_json(blind: Any) -> str:
    """What is said without looking, one of the three classes here, a box or None, for `from_json`."""
    kind = type(blind).__name__
    values = {kind: vars(blind)} if kind in KINDS else blind
    return json.dumps(values, ensure_ascii=False, default=np.ndarray.tolist)


def from_json(text: str) -> Any:
    """What `as_json` was given."""
    values = json.loads(text)
    return next((KINDS[kind](**own) for kind, own in values.items()), None) if isinstance(values, dict) else values


def _cells(true: Sequence[RLE], ignore: RLE | None, grid: int) -> tuple[np.ndarray, np.ndarray]:
    """How much of each cell is true and how much counts, 0 to 255: two of `[grid * grid]`."""
    known = [*true, *([] if ignore is None else [ignore])]
    target = union(true, known[0]["size"] if known else (1, 1))
    counted = np.ones_like(target) if ignore is None else ~decode(ignore)
    return _average(target & counted, grid), _average(counted, grid)


def _average(mask: np.ndarray, grid: int) -> np.ndarray:
    # run lengths go down the columns: transposed, a decoded mask is contiguous and Pillow does not copy it
    image = Image.fromarray(mask.T.view(np.uint8) * np.uint8(255))
    return np.asarray(image.resize((grid, grid), Image.Resampling.BOX)).T.ravel()


def _ious_of_hottest(true: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """One row's IoU with the 0, 1, … all hottest cells, `[cells + 1]`; 1 where there is nothing in either."""
    outside = counted.astype(np.int64) - true
    intersections = np.append(0, np.cumsum(true, dtype=np.int64))
    unions = np.append(0, np.cumsum(outside)) + intersections[-1]
    return np.divide(intersections, unions, out=np.ones(len(unions)), where=unions > 0)
