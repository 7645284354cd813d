"""Accuracy of typed short answers: over all rows, per question type, and beside what no image is needed for."""

from collections.abc import Sequence
from dataclasses import replace

from .baselines import Majority
from .number import Scores
from .statistics import average, by_class, macro_average
from .typed_answers import TYPES, is_right, jaccard, tidy


def type_accuracy(
    predictions: Sequence[str],
    references: Sequence[str],
    types: Sequence[str],
    questions: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    majority: Majority | None = None,
) -> Scores:
    """Share of right answers (0-1), compared in their type's canonical form (`typed_answers.is_right`).

    All arguments have one text per row: `types` are of `TYPES`; `groups` names rows that are not independent (the
    image's id); `questions` is needed for the baseline per question.

    Returns

    - `accuracy`, by type, a type of `TYPES` without rows included, with their mean (`macro`) over the types that have
      rows; with `majority`, beside always giving the type's most frequent training answer, and the question's own;
    - `jaccard`, the mean partial credit of the types whose answers may be lists, where there are any;

    each with its 95% bootstrap interval (`vlm_recipes.eval.metrics.statistics`). Raises ValueError for lists of
    different lengths and unknown types.
    """
    lengths = {len(predictions), len(references), len(types)}
    if len(lengths) > 1:
        raise ValueError(f"{len(predictions)} predictions, {len(references)} references, {len(types)} types")
    right = right_answers(predictions, references, types)
    constant: dict[str, list[float]] = {}
    if majority is not None:
        answers = list(map(majority.of_type, types))
        constant["baseline"] = right_answers(answers, references, types)
        if questions is not None and majority.by_question:
            answers = [majority.by_question.get(tidy(question), "") for question in questions]
            constant["question_baseline"] = right_answers(answers, references, types)
    accuracy = replace(
        average(right, groups, **constant),
        macro=macro_average(right, types, groups, **constant),
        groups=by_class(right, types, TYPES, groups, **constant),
    )
    partial = [jaccard(*row) for row in zip(predictions, references, types, strict=True)]
    some = {"jaccard": replace(average(partial, groups), partial=True)} if set(partial) - {None} else {}
    return Scores(len(right), {"accuracy": accuracy, **some})


def right_answers(predictions: Sequence[str], references: Sequence[str], types: Sequence[str]) -> list[float]:
    """1 for each answer that is right, else 0; arguments as for `type_accuracy`."""
    return [float(is_right(*row)) for row in zip(predictions, references, types, strict=True)]
