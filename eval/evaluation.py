"""How an experiment is evaluated: one prompt, one way to answer, one metric, while it trains and at its end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import datasets
import torch
from PIL import Image
from transformers import PreTrainedModel, TrainingArguments

from ..rows.conventions import Row
from .generation.constraints import Constraint
from .generation.generate import Answer, Ask, generate, require_prompts, without_images
from .generation.kept import KeptAnswers
from .generation.workers import SameWorkers
from .metrics.number import Number, Scores, beside
from .metrics.statistics import average, by_class
from .sampling import chosen, evenly_spread


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
        shown: `(row, answer)` -> the answer's text, for people.
        draw: `(image, row, answer) -> image` with the answer drawn on it; None for answers that are text only.
        keep: columns that go into `predictions.jsonl`, too, where rows have them: all that scores are made of.
        read: `(row, answer)` -> what was read out of the answer, for `predictions.jsonl`.
        restore: a line of `predictions.jsonl` -> the columns that make its row again, and the answer.
        blind: what is said without looking, of the training rows (`vlm_recipes.eval.metrics.baselines`).
        groups: the names of `group`, in the order in which the report shows them.
        group: row -> the group, of which the headline has a number, too.
        class_pairs: `(row, answer)` -> what counts in the confusion table of its group: pairs of a true class and the
            one answered, with None for a box that is invented or missed; no pair where there are no classes.
        constrain: row -> what its answer may be (`vlm_recipes.eval.generation.constraints`), None where anything.
        ask: how a model answers with more than text, see `vlm_recipes.eval.generation.generate.generate`.
        closed: `ask` chooses from a closed set; freely, the model answers by its own `generate`.
        baseline: whose number the headline's baseline is, in words.
        also: further metrics that stand beside the headline, over time and for free answers.
        workers: of the data loader, where the same rows are answered again and again.
    """

    collator: Callable[[list[Row]], dict[str, torch.Tensor]] | None
    metric: Callable[[list[Answer], list[Row]], Scores]
    score: Callable[[list[Answer], list[Row]], list[float | None]]
    headline: str
    max_new_tokens: int
    reference: Callable[[Row], Answer] = lambda row: row["answer"]
    question: Callable[[Row], str | list[tuple[str, str]]] = lambda row: row.get("question", "")
    shown: Callable[[Row, Answer], str] = lambda row, answer: text_of(answer)
    draw: Callable[[Image.Image, Row, Answer], Image.Image] | None = None
    keep: tuple[str, ...] = ()
    read: Callable[[Row, Answer], Row] = lambda row, answer: {}
    restore: Callable[[Row], tuple[Row, Answer]] = lambda line: ({"answer": line["reference"]}, line["prediction"])
    blind: Any = None
    groups: tuple[str, ...] = ()
    group: Callable[[Row], str] | None = None
    class_pairs: Callable[[Row, Answer], list[tuple[str | None, str | None]]] | None = None
    constrain: Callable[[Row], Constraint | None] | None = None
    ask: Ask | None = None
    closed: bool = False
    baseline: str = "the most frequent answer's"
    also: tuple[str, ...] = ()
    batch_size: int = 8
    num_workers: int = 0
    workers: SameWorkers | None = None
    autocast: torch.dtype | None = None
    generation_kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises `ValueError` for a collator that shows the answers."""
        require_prompts(self.collator)

    def as_trained(self, training: TrainingArguments) -> "Evaluation":
        """The same evaluation with the batch size, workers and mixed precision of a training run."""
        autocast = torch.bfloat16 if training.bf16 else torch.float16 if training.fp16 else None
        return replace(
            self,
            batch_size=training.per_device_eval_batch_size,
            num_workers=training.dataloader_num_workers,
            autocast=autocast,
        )

    def answer(
        self, model: PreTrainedModel, rows: Any, constrained: bool = True, kept: KeptAnswers | None = None
    ) -> list[Answer]:
        """The model's answers to `rows`, in their order, on every process; if `constrained`, to what is allowed.

        With `kept`, those that are there are not asked for, and others are kept as they come.
        """
        constraints, plain = None, without_images(rows)
        if constrained and self.constrain is not None:
            constraints = [self.constrain(row) for row in plain]
        if kept is not None:
            asked = (self.max_new_tokens, self.autocast, constrained, self.generation_kwargs)
            prompts = (repr(self.collator.processor), self.collator.processor.chat_template)
            kept = kept.of("", plain, asked, model.generation_config.to_dict(), prompts)
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
            kept=kept,
            workers=self.workers,
            **self.generation_kwargs,
        )

    def __call__(
        self, model: PreTrainedModel, rows: Any, compare: int = 0, kept: KeptAnswers | None = None
    ) -> tuple[Scores, list[Row]]:
        """Return the metrics, and one `{id, prediction, reference, score, …}` per row in the order of `rows`.

        A row without an `id` is called by its place.
        An evaluation that constrains answers also lets the model answer `compare` of the rows, evenly spread, freely,
        see `scored`. `kept` is as in `answer`; free answers have files of their own.
        """
        plain = without_images(rows)
        answers, free = self.answer(model, rows, kept=kept), None
        if compare and (self.constrain is not None or self.closed):
            again = evenly_spread(len(plain), compare)
            own = self.answer(model, chosen(rows, again), constrained=False, kept=kept and kept.of("free"))
            freely = dict(zip(again, own, strict=True))
            free = [freely.get(i) for i in range(len(plain))]
        metrics, scored = self.scored(plain, answers, free)
        predictions = [
            {"id": row.get("id", i), "prediction": answer, "reference": self.reference(row), **own}
            | self.read(row, answer)
            | {key: row[key] for key in self.keep if key in row}
            for i, (row, answer, own) in enumerate(zip(plain, answers, scored, strict=True))
        ]
        return metrics, predictions

    def require_columns(self, rows: Any) -> None:
        """Score one right answer a kind of row; raises `ValueError` where it lacks a column that is read of it."""
        most = 1 if isinstance(rows, datasets.Dataset) else len(rows)  # a table's rows are alike
        plain = without_images(chosen(rows, range(min(len(rows), most))))
        kinds = [_Columns(row) for row in {frozenset(row): row for row in plain}.values()]
        for part in (*([row] for row in kinds), kinds):  # and together, as they will be scored
            self.scored(part, [self.reference(row) for row in part], None)

    def scored(
        self, rows: list[Row], answers: list[Answer], free: list[Answer | None] | None
    ) -> tuple[Scores, list[Row]]:
        """The metrics of answers that are there, and each row's `score`.

        With `free` answers, too, None for a row that was not asked so, each number has the `free` one of those rows,
        the headline and its groups the `gain` over them on the same rows, and these have `free_prediction` and
        `free_score`.
        """
        scores, metrics = self.score(answers, rows), self.metric(answers, rows)
        own = [{"score": score} for score in scores]
        if free is not None:
            again = [i for i, answer in enumerate(free) if answer is not None]
            freely, asked = [free[i] for i in again], [rows[i] for i in again]
            free_metrics, others = self.metric(freely, asked), [None] * len(rows)
            for i, answer, others[i] in zip(again, freely, self.score(freely, asked), strict=True):
                own[i] |= {"free_prediction": answer, "free_score": others[i]}
            gain = {self.headline: self.gain(scores, others, rows)}
            numbers = {name: beside(one, free_metrics.get(name), gain.get(name)) for name, one in metrics.items()}
            metrics = Scores(metrics.n, numbers)
        return metrics, own

    def gain(self, scores: Sequence[float | None], others: Sequence[float | None], rows: list[Row]) -> Number:
        """How much higher the scores are than others of the same rows, with its interval over images, and by group."""
        gains = [None if None in pair else pair[0] - pair[1] for pair in zip(scores, others, strict=True)]
        images, groups = [row.get("image_id") for row in rows], [self.group(row) for row in rows if self.group]
        by_group = by_class(gains, groups, sorted(set(groups)), images) if groups else {}
        return replace(average(gains, images), groups=by_group)


class _Columns(dict):
    """A row that says which of its columns is missing."""

    def __missing__(self, name: str) -> Any:
        raise ValueError(f"the rows to answer have no column {name!r}, only {', '.join(map(repr, self))}")


def text_of(answer: Answer) -> str:
    """What an answer says, without whatever else it is."""
    return answer if isinstance(answer, str) else answer["text"]
