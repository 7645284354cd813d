"""How an experiment is evaluated: one prompt, one way to answer, one metric, while it trains and at its end."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel, TrainingArguments

from eval.generate import generate, without_images

Row = dict[str, Any]


@dataclass
class Evaluation:
    """Answer rows and score the answers.

    Args:
        collator: rows -> prompts (`prompt_only=True`).
        metric: `(answers, rows without images) -> {name: number}`, with `n`, intervals and `baseline_…`.
        headline: the metric's most important number; the report's gallery is sorted by it.
        max_new_tokens: longest answer in tokens.
        reference: row -> the right answer as text.
        question: row -> what is asked, as text for people.
        draw: `(image, row, answer) -> image` with the answer drawn on it; None for answers that are text only.
        keep: columns that go into `predictions.jsonl`, too.
    """

    collator: Callable[[list[Row]], dict[str, torch.Tensor]]
    metric: Callable[[list[str], list[Row]], dict[str, float]]
    headline: str
    max_new_tokens: int
    reference: Callable[[Row], str]
    question: Callable[[Row], str] = lambda row: ""
    draw: Callable[[Image.Image, Row, str], Image.Image] | None = None
    keep: tuple[str, ...] = ()
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

    def answer(self, model: PreTrainedModel, rows: Any) -> list[str]:
        """The model's answers to `rows`, in their order, on every process."""
        return generate(
            model,
            rows,
            self.collator,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            autocast=self.autocast,
            **self.generation_kwargs,
        )

    def __call__(self, model: PreTrainedModel, rows: Any) -> tuple[dict[str, float], list[Row]]:
        """Return the metrics, and one `{id, prediction, reference, score, …}` per row in the order of `rows`."""
        answers, plain = self.answer(model, rows), without_images(rows)
        predictions = [
            {
                "id": row["id"],
                "prediction": answer,
                "reference": self.reference(row),
                "score": self.metric([answer], [row]).get(self.headline),
                **{key: row[key] for key in self.keep},
            }
            for answer, row in zip(answers, plain, strict=True)
        ]
        return self.metric(answers, plain), predictions
