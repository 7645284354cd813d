"""How answers to questions about videos are evaluated: a label of a closed set, or a sentence with a keyword."""

from collections.abc import Sequence
from typing import Any

from eval.classification import ClassMajority, classification_metrics
from eval.evaluation import Evaluation, Row
from eval.generate import Ask
from eval.text import keyword_accuracy, text_metrics


def closed_set_evaluation(
    collator: Any,
    max_new_tokens: int,
    labels: Sequence[str],
    choose: Ask,
    majority: ClassMajority | None = None,
    groups: tuple[str, ...] = (),
    **settings,
) -> Evaluation:
    """An `Evaluation` of rows with `question`, `answer`, `image_id`, `kind` and `hops`: SSG-VQA's classification.

    The metric is `classification_metrics`, in all, by kind and by hops. At the end the model also answers freely.

    Args:
        collator: rows -> prompts.
        labels: the closed set.
        choose: how the model chooses one of them, such as `eval.label_tree.choose_label`.
        majority: for the baselines, from `class_majority` of the training rows.
        groups: the kinds and hops in the order in which the report shows them.
        settings: further arguments of `Evaluation`.
    """

    def metric(answers: list[str], rows: list[Row]) -> dict[str, float]:
        references, images = ([row[key] for row in rows] for key in ("answer", "image_id"))
        known = majority if len(rows) > 1 else None
        return classification_metrics(
            answers, references, labels=labels, types=types_of(rows), groups=images, majority=known
        )

    return Evaluation(
        collator=collator,
        metric=metric,
        headline="accuracy",
        max_new_tokens=max_new_tokens,
        label=lambda row, answer: answer if answer in labels else None,
        groups=groups,
        ask=choose,
        closed=True,
        also=("macro_f1",),
        **_of_questions(settings),
    )


def keyword_evaluation(
    collator: Any,
    max_new_tokens: int,
    majority: ClassMajority | None = None,
    groups: tuple[str, ...] = (),
    **settings,
) -> Evaluation:
    """An `Evaluation` of rows with `question`, `answer`, `short_answer`, `image_id` and `kind`: sentences.

    The metrics are `keyword_accuracy`, in all and by kind, and `text_metrics`; with `majority`, from
    `class_majority` of the training rows, also the keyword accuracy of giving the most frequent answer of each kind.
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
        groups=groups,
        also=("token_f1",),
        **_of_questions(settings),
    )


def types_of(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Each row's kind and hops; once where both are the same."""
    return [tuple(dict.fromkeys((row["kind"], row["hops"]))) for row in rows]


def _of_questions(settings: dict[str, Any]) -> dict[str, Any]:
    defaults = {
        "reference": lambda row: row["answer"],
        "question": lambda row: row["question"],
        "keep": ("image_id", "question", "kind"),
        "group": lambda row: row["kind"],
    }
    return {**defaults, **settings}
