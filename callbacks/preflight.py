"""What one wants to know before the first hour is spent: the rows, the model, and two steps on the longest batch."""

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import pyarrow.compute as pc
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset, IterableDataset
from torch.utils.data import DataLoader
from transformers import ProcessorMixin, Trainer, TrainerCallback

from callbacks.label_audit import check_labels, collator_of, image_token_id
from callbacks.model_checks import Expected, check_trainable, check_two_steps
from callbacks.probe import same_randomness
from eval.checks import Check, save_checks
from eval.data_checks import check_answers, check_baselines, check_coordinates, check_rows, check_shared_images
from eval.evaluation import Evaluation

LOOKED_AT, EXTREME = 64, 8  # rows, and those with the most questions or pixels


class PreflightError(ValueError):
    """The run would come to nothing; the message says why."""


class PreflightDone(Exception):
    """All was looked at, and no more was asked for."""


class PreflightCallback(TrainerCallback):
    """Look at rows and model as training begins: print a line each, write `preflight.json`, stop what would be vain.

    Of the rows: sizes, images shared by training and evaluation, the ceiling of known answers, baselines, coordinates,
    labels and token lengths. Of the model: what trains, first loss, seconds and memory of two steps on the longest
    batch of those looked at, graphs that frozen parts keep, and gradients. It draws no random number and changes no
    weight. Raises `PreflightError` where a line stops.

    Args:
        trainer: the Trainer this is added to.
        parts: split -> rows with `id` and `image_id`, the training part first; without it the rows are not looked at.
        evaluation: scores the baselines.
        expected: what is stated about the training.
        rejected: rows refused at load, `{split, id, reason}`.
        only: raise `PreflightDone` in the end instead of training.
    """

    def __init__(
        self,
        trainer: Trainer,
        parts: Mapping[str, Dataset] | None = None,
        evaluation: Evaluation | None = None,
        expected: Expected | None = None,
        rejected: Sequence[Mapping[str, Any]] = (),
        only: bool = False,
    ):
        self.trainer = trainer
        self.parts, self.evaluation, self.rejected = parts, evaluation, rejected
        self.expected = expected or Expected()
        self.only = only
        self.checks: list[Check] = []

    def on_train_begin(self, args, state, control, model, train_dataloader, processing_class, **kwargs):
        self.checks.clear()
        of_rows: list[Any] = [self._of_rows() if PartialState().is_main_process else None]
        for check in broadcast_object_list(of_rows)[0]:
            self._say(check)
        with same_randomness():
            checks, batch, what = self._of_batches(args, model, train_dataloader, processing_class)
        for check in [*checks, check_trainable(model, self.expected)]:
            self._say(check)
        if not self._stopping():
            for check in check_two_steps(self.trainer, model, batch, state.max_steps, what, self.expected):
                self._say(check)
        if PartialState().is_main_process:
            save_checks(args.output_dir, self.checks)
        if stopping := self._stopping():
            raise PreflightError("the preflight stops this run: " + "; ".join(map(str, stopping)))
        if self.only:
            raise PreflightDone

    def _say(self, check: Check) -> None:
        self.checks.append(check)
        PartialState().print(check, flush=True)

    def _stopping(self) -> list[Check]:
        return [check for check in self.checks if check.status == "stop"]

    def _of_rows(self) -> list[Check]:
        if self.parts is None:
            return []
        checks = [check_rows(self.parts, self.rejected), check_shared_images(self.parts), check_answers(self.parts)]
        checks += [check_coordinates(self.parts)]
        checks += check_baselines(self.parts, self.evaluation) if self.evaluation is not None else []
        return [check for check in checks if check is not None]

    def _of_batches(
        self, args, model, train_dataloader: DataLoader, processing_class: ProcessorMixin
    ) -> tuple[list[Check], Mapping[str, Any], str]:
        """Labels and lengths of rows looked at one by one; the batch of the longest of them, and its name."""
        collator, rows = collator_of(train_dataloader), train_dataloader.dataset
        if isinstance(rows, IterableDataset | torch.utils.data.IterableDataset):
            rows = list(islice(rows, LOOKED_AT))
        processor = getattr(collator, "processor", processing_class)
        ends = [processor.tokenizer.eos_token_id]
        lengths: dict[int, int] = {}
        try:
            for i in _promising(rows):
                batch = collator([rows[i]])
                lengths[i] = batch["input_ids"].shape[-1]
                if getattr(collator, "train_on", "assistant") == "assistant":
                    name = f"row {rows[i].get('id', i)!r}"
                    check_labels(batch["labels"][0], processor.tokenizer, ends, image_token_id(processor), name)
            longest = sorted(lengths, key=lambda i: -lengths[i])[: args.per_device_train_batch_size]
            batch = collator([rows[i] for i in longest])
        except ValueError as error:  # names its row
            return [Check("labels", "stop", str(error))], {}, ""
        what = f"{len(longest)} rows of up to {lengths[longest[0]]:,} tokens, the longest of {len(lengths):,}"
        labels = Check("labels", "pass", f"{len(lengths):,} rows train on answers that end, and on nothing else")
        return [labels, _check_lengths(list(lengths.values()), collator, model)], batch, what


def _promising(rows: Any) -> list[int]:
    """Numbers of rows to look at: some evenly spread, those with the most questions, those with the largest images."""
    spread = range(0, len(rows), math.ceil(len(rows) / LOOKED_AT))
    most: list[int] = []
    if isinstance(rows, Dataset):
        table = rows.select_columns([name for name in ("queries", "image_size") if name in rows.column_names])
        columns = table.with_format("arrow")[:]
        if "queries" in table.column_names:
            numbers = pc.list_value_length(columns["queries"]).to_numpy()
            most += numbers.argsort(kind="stable")[-EXTREME:].tolist()
        if "image_size" in table.column_names:
            sides = [pc.list_element(columns["image_size"], i) for i in (0, 1)]
            most += pc.multiply(*sides).to_numpy().argsort(kind="stable")[-EXTREME:].tolist()
    return list(dict.fromkeys([*spread, *most]))


def _check_lengths(lengths: Sequence[int], collator: Any, model: Any) -> Check:
    longest = max(lengths)
    config = model.config.get_text_config()
    budget = getattr(collator, "max_length", None) or getattr(config, "max_position_embeddings", None)
    found = f"up to {longest:,}, {sum(lengths) / len(lengths):,.0f} on average of {len(lengths):,} rows"
    numbers = {"longest": longest, "mean": sum(lengths) / len(lengths)} | ({"budget": budget} if budget else {})
    if budget is None:
        return Check("token lengths", "pass", found, numbers)
    over = sum(length > budget for length in lengths)
    found += f"; the budget is {budget:,}" + (f", and {over:,} rows are over it" if over else "")
    return Check("token lengths", "warn" if over else "pass", found, numbers)
