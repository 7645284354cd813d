"""How rows with typed short answers are evaluated: constrained by their type, scored by type."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from accelerate import PartialState

from ..rows.conventions import Row
from .evaluation import Evaluation
from .generation.constraints import AnswerSetError, Constraint, numbers
from .metrics.baselines import Majority
from .metrics.number import Scores
from .metrics.question_types import QuestionType
from .metrics.type_accuracy import right_answers, type_accuracy
from .metrics.typed_answers import TYPES, canonical_text


def constraints_by_type(answer_ids: Callable[[str], Sequence[int]]) -> Callable[[QuestionType], Constraint | None]:
    """`question_type -> Constraint`, one for all rows of a type; None where anything may be said.

    Anything may be said, too, where a model cannot be kept to the answers, such as two that have the same tokens: a
    line says so once, and why.
    """

    @cache
    def constraint(kind: QuestionType) -> Constraint | None:
        if kind.name == "open_ended":
            return None
        try:
            return Constraint([*(numbers(kind.units) if kind.units else []), *kind.choices], answer_ids, kind.several)
        except AnswerSetError as error:
            PartialState().print(f"answers to a question of the type {kind.name} are left free: {error}", flush=True)
            return None

    return constraint


def typed_evaluation(
    collator: Any, max_new_tokens: int, majority: Majority | None = None, constrain: bool = True, **settings
) -> Evaluation:
    """An `Evaluation` of rows with `question`, `answer`, `image_id` and a `QuestionType`'s columns.

    Args:
        collator: a `ChatCollator` with `prompt_only=True`.
        majority: for the baselines, from `typed_majority` of the training rows.
        constrain: keep each answer to what its question's type allows.
        settings: further arguments of `Evaluation`.
    """
    constraints = constraints_by_type(collator.answer_ids) if constrain and collator else None

    def metric(answers: list[str], rows: list[Row]) -> Scores:
        references, types, questions, images = (
            [row[key] for row in rows] for key in ("answer", "question_type", "question", "image_id")
        )
        return type_accuracy(answers, references, types, questions, images, majority)

    def score(answers: list[str], rows: list[Row]) -> list[float]:
        return right_answers(answers, *([row[key] for row in rows] for key in ("answer", "question_type")))

    def class_pairs(row: Row, answer: str) -> list[tuple[str, str]]:
        kind = row["question_type"]
        return [] if kind == "open_ended" else [(canonical_text(row["answer"], kind), canonical_text(answer, kind))]

    return Evaluation(
        collator=collator,
        metric=metric,
        score=score,
        headline="accuracy",
        max_new_tokens=max_new_tokens,
        keep=("image_id", "question", "question_type"),
        blind=majority,
        groups=TYPES,
        group=lambda row: row["question_type"],
        class_pairs=class_pairs,
        constrain=(lambda row: constraints(QuestionType.of(row))) if constraints else None,
        **settings,
    )
