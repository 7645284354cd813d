"""How free answers are evaluated: text metrics, beside what is said without looking."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from ..rows.conventions import Row
from .evaluation import Evaluation
from .metrics.baselines import Majority, majority_answers
from .metrics.number import Number, Scores
from .metrics.statistics import by_class
from .metrics.text import lowered, text_metrics, token_scores


def text_majority(answers: Sequence[str], types: Sequence[str]) -> Majority:
    """The most frequent of a training set's answers, in all and by type, compared as `lowered`."""
    return majority_answers(list(map(lowered, answers)), [[kind] for kind in types])


def text_evaluation(
    collator: Any, max_new_tokens: int, majority: Majority | None = None, groups: Sequence[str] = (), **settings
) -> Evaluation:
    """An `Evaluation` of rows with `question`, `answer`, `image_id`, `question_type` and, if known, `closed`.

    The metric is `text_metrics`, with intervals over images; with `majority`, from `text_majority` of the training
    rows, the baseline is its overall answer given to every question, and there is `exact_match_of_majority_per_type`.

    Args:
        groups: types of questions of which there is a `token_f1`, too, beside that of the type's own majority answer.
        settings: further arguments of `Evaluation`.
    """

    def score(answers: list[str], rows: list[Row]) -> list[float]:
        pairs = zip(answers, [row["answer"] for row in rows], strict=True)
        return [token_scores(lowered(said), lowered(true))[2] for said, true in pairs]

    def metric(answers: list[str], rows: list[Row]) -> Scores:
        references, images = ([row[key] for row in rows] for key in ("answer", "image_id"))
        types = [row["question_type"] for row in rows] if groups or majority else []
        closed = [row["closed"] for row in rows] if any("closed" in row for row in rows) else None
        metrics, of_types = text_metrics(answers, references, closed, images), None
        if majority is not None:
            of_types = [majority.of_type(kind) for kind in types]
            blind = text_metrics([majority.overall] * len(rows), references, closed)
            of_type = Number(text_metrics(of_types, references, closed)["exact_match"].value, len(rows))
            beside = {name: replace(number, baseline=blind[name].value) for name, number in metrics.items()}
            metrics = metrics | beside | {"exact_match_of_majority_per_type": of_type}
        if groups:
            constant = None if of_types is None else score(of_types, rows)
            known = [kind for kind in groups if kind in types]
            by_type = by_class(score(answers, rows), types, known, images, baseline=constant)
            metrics |= {"token_f1": replace(metrics["token_f1"], groups=by_type)}
        return metrics

    return Evaluation(
        collator=collator,
        metric=metric,
        score=score,
        headline="token_f1",
        max_new_tokens=max_new_tokens,
        keep=("image_id", "question", "question_type", "closed"),
        blind=majority,
        groups=tuple(groups),
        group=(lambda row: row["question_type"]) if groups else None,
        **settings,
    )


def conversation(row: Row) -> list[tuple[str, str]]:
    """Who says what before a chat row's last turn, for people; pictures by their place among the row's."""
    numbers, turns = count(1), []
    for turn in row["messages"][:-1]:
        parts = [part["text"] if part["type"] == "text" else f"[picture {next(numbers)}]" for part in turn["content"]]
        turns.append((turn["role"], "\n".join(parts)))
    return turns
