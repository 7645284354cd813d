"""Accuracy of typed short answers: over all rows, per question type, and beside what no image is needed for."""

from collections.abc import Sequence

from .baselines import TypedMajority
from .statistics import by_class, macro_average, means, summarize
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
    right = [float(is_right(*row)) for row in rows]
    metrics = summarize({"accuracy": right}, groups) | by_class("accuracy", right, types, TYPES, groups)
    if not rows:
        return metrics
    metrics |= macro_average("accuracy_macro", right, types, groups)
    partial = [jaccard(*row) for row in rows]
    if any(score is not None for score in partial):
        metrics |= summarize({"jaccard": partial}, groups) | {"jaccard_n": len(partial) - partial.count(None)}
    if majority is not None:
        constant = [majority.by_type.get(kind, "") for kind in types]
        metrics |= _baseline("baseline_accuracy", constant, references, types)
        if questions is not None and majority.by_question:
            constant = [majority.by_question.get(tidy(question), "") for question in questions]
            metrics |= _baseline("question_baseline_accuracy", constant, references, types)
    return metrics


def _baseline(name: str, answers: Sequence[str], references: Sequence[str], types: Sequence[str]) -> dict[str, float]:
    right = [float(is_right(*row)) for row in zip(answers, references, types, strict=True)]
    kinds = dict.fromkeys(types)
    metrics = means(name, right, types, kinds)
    return metrics | {f"{name}_macro": sum(metrics[f"{name}_{kind}"] for kind in kinds) / len(kinds)}
