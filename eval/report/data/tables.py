"""The data page's tables: every part side by side in numbers, its most frequent answers, and its types."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .summary import Part, have_text_answers

TOP_ANSWERS = 15


class Bar(NamedTuple):
    """So many of a part's rows."""

    n: int
    share: float  # of all rows of the part, 0–1


def overview(parts: Sequence[Part]) -> list[tuple[str, list[int | float | str | None]]]:
    """A name and a cell for each part, without the rows that nothing is known of."""
    first, *others = parts
    by_area = [part.sizes[part.sizes.prod(axis=1).argsort(kind="stable")] for part in parts]
    what = max(part.what for part in parts)
    middles = [np.median(sizes, axis=0)[None] if len(sizes) else sizes for sizes in by_area]
    table = [
        ("rows", [part.n for part in parts]),
        ("images", [len(part.questions) for part in parts]),
        (f"images also in {first.name}", [None, *(len(first.questions.keys() & part.questions) for part in others)]),
        ("questions per image, median", [_quantile(list(part.questions.values())) for part in parts]),
        ("questions per image, most", [max(part.questions.values(), default=None) for part in parts]),
        ("smallest image, pixels", [_size(sizes[:1]) for sizes in by_area]),
        ("median width and height", list(map(_size, middles))),
        ("largest image, pixels", [_size(sizes[-1:]) for sizes in by_area]),
        ({"box": "boxes"}.get(what, f"{what}s"), [len(part.areas) or None for part in parts]),
        *(
            (f"{name} {what}, share of its image", [_quantile(part.areas, share) for part in parts])
            for name, share in (("smallest", 0), ("median", 0.5), ("largest", 1))
        ),
    ]
    if have_text_answers(parts):
        table.append(("different answers", [len(part.answers) for part in parts]))
    return [(name, cells) for name, cells in table if any(cell is not None for cell in cells)]


def answer_table(parts: Sequence[Part]) -> list[tuple[str, list[Bar]]]:
    """The answers that have the largest share of any part; none where answers are not to be counted."""
    if not have_text_answers(parts):
        return []
    names = dict.fromkeys(answer for part in parts for answer, _ in part.answers.most_common(TOP_ANSWERS))
    rows = [(name, _bars(name, [part.answers for part in parts])) for name in names]
    return sorted(rows, key=lambda row: -max(bar.share for bar in row[1]))[:TOP_ANSWERS]


def type_table(parts: Sequence[Part]) -> list[tuple[str, list[Bar], Counter[str]]]:
    """The types of rows, the most frequent in the first part first, and how often each of its answers is given.

    None where rows have no types.
    """
    names = dict.fromkeys(name for part in parts for name, _ in part.types.most_common())
    answers = {name: sum((part.answers_of[name] for part in parts), Counter()) for name in names}
    return [(name, _bars(name, [part.types for part in parts]), answers[name]) for name in names]


def _bars(name: str, counts: Sequence[Counter[str]]) -> list[Bar]:
    return [Bar(of_part[name], of_part[name] / max(of_part.total(), 1)) for of_part in counts]


def _quantile(values: Sequence[float], share: float = 0.5) -> float | None:
    if not len(values):
        return None
    quantile = float(np.quantile(values, share))
    return int(quantile) if quantile.is_integer() else quantile


def _size(sizes: np.ndarray) -> str | None:
    return f"{sizes[0, 0]:.0f}×{sizes[0, 1]:.0f}" if len(sizes) else None
