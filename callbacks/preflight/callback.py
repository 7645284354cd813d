"""What one wants to know before the first hour is spent: the rows, the model, and a step on the longest batch."""

from collections.abc import Mapping, Sequence
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import Trainer, TrainerCallback

from ...eval.evaluation import Evaluation
from ...eval.report.check import Check, save_checks
from ...eval.report.data.page import write_data_page
from ..label_audit import collator_of
from ..without_trace import same_randomness
from .batches import inspect_batches
from .lora import check_lora
from .model import Expected, check_best, check_steps, check_trainable
from .rows import (
    check_answers,
    check_baselines,
    check_constraints,
    check_coordinates,
    check_rows,
    check_shared_images,
)


class PreflightError(ValueError):
    """The run would come to nothing; the message says why."""


class PreflightDone(Exception):
    """All was inspected, and no more was asked for."""


class PreflightCallback(TrainerCallback):
    """Check rows and model as training begins: print a line each, keep them, and stop what would be vain.

    Of the rows: sizes, images shared by training and evaluation, the ceiling of known answers, baselines, closed sets
    of answers, coordinates, labels and token lengths. Of the model: what trains, and of the Trainer's own step on the
    longest batch of those inspected first loss, seconds, memory, graphs that frozen parts keep, and gradients. It
    draws no random number and changes no weight. The lines go into `preflight.json`, pictures of the rows into
    `data.html`, both in the output folder. Raises `PreflightError` where a line stops.

    Args:
        trainer: the Trainer this is added to.
        parts: split -> rows with `id` and `image_id`, the training part first; without it only batches are inspected.
        evaluation: scores the baselines.
        expected: what is stated about the training.
        rejected: rows refused at load, `{split, id, reason}`.
        title: of the page about the data.
        only: raise `PreflightDone` in the end instead of training.
    """

    def __init__(
        self,
        trainer: Trainer,
        parts: Mapping[str, Dataset] | None = None,
        evaluation: Evaluation | None = None,
        expected: Expected | None = None,
        rejected: Sequence[Mapping[str, Any]] = (),
        title: str = "Training",
        only: bool = False,
    ):
        self.trainer = trainer
        self.parts, self.evaluation, self.rejected, self.title = parts, evaluation, rejected, title
        self.expected, self.only = expected or Expected(), only
        self.checks: list[Check] = []

    def on_train_begin(self, args, state, control, model, train_dataloader, processing_class, **kwargs):
        self.checks.clear()
        of_rows: list[Any] = [self._of_rows() if PartialState().is_main_process else None]
        self._say(*broadcast_object_list(of_rows)[0])
        if self.evaluation is not None and self.parts and "validation" in self.parts:
            self._say(*filter(None, [check_best(args, self.evaluation, self.parts["validation"])]))
        with same_randomness():
            rows, collator = train_dataloader.dataset, collator_of(train_dataloader)
            checks, batch, what, shown = inspect_batches(
                rows, collator, model, processing_class, args.per_device_train_batch_size
            )
        of_model = check_trainable(model, self.expected), check_lora(model, self.expected)
        self._say(*checks, *filter(None, of_model))
        if not self._stopping():
            self._say(*check_steps(self.trainer, batch, state.max_steps, what, self.expected))
        if PartialState().is_main_process:
            save_checks(args.output_dir, self.checks)
            if self.parts is not None:
                write_data_page(args.output_dir, title=self.title, parts=self.parts, checks=self.checks, **shown)
        if stopping := self._stopping():
            raise PreflightError("the preflight stops this run: " + "; ".join(map(str, stopping)))
        if self.only:
            raise PreflightDone

    def _say(self, *checks: Check) -> None:
        self.checks += checks
        for check in checks:
            PartialState().print(check, flush=True)

    def _stopping(self) -> list[Check]:
        return [check for check in self.checks if check.status == "stop"]

    def _of_rows(self) -> list[Check]:
        if self.parts is None:
            return []
        checks = [check_rows(self.parts, self.rejected)]
        checks += [check_shared_images(self.parts), check_answers(self.parts)]
        checks += [check_coordinates(self.parts, self.expected.doubt)]
        if self.evaluation is not None:
            checks += [*check_baselines(self.parts, self.evaluation), check_constraints(self.parts, self.evaluation)]
        return [check for check in checks if check is not None]
