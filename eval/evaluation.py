"""How an experiment is evaluated: one prompt, one way to answer, one metric, while it trains and at its end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel, TrainingArguments

from ..rows.conventions import Row
from .generation.constraints import Constraint
from .generation.generate import Answer, Ask, generate, without_images
from .metrics.number import Number, Scores
from .metrics.statistics import average, by_class


@dataclass
class Evaluation:
    """Answer rows and score the answers.

    Args:
        collator: rows -> prompts (`prompt_only=True`); None where answers are only scored.
        metric: `(answers, rows without images) -> Scores`. Answers are texts, with `ask` dicts.
        score: `(answers, rows without images)` -> each row's share in the headline; None where it does not count.
        headline: the metric's most important number; the report's gallery is sorted by its scores.
        max_new_tokens: longest answer in tokens.
        reference: row -> the right answer, in the form that answers have.
        question: row -> what is asked, for people: a text, or a conversation, who says what before the answer.
        draw: `(image, row, answer) -> image` with the answer drawn on it; None for answers that are text only.
        keep: columns that go into `predictions.jsonl`, too, where rows have them: all that scores are made of.
        read: `(row, answer)` -> what was read out of the answer, for `predictions.jsonl`.
        restore: a line of `predictions.jsonl` -> the columns that make its row again, and the answer.
        blind: what is said without looking, of the training rows (`vlm_recipes.eval.metrics.baselines`).
        groups: the names of `group`, in the order in which the report shows them.
        group: row -> the group, of which the headline has a number, too.
        answer_class: `(row, answer)` -> the class that the answer counts as in the confusion table of its group; None
            where there are no classes.
        constrain: row -> what its answer may be (`vlm_recipes.eval.generation.constraints`), None where anything.
        ask: how a model answers with more than text, see `vlm_recipes.eval.generation.generate.generate`.
        closed: `ask` chooses from a closed set; freely, the model answers by its own `generate`.
        baseline: whose number the headline's baseline is, in words.
        also: further metrics that stand beside the headline, over time and for free answers.
    """

    collator: Callable[[list[Row]], dict[str, torch.Tensor]] | None
    metric: Callable[[list[Answer], list[Row]], Scores]
    score: Callable[[list[Answer], list[Row]], list[float | None]]
    headline: str
    max_new_tokens: int
    reference: Callable[[Row], Answer] = lambda row: row["answer"]
    question: Callable[[Row], str | list[tuple[str, str]]] = lambda row: row.get("question", "")
    draw: Callable[[Image.Image, Row, Answer], Image.Image] | None = None
    keep: tuple[str, ...] = ()
    read: Callable[[Row, Answer], Row] = lambda row, answer: {}
    restore: Callable[[Row], tuple[Row, Answer]] = lambda line: ({"answer": line["reference"]}, line["prediction"])
    blind: Any = None
    groups: tuple[str, ...] = ()
    group: Callable[[Row], str] | None = None
    answer_class: Callable[[Row, str], str | None] | None = None
    constrain: Callable[[Row], Constraint | None] | None = None
    ask: Ask | None = None
    closed: bool = False
    baseline: str = "the most frequent answer's"
    also: tuple[str, ...] = ()
    batch_size: int = 8
    num_workers: int = 0
    autocast: torch.dtype | None = None
    generation_kwargs: dict[str, Any] = field(default_factory=dict)

    def as_trained(self, training: TrainingArguments) -> "Evaluation":
        """The same evaluation with the batch size, workers and mixed precision of a training run."""
        autocast = torch.bfloat16 if training.bf16 else torch.float16 if training.fp16 else None
        return replace(
            self,
            batch_size=training.per_device_eval_batch_size,
            num_workers=training.dataloader_num_workers,
            autocast=autocast,
        )

    def answer(self, model: PreTrainedModel, rows: Any, constrained: bool = True) -> list[Answer]:
        """The model's answers to `rows`, in their order, on every process; if `constrained`, to what is allowed."""
        constraints = None
        if constrained and self.constrain is not None:
            constraints = [self.constrain(row) for row in without_images(rows)]
        return generate(
            model,
            rows,
            self.collator,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            autocast=self.autocast,
            constraints=constraints,
            ask=None if self.closed and not constrained else self.ask,
            **self.generation_kwargs,
        )

    def __call__(self, model: PreTrainedModel, rows: Any, compare: bool = False) -> tuple[Scores, list[Row]]:
        """Return the metrics, and one `{id, prediction, reference, score, …}` per row in the order of `rows`.

        With `compare`, an evaluation that constrains answers also lets the model answer freely, see `scored`.
        """
        plain = without_images(rows)
        answers, free = self.answer(model, rows), None
        if compare and (self.constrain is not None or self.closed):
            free = self.answer(model, rows, constrained=False)
        metrics, scored = self.scored(plain, answers, free)
        predictions = [
            {"id": row["id"], "prediction": answer, "reference": self.reference(row), **own}
            | self.read(row, answer)
            | {key: row[key] for key in self.keep if key in row}
            for row, answer, own in zip(plain, answers, scored, strict=True)
        ]
        return metrics, predictions

    def scored(self, rows: list[Row], answers: list[Answer], free: list[Answer] | None) -> tuple[Scores, list[Row]]:
        """The metrics of answers that are there, and each row's `score`.

        With `free` answers, too, each number has its `free` one, the headline and its groups the `gain` over them,
        and the rows have `free_prediction` and `free_score`.
        """
        scores, metrics = self.score(answers, rows), self.metric(answers, rows)
        own = [{"score": score} for score in scores]
        if free is not None:
            free_scores, free_metrics = self.score(free, rows), self.metric(free, rows)
            for row, answer, score in zip(own, free, free_scores, strict=True):
                row |= {"free_prediction": answer, "free_score": score}
            gain = {self.headline: self.gain(scores, free_scores, rows)}
            numbers = {name: beside(one, free_metrics[name], gain.get(name)) for name, one in metrics.items()}
            metrics = Scores(metrics.n, numbers)
        return metrics, own

    def gain(self, scores: Sequence[float | None], others: Sequence[float | None], rows: list[Row]) -> Number:
        """How much higher the scores are than others of the same rows, with its interval over images, and by group."""
        gains = [None if None in pair else pair[0] - pair[1] for pair in zip(scores, others, strict=True)]
        images, groups = [row["image_id"] for row in rows], [self.group(row) for row in rows if self.group]
        by_group = by_class(gains, groups, sorted(set(groups)), images) if groups else {}
        return replace(average(gains, images), groups=by_group)


def beside(number: Number, free: Number | None, gain: Number | None) -> Number:
    """The number, and those of its groups, with what belongs to each of the others."""
    groups = {
        name: beside(own, free and free.groups.get(name), gain and gain.groups.get(name))
        for name, own in number.groups.items()
    }
    macro = number.macro and replace(number.macro, free=free and free.macro)
    return replace(number, free=free, gain=gain, macro=macro, groups=groups)


def text_of(answer: Answer) -> str:
    """What an answer says, without whatever else it is."""
    return answer if isinstance(answer, str) else answer["text"]
