"""How sentences with a keyword are evaluated."""

from typing import Any

from ..rows.conventions import Row
from .evaluation import Evaluation
from .metrics.baselines import Majority
from .metrics.statistics import by_class, means
from .metrics.text import keyword_accuracy, keyword_scores, text_metrics


def keyword_evaluation(
    collator: Any,
    max_new_tokens: int,
    majority: Majority | None = None,
    groups: tuple[str, ...] = (),
    **settings,
) -> Evaluation:
    """An `Evaluation` of rows with `question`, `answer`, `short_answer`, `image_id` and `kind`: sentences.

    The metrics are `keyword_accuracy`, in all and by kind, and `text_metrics`; with `majority`, from
    `majority_answers` of the training rows, also the keyword accuracy of giving the most frequent answer of each kind.
    """

    def metric(answers: list[str], rows: list[Row]) -> dict[str, float]:
        keywords, references, images, own_kinds = (
            [row[key] for row in rows] for key in ("short_answer", "answer", "image_id", "kind")
        )
        metrics = keyword_accuracy(answers, keywords, images)
        if len(rows) < 2:
            return metrics
        metrics |= text_metrics(answers, references, groups=images) | {"keyword_accuracy_n": len(rows)}
        known = [kind for kind in groups if kind in own_kinds]
        metrics |= by_class("keyword_accuracy", keyword_scores(answers, keywords), own_kinds, known, images)
        if majority is not None:
            constant = [majority.by_type.get(kind, "") for kind in own_kinds]
            metrics |= means("baseline_keyword_accuracy", keyword_scores(constant, keywords), own_kinds, known)
        return metrics

    return Evaluation(
        collator=collator,
        metric=metric,
        headline="keyword_accuracy",
        max_new_tokens=max_new_tokens,
        keep=("image_id", "question", "kind"),
        groups=groups,
        group=lambda row: row["kind"],
        also=("token_f1",),
        **settings,
    )
