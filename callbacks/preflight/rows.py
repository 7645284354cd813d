"""What can be said of a run's rows before anything is trained: whether they can teach, and what a result will mean."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from datasets import Dataset
from pycocotools import mask as coco

from ...eval.evaluation import Evaluation
from ...eval.generation.generate import without_images
from ...eval.metrics.baselines import majority_answers
from ...eval.metrics.text import as_read
from ...eval.report.check import Check
from ...eval.sampling import evenly_spread
from .near_duplicates import near_duplicates

Parts = Mapping[str, Dataset]  # split -> rows; the first split is trained on
NAMED = 3  # examples in a line
BOX_TOLERANCE = 0.01  # of the image's side, by which a box may stand out of it
SCORED = 2000  # rows that a baseline is scored on


def check_rows(parts: Parts, rejected: Sequence[Mapping[str, Any]] = ()) -> Check:
    """How many rows on how many images each part has, and what was refused at load."""
    sizes = [f"{split} {len(rows):,} on {len(_images(rows)[0]):,} images" for split, rows in parts.items()]
    why = Counter(str(row["reason"]) for row in rejected).most_common(1)
    refused = f"; {len(rejected):,} refused, most often for: {why[0][0]}" if why else "; none refused"
    numbers = {split: len(rows) for split, rows in parts.items()} | {"rejected": len(rejected)}
    return Check("rows", "pass", ", ".join(sizes) + refused, numbers)


def check_shared_images(parts: Parts) -> Check:
    """Images that an earlier part shows, too: the same `image_id`, or nearly the same picture (`image_hash`).

    Of rows with several pictures each: the same of `image_ids`, or of `image_hashes`.
    """
    (first, rows), *others = parts.items()
    ids, hashes = _images(rows)
    before, found, numbers = first, [], {}
    for split, rows in others:
        own, own_hashes = _images(rows)
        nearest = near_duplicates(own_hashes, hashes) if hashes and own_hashes else [-1] * len(own)
        known, pairs = set(ids) - {None}, zip(own, nearest, strict=True)
        shared = [
            (name, name if name in known else ids[place]) for name, place in pairs if place >= 0 or name in known
        ]
        numbers |= {f"{split}_images": len(own), f"{split}_shared": len(shared)}
        if shared:
            examples = ", ".join(
                _short(name) + (f" like {_short(other)}" if other != name else "") for name, other in shared[:NAMED]
            )
            found.append(f"{len(shared):,} of {len(own):,} images of {split} are in {before}, too ({examples})")
        ids, hashes, before = ids + own, hashes + own_hashes, f"{before} or {split}"
    if found:
        return Check("images kept apart", "warn", "; ".join(found) + ": numbers there may be remembered", numbers)
    return Check("images kept apart", "pass", "no image, nor one nearly like it, is in two parts", numbers)


def check_answers(parts: Parts) -> Check | None:
    """Evaluation answers that training never gives: the ceiling of a model that answers as it was taught."""
    if not _have(parts, "question", "answer"):
        return None
    known = {plain_text(answer) for answer in next(iter(parts.values()))["answer"][:]}
    found, numbers, ceilings = [], {}, [1.0]
    for split, rows in _evaluated(parts).items():
        answers = [plain_text(answer) for answer in rows["answer"][:]]
        unseen = [answer for answer in answers if answer not in known]
        ceiling = 1 - len(unseen) / len(answers)
        ceilings.append(ceiling)
        numbers |= {f"{split}_n": len(answers), f"{split}_ceiling": ceiling}
        examples = ", ".join(map(repr, dict.fromkeys(unseen[:NAMED])))
        found.append(f"{ceiling:.1%} of {len(answers):,} in {split}" + (f" (not {examples})" if unseen else ""))
    return Check("answers known from training", "warn" if min(ceilings) < 0.9 else "pass", ", ".join(found), numbers)


def check_baselines(parts: Parts, evaluation: Evaluation) -> list[Check]:
    """What needs no picture: the metric's own baseline, and for texts the answer that training gives the question."""
    checks, name = [], evaluation.headline
    for split, rows in _evaluated(parts).items():
        plain = without_images(rows.select(evenly_spread(len(rows), SCORED)))
        right = [evaluation.reference(row) for row in plain]
        ceiling = evaluation.metric(right, plain)[name]
        blind = {} if ceiling.baseline is None else {"constant": ceiling.baseline}
        if "boxes" in rows.column_names and not all(row["boxes"] for row in plain):
            blind["no_box"] = evaluation.metric([[]] * len(plain), plain)[name].value
        if _have(parts, "question", "answer") and all(isinstance(answer, str) for answer in right):
            guess = question_only(next(iter(parts.values())))
            blind["question_only"] = evaluation.metric([guess(row["question"]) for row in plain], plain)[name].value
        said = ", ".join(f"{key.replace('_', ' ')} {value:.3f}" for key, value in blind.items()) or "no baseline"
        status = "pass" if ceiling.value > 0.95 and max(blind.values(), default=0) < 0.9 else "warn"
        of = "" if len(plain) == len(rows) else f" of {len(rows):,}, evenly spread"
        found = f"{name} without looking: {said}; of the right answers {ceiling.value:.3f} (n = {len(plain):,}{of})"
        numbers = {"n": len(plain), "right_answers": ceiling.value, **blind}
        checks.append(Check(f"baselines on {split}", status, found, numbers))
    return checks


