"""How free answers are evaluated: text metrics, beside what is said without looking."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..rows.conventions import Row
from .evaluation import Evaluation
from .metrics.baselines import Majority, majority_answers
from .metrics.number import Number, Scores
from .metrics.text import text_metrics, token_scores


def text_majority(answers: Sequence[str], types: Sequence[str]) -> Majority:
    """The most frequent of a training set's answers, in all and by type, compared lower-cased and stripped."""
    return majority_answers([answer.lower().strip() for answer in answers], [[kind] for kind in types])


def text_evaluation(collator: Any, max_new_tokens: int, majority: Majority | None = None, **settings) -> Evaluation:
    """An `Evaluation` of rows with `question`, `answer`, `image_id`, `question_type` and `closed`.

    The metric is `text_metrics`, with intervals over images; with `majority`, from `text_majority` of the training
    rows, the baseline is its overall answer given to every question, and there is `exact_match_of_majority_per_type`.
    `settings` are further arguments of `Evaluation`.
    """

    def metric(answers: list[str], rows: list[Row]) -> Scores:
        references, closed, images = ([row[key] for row in rows] for key in ("answer", "closed", "image_id"))
        metrics = text_metrics(answers, references, closed, images)
        if majority is None:
            return metrics
        blind = text_metrics([majority.overall] * len(rows), references, closed)
        per_type = text_metrics([majority.of_type(row["question_type"]) for row in rows], references, closed)
        of_type = Number(per_type["exact_match"].value, len(rows))
        beside = {name: replace(number, baseline=blind[name].value) for name, number in metrics.items()}
        return metrics | beside | {"exact_match_of_majority_per_type": of_type}

    def score(answers: list[str], rows: list[Row]) -> list[float]:
        pairs = zip(answers, [row["answer"] for row in rows], strict=True)
        return [token_scores(said.lower().strip(), true.lower().strip())[2] for said, true in pairs]

    return Evaluation(
        collator=collator,
        metric=metric,
        score=score,
        headline="token_f1",
        max_new_tokens=max_new_tokens,
        keep=("image_id", "question", "question_type", "closed"),
        blind=majority,
        **settings,
    )
