"""How sentences with a keyword are evaluated."""

from typing import Any

from ..rows.conventions import Row
from .evaluation import Evaluation
from .metrics.baselines import Majority
from .metrics.text import keyword_accuracy, text_metrics


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
        keywords, references, images = ([row[key] for row in rows] for key in ("short_answer", "answer", "image_id"))
        metrics = keyword_accuracy(answers, keywords, images)
        if len(rows) < 2:
            return metrics
        metrics = {**text_metrics(answers, references, groups=images), **metrics}
        constant = [majority.by_type.get(row["kind"], "") if majority else "" for row in rows]
        for kind in ["", *groups]:
            of_kind = [i for i, row in enumerate(rows) if kind in ("", row["kind"])]
            if not of_kind:
                continue
            name = "keyword_accuracy" + f"_{kind}" * bool(kind)
            said, known, asked, given = ([part[i] for i in of_kind] for part in (answers, keywords, images, constant))
            own = keyword_accuracy(said, known, asked)
            metrics |= {key.replace("keyword_accuracy", name): own[key] for key in own if key != "n"}
            metrics[f"{name}_n"] = own["n"]
            if majority is not None:
                metrics[f"baseline_{name}"] = keyword_accuracy(given, known)["keyword_accuracy"]
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
