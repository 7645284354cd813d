"""How answers from a closed set are evaluated: one label for each question."""

from collections.abc import Sequence
from typing import Any

from ..rows.conventions import Row
from .evaluation import Evaluation
from .generation.generate import Ask
from .metrics.baselines import Majority
from .metrics.classification import classification_metrics
from .metrics.number import Scores


def closed_set_evaluation(
    collator: Any,
    max_new_tokens: int,
    labels: Sequence[str],
    choose: Ask,
    majority: Majority | None = None,
    groups: tuple[str, ...] = (),
    **settings,
) -> Evaluation:
    """An `Evaluation` of rows with `question`, `answer`, `image_id`, `kind` and `hops`: SSG-VQA's classification.

    The metric is `classification_metrics`, in all, by kind and by hops. At the end the model also answers freely.

    Args:
        labels: the closed set.
        choose: how the model chooses one of them, such as `vlm_recipes.eval.generation.label_tree.choose_label`.
        majority: for the baselines, from `majority_answers` of the training rows.
        groups: the kinds and hops in the order in which the report shows them.
        settings: further arguments of `Evaluation`.
    """

    def metric(answers: list[str], rows: list[Row]) -> Scores:
        references, images, kinds, hops = (
            [row[key] for row in rows] for key in ("answer", "image_id", "kind", "hops")
        )
        return classification_metrics(
            answers, references, labels=labels, types=types_of(kinds, hops), groups=images, majority=majority
        )

    def score(answers: list[str], rows: list[Row]) -> list[float]:
        if odd := [row["answer"] for row in rows if not isinstance(row["answer"], str)]:  # 1 is no "1"
            raise TypeError(f"the answer {odd[0]!r} is no text")
        return [float(said == row["answer"] and said in labels) for said, row in zip(answers, rows, strict=True)]

    return Evaluation(
        collator=collator,
        metric=metric,
        score=score,
        headline="accuracy",
        max_new_tokens=max_new_tokens,
        keep=("image_id", "question", "kind", "hops"),
        blind=majority,
        groups=groups,
        group=lambda row: row["kind"],
        class_pairs=lambda row, answer: [(row["answer"], answer)] if row["answer"] in labels else [],
        ask=choose,
        closed=True,
        also=("macro_f1",),
        **settings,
    )


def types_of(kinds: Sequence[str], hops: Sequence[str]) -> list[tuple[str, ...]]:
    """Each row's kind and hops; once where both are the same."""
    return [tuple(dict.fromkeys(both)) for both in zip(kinds, hops, strict=True)]
