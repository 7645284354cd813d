"""Accuracy of typed short answers: over all rows, per question type, and beside what no image is needed for."""

from collections.abc import Sequence

from .baselines import TypedMajority
from .statistics import macro_average, summarize
from .typed_answers import TYPES, is_right, jaccard, tidy


def type_accuracy(
    predictions: Sequence[str],
    references: Sequence[str],
    types: Sequence[str],
    questions: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    majority: TypedMajority | None = None,
) -> dict[str, float]:
    """Share of right answers (0-1), compared in their type's canonical form (`typed_answers.is_right`).

    All arguments have one text per row: `types` are of `TYPES`; `groups` names rows that are not independent (the
    image's id); `questions` is needed for the baseline per question.

    Returns

    - `accuracy`, and `accuracy_<type>` for each type with rows; `accuracy_<type>_n` for every type, 0 included;
    - `accuracy_macro`, the mean over the types that have rows;
    - `jaccard`, the mean partial credit of the types whose answers may be lists (`jaccard_n` rows);
    - with `majority`, `baseline_` before each accuracy: always giving the type's most frequent training answer, and
      `question_baseline_accuracy…`: always giving the question's own;
    - `n`, and for each metric its 95% bootstrap interval under `_low` and `_high`
      (`vlm_recipes.eval.metrics.statistics`).

    Without rows the numbers of rows alone. Raises ValueError for lists of different lengths and unknown types.
    """
    lengths = {len(predictions), len(references), len(types)}
    if len(lengths) > 1:
        raise ValueError(f"{len(predictions)} predictions, {len(references)} references, {len(types)} types")
    rows = list(zip(predictions, references, types, strict=True))
    metrics = _accuracies("accuracy", [float(is_right(*row)) for row in rows], types, groups)
    metrics |= {f"accuracy_{kind}_n": types.count(kind) for kind in TYPES}
    partial = [jaccard(*row) for row in rows]
    if any(score is not None for score in partial):
        metrics |= summarize({"jaccard": partial}, groups) | {"jaccard_n": len(partial) - partial.count(None)}
    if majority is not None and rows:
        constant = [majority.by_type.get(kind, "") for kind in types]
        metrics |= _without_intervals("baseline_accuracy", constant, references, types)
        if questions is not None and majority.by_question:
            constant = [majority.by_question.get(tidy(question), "") for question in questions]
            metrics |= _without_intervals("question_baseline_accuracy", constant, references, types)
    return metrics


def _accuracies(
    name: str, right: Sequence[float], types: Sequence[str], groups: Sequence[str] | None
) -> dict[str, float]:
    scores: dict[str, Sequence[float | None]] = {name: right}
    for kind in TYPES:
        if kind in types:
            scores[f"{name}_{kind}"] = [
                score if own == kind else None for score, own in zip(right, types, strict=True)
            ]
    metrics = summarize(scores, groups)
    if right:
        metrics |= macro_average(f"{name}_macro", right, types, groups)
    return metrics


def _without_intervals(
    name: str, answers: Sequence[str], references: Sequence[str], types: Sequence[str]
) -> dict[str, float]:
    right: dict[str, list[bool]] = {}
    for answer, reference, kind in zip(answers, references, types, strict=True):
        right.setdefault(kind, []).append(is_right(answer, reference, kind))
    shares = {kind: sum(rows) / len(rows) for kind, rows in right.items()}
    metrics = {name: sum(map(sum, right.values())) / len(types), f"{name}_macro": sum(shares.values()) / len(shares)}
    return metrics | {f"{name}_{kind}": share for kind, share in shares.items()}
