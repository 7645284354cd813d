"""How free answers are evaluated: text metrics, beside what is said without looking."""

from collections.abc import Sequence
from typing import Any

from ..rows.conventions import Row
from .evaluation import Evaluation
from .metrics.baselines import Majority, majority_answers
from .metrics.text import text_metrics


def text_majority(answers: Sequence[str], types: Sequence[str]) -> Majority:
    """The most frequent of a training set's answers, in all and by type, compared lower-cased and stripped."""
    return majority_answers([answer.lower().strip() for answer in answers], [[kind] for kind in types])


def text_evaluation(collator: Any, max_new_tokens: int, majority: Majority | None = None, **settings) -> Evaluation:
    """An `Evaluation` of rows with `question`, `answer`, `image_id`, `question_type` and `closed`.

    The metric is `text_metrics`, with intervals over images; with `majority`, from `text_majority` of the training
    rows, also `baseline_<metric>`: its overall answer given to every question, and `exact_match_of_majority_per_type`.
    `settings` are further arguments of `Evaluation`.
    """

    def metric(answers: list[str], rows: list[Row]) -> dict[str, float]:
        references, closed, images = ([row[key] for row in rows] for key in ("answer", "closed", "image_id"))
        metrics = text_metrics(answers, references, closed, images)
        if majority is not None and len(rows) > 1:
            constant = text_metrics([majority.overall] * len(rows), references, closed)
            compared = [key for key in constant if not key.endswith(("_low", "_high", "_n")) and key != "n"]
            metrics |= {f"baseline_{key}": constant[key] for key in compared}
            per_type = text_metrics([majority.of_type(row["question_type"]) for row in rows], references, closed)
            metrics["exact_match_of_majority_per_type"] = per_type["exact_match"]
        return metrics

    return Evaluation(
        collator=collator,
        metric=metric,
        headline="token_f1",
        max_new_tokens=max_new_tokens,
        keep=("question", "question_type", "closed"),
        **settings,
    )
