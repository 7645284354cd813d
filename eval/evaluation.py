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
from .metrics.statistics import by_class, summarize


@dataclass
class Evaluation:
    """Answer rows and score the answers.

    Args:
        collator: rows -> prompts (`prompt_only=True`).
        metric: `(answers, rows without images) -> {name: number}`, with `n`, intervals and `baseline_…`. Answers are
            texts, with `ask` dicts.
        headline: the metric's most important number; the report's gallery is sorted by it.
        max_new_tokens: longest answer in tokens.
        reference: row -> the right answer, in the form that answers have.
        question: row -> what is asked, as text for people.
        draw: `(image, row, answer) -> image` with the answer drawn on it; None for answers that are text only.
        keep: columns that go into `predictions.jsonl`, too.
        groups: the names of `group`, in the order in which the report shows them.
        group: row -> the group whose numbers the metric also gives, as `<headline>_<group>`.
        answer_class: `(row, answer)` -> the class that the answer counts as in the confusion table of its group; None
            where there are no classes.
        constrain: row -> what its answer may be (`vlm_recipes.eval.generation.constraints`), None where anything.
        ask: how a model answers with more than text, see `vlm_recipes.eval.generation.generate.generate`.
        closed: `ask` chooses from a closed set; freely, the model answers by its own `generate`.
        also: further metrics that stand beside the headline, over time and for free answers.
    """

    collator: Callable[[list[Row]], dict[str, torch.Tensor]]
    metric: Callable[[list[Answer], list[Row]], dict[str, float]]
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

    def __call__(self, model: PreTrainedModel, rows: Any, compare: bool = False) -> tuple[dict[str, float], list[Row]]:
        """Return the metrics, and one `{id, prediction, reference, score, …}` per row in the order of `rows`.

        With `compare`, an evaluation that constrains answers also lets the model answer freely. It adds each number
        of the headline, and of those in `also`, again as `free_…`, the paired difference `constrained_gain…`
        (constrained minus free, with its interval over images), and `free_prediction` and `free_score` to the rows.
        """
        plain = without_images(rows)
        answers = self.answer(model, rows)
        scores, metrics = self._scores(answers, plain), self.metric(answers, plain)
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
            free_scores, free_metrics = self._scores(free, plain), self.metric(free, plain)
            for prediction, answer, score in zip(predictions, free, free_scores, strict=True):
                prediction |= {"free_prediction": answer, "free_score": score}
            shown = [key for key in free_metrics if key.startswith(self.headline) or key in self.also]
            metrics |= {f"free_{key}": free_metrics[key] for key in shown}
            metrics |= self._gains(scores, free_scores, plain)
        return metrics, predictions

    def _scores(self, answers: list[Answer], rows: list[Row]) -> list[float | None]:
        return [self.metric([answer], [row]).get(self.headline) for answer, row in zip(answers, rows, strict=True)]

    def _gains(self, scores: list, free_scores: list, rows: list[Row]) -> dict[str, float]:
        """Constrained minus free, row by row, over all rows and over each group's."""
        gains = [score - free for score, free in zip(scores, free_scores, strict=True)]
        images = [row["image_id"] for row in rows]
        metrics = summarize({"constrained_gain": gains}, images)
        if self.group:
            of_row = [self.group(row) for row in rows]
            metrics |= by_class("constrained_gain", gains, of_row, sorted(set(of_row)), images)
        return metrics


def text_of(answer: Answer) -> str:
    """What an answer says, without whatever else it is."""
    return answer if isinstance(answer, str) else answer["text"]
