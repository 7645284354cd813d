"""Which evaluated rows the report shows: the best, and the worst or, by group, the failures."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from PIL import Image

from .tables import as_number

N_BEST, N_WORST, N_FAILURES = 6, 6, 12


@dataclass
class GalleryItem:
    """One evaluated row: its images as they should be shown (boxes or masks drawn), its texts, a score to rank it by.

    A question is a text, or a conversation: who says what before the answer. An empty `reference`, as where the
    answer is a mask, is not shown.
    """

    id: str
    images: Sequence[Image.Image]
    question: str | Sequence[tuple[str, str]]
    reference: str
    prediction: str
    score: float | None
    group: str = ""
    image_id: str = ""


@dataclass
class Shelf:
    """Rows that the report shows under one heading, out of `size`; `kind` is "best" or "worst"."""

    heading: str
    kind: str
    items: list[GalleryItem]
    size: int


def shelves(gallery: Sequence[GalleryItem]) -> list[Shelf]:
    """The six best rows, best first, and the worst, worst first: no id twice, no score below every other.

    Of the worst six and, where rows have groups, twelve. Where they also have only the scores 0 and 1, the best are
    right, and the worst are not and are called failures. Among equal scores groups take turns, and images not shown
    yet come first.
    """
    unique = {item.id: item for item in reversed(gallery)}  # of each id the first
    ranked = sorted(reversed(unique.values()), key=badness)
    have_groups, scores = any(item.group for item in ranked), {-badness(item) for item in ranked} - {-math.inf}
    n_worst = N_FAILURES if have_groups else N_WORST
    if have_groups and scores and scores <= {0.0, 1.0}:
        right = [item for item in ranked if item.score == 1]
        wrong = ranked[len(right) :][::-1]
        shown = Shelf("Right answers", "best", in_turn(right, N_BEST), len(right))
        return [shown, Shelf("Failures", "worst", in_turn(wrong, n_worst), len(wrong))]
    best = in_turn(ranked, min(N_BEST, math.ceil(len(ranked) / 2)))
    taken = {item.id for item in best}
    worst = in_turn([item for item in ranked[::-1] if item.id not in taken], n_worst)
    return [Shelf("Best rows", "best", best, len(gallery)), Shelf("Worst rows", "worst", worst, len(gallery))]


def badness(item: GalleryItem) -> float:
    """What rows are ranked by; one without a score is worse than any."""
    score = as_number(item.score)
    return math.inf if score is None or math.isnan(score) else -score


def in_turn(ranked: Iterable[GalleryItem], size: int) -> list[GalleryItem]:
    """The first `size` of ranked rows; among equal scores the group, then the image, that was shown least."""
    groups, images, chosen = Counter(), Counter(), []
    for _, tied in groupby(ranked, key=badness):
        left = list(tied)
        while left and len(chosen) < size:
            item = left.pop(min(range(len(left)), key=lambda i: (groups[left[i].group], images[left[i].image_id])))
            chosen.append(item)
            groups[item.group] += 1
            images[item.image_id] += bool(item.image_id)  # rows whose image has no name count as of different ones
    return chosen
