"""How sentences with a keyword are evaluated."""

from dataclasses import replace
from typing import Any

from ..rows.conventions import Row
from .evaluation import Evaluation
from .metrics.baselines import Majority
from .metrics.number import Scores
from .metrics.statistics import average, by_class
from .metrics.text import keyword_scores, text_metrics


def keyword_evaluation(
    collator: Any, max_new_tokens: int, majority: Majority | None = None, groups: tuple[str, ...] = (), **settings
) -> Evaluation:
    """An `Evaluation` of rows with `question`, `answer`, `short_answer`, `image_id` and `kind`: sentences.

    The metrics are `keyword_accuracy`, in all and by kind, and `text_metrics`; with `majority`, from
    `majority_answers` of the training rows, its baseline is giving the most frequent answer of each kind, or of all
    where training has none of it.
    """

    def score(answers: list[str], rows: list[Row]) -> list[float]:
        return keyword_scores(answers, [row["short_answer"] for row in rows])

    def metric(answers: list[str], rows: list[Row]) -> Scores:
        references, images, own_kinds = ([row[key] for row in rows] for key in ("answer", "image_id", "kind"))
        scores, constant = score(answers, rows), None
        if majority is not None:
            constant = score([majority.of_type(kind) for kind in own_kinds], rows)
        known = [kind for kind in groups if kind in own_kinds]
        by_kind = by_class(scores, own_kinds, known, images, baseline=constant)
        accuracy = replace(average(scores, images, baseline=constant), groups=by_kind, partial=True)
        return text_metrics(answers, references, groups=images) | {"keyword_accuracy": accuracy}

    return Evaluation(
        collator=collator,
        metric=metric,
        score=score,
        headline="keyword_accuracy",
        max_new_tokens=max_new_tokens,
        keep=("image_id", "question", "kind", "short_answer"),
        blind=majority,
        groups=groups,
        group=lambda row: row["kind"],
        also=("token_f1",),
        **settings,
    )
