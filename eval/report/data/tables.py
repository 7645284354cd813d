"""The data page's tables: every part side by side in numbers, its most frequent answers, and its types."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .summary import Part, have_text_answers

TOP_ANSWERS = 15


@dataclass
class Bar:
    """So many of a part's rows."""

    n: int
    share: float  # of all rows of the part, 0–1
    length: float  # beside the table's longest bar, 0–1


@dataclass
class TypeRow:
    """One type of rows: a bar for each part and, over all parts, how its answers are."""

    name: str
    bars: list[Bar]
    n_answers: int | None
    most_frequent: str | None
    share: float | None  # of the type's answers that are the most frequent one, 0–1


def overview(parts: Sequence[Part]) -> list[tuple[str, list[int | float | str | None]]]:
    """A name and a cell for each part, without the rows that nothing is known of."""
    first, *others = parts
    by_area = [part.sizes[part.sizes.prod(axis=1).argsort(kind="stable")] for part in parts]
    middles = [np.median(sizes, axis=0)[None] if len(sizes) else sizes for sizes in by_area]
    table = [
        ("rows", [part.n for part in parts]),
        ("images", [len(part.questions) for part in parts]),
        (f"images also in {first.name}", [None, *(len(first.questions.keys() & part.questions) for part in others)]),
        ("questions per image, median", [_median(list(part.questions.values())) for part in parts]),
        ("questions per image, most", [max(part.questions.values(), default=None) for part in parts]),
        ("smallest image, pixels", [_size(sizes[:1]) for sizes in by_area]),
        ("median width and height", list(map(_size, middles))),
        ("largest image, pixels", [_size(sizes[-1:]) for sizes in by_area]),
        ("boxes", [len(part.boxes) or None for part in parts]),
        ("median box, share of its image", [_median(part.areas) for part in parts]),
        ("masks", [len(part.masks) or None for part in parts]),
        ("median mask, share of its image", [_median(part.masks) for part in parts]),
    ]
    if have_text_answers(parts):
        table.append(("different answers", [len(part.answers) for part in parts]))
    return [(name, cells) for name, cells in table if any(cell is not None for cell in cells)]


def answer_table(parts: Sequence[Part]) -> list[tuple[str, list[Bar]]]:
    """The answers that have the largest share of any part; none where answers are not to be counted."""
    if not have_text_answers(parts):
        return []
    names = dict.fromkeys(answer for part in parts for answer, _ in part.answers.most_common(TOP_ANSWERS))
    shares = {name: max(part.answers[name] / max(part.answers.total(), 1) for part in parts) for name in names}
    ranked = sorted(names, key=lambda answer: -shares[answer])[:TOP_ANSWERS]
    return list(zip(ranked, _bars(ranked, [part.answers for part in parts]), strict=True))


def type_table(parts: Sequence[Part]) -> list[TypeRow]:
    """The types of rows, the most frequent in the first part first; none where rows have no types."""
    names = list({name: None for part in parts for name, _ in part.types.most_common()})
    rows = []
    for name, bars in zip(names, _bars(names, [part.types for part in parts]), strict=True):
        answers, of_answers = sum((part.answers_of[name] for part in parts), Counter()), (None, None, None)
        if have_text_answers(parts) and answers:
            [(answer, n)] = answers.most_common(1)
            of_answers = len(answers), answer, n / answers.total()
        rows.append(TypeRow(name, bars, *of_answers))
    return rows


def _bars(names: Sequence[str], counts: Sequence[Counter[str]]) -> list[list[Bar]]:
    shares = [[of_part[name] / max(of_part.total(), 1) for of_part in counts] for name in names]
    longest = max(map(max, shares), default=1)
    return [
        [Bar(of_part[name], share, share / longest) for of_part, share in zip(counts, of_name, strict=True)]
        for name, of_name in zip(names, shares, strict=True)
    ]


def _median(values: Sequence[float]) -> float | None:
    if not len(values):
        return None
    median = float(np.median(values))
    return int(median) if median.is_integer() else median


def _size(sizes: np.ndarray) -> str | None:
    return f"{sizes[0, 0]:.0f}×{sizes[0, 1]:.0f}" if len(sizes) else None
