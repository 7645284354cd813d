"""How an experiment is evaluated: one prompt, one way to answer, one metric, while it trains and at its end."""

from collections.abc import Callable
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
        collator: rows -> prompts (`prompt_only=True`).
        metric: `(answers, rows without images) -> Scores`. Answers are texts, with `ask` dicts.
        score: `(answers, rows without images)` -> each row's share in the headline; None where it does not count.
        headline: the metric's most important number; the report's gallery is sorted by its scores.
        max_new_tokens: longest answer in tokens.
        reference: row -> the right answer, in the form that answers have.
        question: row -> what is asked, as text for people.
        draw: `(image, row, answer) -> image` with the answer drawn on it; None for answers that are text only.
        keep: columns that go into `predictions.jsonl`, too.
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

    collator: Callable[[list[Row]], dict[str, torch.Tensor]]
    metric: Callable[[list[Answer], list[Row]], Scores]
    score: Callable[[list[Answer], list[Row]], list[float | None]]
    headline: str
    max_new_tokens: int
    reference: Callable[[Row], Answer] = lambda row: row["answer"]
    question: Callable[[Row], str] = lambda row: row.get("question", "")
    draw: Callable[[Image.Image, Row, Answer], Image.Image] | None = None
    keep: tuple[str, ...] = ()
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

        With `compare`, an evaluation that constrains answers also lets the model answer freely. Each number then has
        its `free` one, the headline and its groups the paired difference `gain` (constrained minus free, with its
        interval over images), and the rows `free_prediction` and `free_score`.
        """
        plain = without_images(rows)
        answers = self.answer(model, rows)
        scores, metrics = self.score(answers, plain), self.metric(answers, plain)
        predictions = [
            {
                "id": row["id"],
                "prediction": answer,
                "reference": self.reference(row),
                "score": score,
                **{key: row[key] for key in self.keep},
            }
            for answer, score, row in zip(answers, scores, plain, strict=True)
        ]
        if compare and (self.constrain is not None or self.closed):
            free = self.answer(model, rows, constrained=False)
            free_scores, free_metrics = self.score(free, plain), self.metric(free, plain)
            for prediction, answer, score in zip(predictions, free, free_scores, strict=True):
                prediction |= {"free_prediction": answer, "free_score": score}
            gains = [score - free for score, free in zip(scores, free_scores, strict=True)]
            images, groups = [row["image_id"] for row in plain], [self.group(row) for row in plain if self.group]
            by_group = by_class(gains, groups, sorted(set(groups)), images) if groups else {}
            gain = {self.headline: replace(average(gains, images), groups=by_group)}
            numbers = {name: _beside(own, free_metrics[name], gain.get(name)) for name, own in metrics.items()}
            metrics = Scores(metrics.n, numbers)
        return metrics, predictions


def _beside(number: Number, free: Number | None, gain: Number | None) -> Number:
    """The number, and those of its groups, with what belongs to each of the others."""
    groups = {
        name: _beside(own, free.groups.get(name), gain and gain.groups.get(name))
        for name, own in number.groups.items()
    }
    macro = number.macro and replace(number.macro, free=free.macro)
    return replace(number, free=free, gain=gain, macro=macro, groups=groups)


def text_of(answer: Answer) -> str:
    """What an answer says, without whatever else it is."""
    return answer if isinstance(answer, str) else answer["text"]