def check_constraints(parts: Parts, evaluation: Evaluation) -> Check | None:
    """Questions whose closed set of answers generation cannot be kept to, so that they are answered freely."""
    if evaluation.constrain is None or not _have(parts, "question", "choices", "units"):
        return None
    asked: Counter[str] = Counter()
    first: dict[str, Any] = {}
    for rows in parts.values():
        questions = rows["question"][:]
        asked.update(questions)
        new = {question: i for i, question in reversed(list(enumerate(questions))) if question not in first}
        first |= {row["question"]: row for row in without_images(rows.select(new.values()))}
    closed = [question for question, row in first.items() if row["choices"] or row["units"]]
    free = [question for question in closed if evaluation.constrain(first[question]) is None]
    numbers = {"closed": len(closed), "free": len(free), "free_rows": sum(asked[question] for question in free)}
    if not free:
        return Check("constraints", "pass", f"{len(closed):,} questions are kept to their answers", numbers)
    examples = ", ".join(map(repr, free[:NAMED]))
    found = f"{len(free):,} of {len(closed):,} questions with a closed set of answers are answered freely, in "
    return Check("constraints", "warn", f"{found}{numbers['free_rows']:,} rows: {examples}", numbers)


def question_only(rows: Dataset) -> Callable[[str], str]:
    """Question -> the most frequent answer that `rows` give to it; to an unknown one their most frequent answer."""
    majority = majority_answers(rows["answer"][:], [[plain_text(question)] for question in rows["question"][:]])
    return lambda question: majority.of_type(plain_text(question))


def check_coordinates(parts: Parts, doubt: str = "") -> Check | None:
    """Boxes `[x1, y1, x2, y2]` in pixels inside their images, and masks of their images' sizes that show something.

    A `doubt` of how they were read makes it a warning.
    """
    if _have(parts, "boxes"):
        return _check_boxes(parts, doubt)
    return _check_masks(parts) if _have(parts, "masks") else None


def _check_boxes(parts: Parts, doubt: str) -> Check:
    wrong, shares = [], []
    for rows in parts.values():
        for row_id, size, boxes in zip(_ids(rows), rows["image_size"][:], rows["boxes"][:], strict=True):
            relative = np.asarray(boxes, float).reshape(-1, 2, 2) / size
            inside = ((relative >= -BOX_TOLERANCE) & (relative <= 1 + BOX_TOLERANCE)).all((1, 2))
            wrong += [row_id] * int((~(inside & (relative[:, 0] < relative[:, 1]).all(1))).sum())
            shares += (relative[:, 1] - relative[:, 0]).prod(1).tolist()
    if not shares:
        return Check("coordinates", "warn", "no row has a box", {"boxes": 0})
    numbers = {"boxes": len(shares), "wrong": len(wrong), "median_share": float(np.median(shares))}
    if wrong:
        found = f"{len(wrong):,} of {len(shares):,} boxes are inverted or outside their image"
        return Check("coordinates", "stop", f"{found}, in row {wrong[0]!r} first", numbers)
    found = f"all {len(shares):,} boxes lie inside; the median takes {numbers['median_share']:.1%} of its image"
    if doubt:
        return Check("coordinates", "warn", f"{found}; {doubt}", numbers)
    return Check("coordinates", "pass", found, numbers)


def _check_masks(parts: Parts) -> Check:
    wrong, empty, n = [], 0, 0
    for rows in parts.values():
        for row_id, (width, height), masks in zip(_ids(rows), rows["image_size"][:], rows["masks"][:], strict=True):
            wrong += [row_id for mask in masks if list(mask["size"]) != [height, width]]
            empty += sum(int(coco.area(mask)) == 0 for mask in masks)
            n += len(masks)
    numbers = {"masks": n, "wrong": len(wrong), "empty": empty}
    if wrong:
        return Check("coordinates", "stop", f"the mask of row {wrong[0]!r} is not of its image's size", numbers)
    return Check("coordinates", "pass", f"all {n:,} masks have their image's size, {empty:,} show nothing", numbers)


def plain_text(text: str) -> str:
    """A text `as_read`, without what makes no other answer or question of it: case, and spaces around words."""
    return " ".join(as_read(text).lower().split())


def _images(rows: Dataset) -> tuple[list[str | None], list[str]]:
    """Each image once: its id, None for a row without, and its hash where rows have one."""
    if "image_ids" in rows.column_names:
        names, hashes = (list(chain.from_iterable(rows[key][:])) for key in ("image_ids", "image_hashes"))
    else:
        names, hashes = rows["image_id"][:], rows["image_hash"][:] if "image_hash" in rows.column_names else []
    once = {(name, i if name is None else 0): i for i, name in reversed(list(enumerate(names)))}
    return [name for name, _ in once], [hashes[i] for i in once.values()] if hashes else []


def _evaluated(parts: Parts) -> dict[str, Dataset]:
    return {split: rows for split, rows in list(parts.items())[1:] if len(rows)}


def _ids(rows: Dataset) -> Sequence[Any]:
    """What rows are called: by their place where they have no `id`."""
    return rows["id"][:] if "id" in rows.column_names else range(len(rows))


def _have(parts: Parts, *names: str) -> bool:
    return all(name in rows.column_names for rows in parts.values() for name in names)


def _short(name: str | None) -> str:
    return "one without image_id" if name is None else repr(name if len(name) <= 32 else f"{name[:31]}…")
