"""What in the rows is odd, in sentences."""

from collections.abc import Sequence

import numpy as np

from ..page import visible
from .summary import Part, have_text_answers, new_answers, shared_images

MOSTLY = 0.5  # an answer that more than this share of rows have: who always says it is right so often
FREE_TEXT = 0.5  # where more than this share of answers are different ones, new ones are no surprise
OUTSIDE = 0.01  # share of the image's side by which a box may leave it


def findings(parts: Sequence[Part], token_lengths: Sequence[int] = (), token_budget: int | None = None) -> list[str]:
    """Sentences about rows that are too long, images in two parts, odd boxes and masks, and answers; [] for none."""
    first, found = parts[0], []
    if token_budget is not None and (n := int((np.asarray(token_lengths) > token_budget).sum())):
        found.append(f"{_of(n, len(token_lengths))} measured rows are longer than {token_budget:,} tokens.")
    for i, part in enumerate(parts):
        for earlier in parts[:i]:
            if n := shared_images(earlier, part):
                found.append(f"{_of(n, len(part.questions))} images of {part.name} are also in {earlier.name}.")
    for part in parts:
        outside = ((part.boxes < -OUTSIDE) | (part.boxes > 1 + OUTSIDE)).any(axis=1)
        for odd, what in (
            (outside, "boxes of {} leave their image"),
            (part.areas == 0, "boxes of {} have no area"),
            (part.masks == 0, "masks of {} are empty"),
            (part.masks == 1, "masks of {} cover all of their image"),
        ):
            if odd.any():
                found.append(f"{_of(int(odd.sum()), len(odd))} {what.format(part.name)}.")
    for part in parts if have_text_answers(parts) else ():
        found += _about_answers(first, part)
    return found


def _about_answers(first: Part, part: Part) -> list[str]:
    found, total = [], part.answers.total()
    for answer, n in part.answers.most_common(1):
        if n > MOSTLY * total and total > 1:
            found.append(f"{_of(n, total)} rows of {part.name} have the answer “{visible(answer)}”.")
    if len(first.answers) <= FREE_TEXT * first.answers.total() and (n := new_answers(first, part)):
        found.append(f"{_of(n, total)} rows of {part.name} have an answer that {first.name} never gives.")
    if n := part.contradictions:
        times = "1 time" if n == 1 else f"{n:,} times"
        found.append(f"{part.name} has several answers to the same question about the same image, {times}.")
    return found


def _of(n: int, total: int) -> str:
    return f"{n:,} of {total:,} ({n / total:.1%})"
