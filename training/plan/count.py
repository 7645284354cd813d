"""A run of which one step is counted, where it would have begun to train."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from ...callbacks.frozen_parts import FrozenPartsCallback
from ...callbacks.label_audit import collator_of
from ...callbacks.preflight.batches import inspect_batches
from ...callbacks.preflight.counted import Counted, count_evaluation, count_step
from ...callbacks.preflight.optimizers import is_paged, optimizer_states, step_needs
from ...callbacks.preflight.shapes import to_shapes
from ...callbacks.preflight.stand_ins import AutocastOfAGpu
from ...models.upstream import quantised_bits
from .gpus import ALLOWANCE, SHARE, Gpu

GIB = 2**30
PAGED = "paged_adamw_8bit"


class PlanError(ValueError):
    """Nothing can be counted; the message says why."""


class Planned(Exception):
    """A step was counted, and nothing is to be trained."""

    def __init__(self, step: "Step"):
        super().__init__()
        self.step = step


@dataclass(frozen=True)
class Step:
    """A step of the optimizer on the longest batch of those inspected, and the run that it is of.

    Args:
        counted: one batch of it.
        what: names that batch for people.
        evaluation: bytes that the loss on the longest batch of an evaluation takes, of `evaluated` rows; 0 without.
        optimizer: its name; `states` are bytes, of `paged` ones in the main memory, and `stepping` what its step has
            beside them.
        paged_states, paged_stepping: those of `PAGED`.
        bits: of quantised weights.
        batches: that make a step; `steps` make the run.
    """

    counted: Counted
    what: str
    evaluation: int
    evaluated: int
    optimizer: str
    states: int
    stepping: int
    paged_states: int
    paged_stepping: int
    bits: int | None
    batches: int
    steps: int

    @property
    def paged(self) -> bool:
        return is_paged(self.optimizer)

    def with_paged_optimizer(self) -> "Step":
        return replace(self, optimizer=PAGED, states=self.paged_states, stepping=self.paged_stepping)

    @property
    def lasting(self) -> float:
        """GiB that are there all the time."""
        return (self.counted.weights + (0 if self.paged else self.states)) / GIB + ALLOWANCE

    @property
    def needed(self) -> float:
        """GiB of a card's memory at the peak: of a batch, of the optimizer's own step, or of an evaluation."""
        beside = max(self.counted.gradients + self.counted.activations, self.stepping, self.evaluation)
        return self.lasting + beside / GIB

    @property
    def operations(self) -> int:
        """Of a step, if all its batches are as long."""
        return self.counted.operations * self.batches

    def hours(self, gpu: Gpu, in_16_bits: bool, steps: float | None = None) -> float:
        """For the run's steps, or for so many, at most."""
        peak = gpu.teraflops[0 if in_16_bits else 1] * 1e12
        return self.operations * (self.steps if steps is None else steps) / (SHARE * peak) / 3600


def count_instead(trainer: Trainer, on_a_gpu: bool = True) -> None:
    """Raises `Planned` where `trainer`, whose model is on the meta device, would have begun to train.

    What it does before that is done: the optimizer, checkpointing, autocast. Raises `PlanError`.
    """
    if optimizer_states(name := _optimizer(trainer.args), trainer.model) is None:
        raise PlanError(f"--optim {name}: what it keeps is not known to --plan; it knows AdamW, as adamw_torch_fused")
    if trainer.args.gradient_checkpointing and on_a_gpu:  # a backward computes again as the forward did
        again = {"use_reentrant": False, "context_fn": lambda: (nullcontext(), AutocastOfAGpu())}
        for name in ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"):  # as newer ones call it
            if hasattr(trainer.args, name):
                setattr(trainer.args, name, (getattr(trainer.args, name) or {}) | again)
    to_shapes(trainer.model)
    trainer.accelerator.device_placement = False  # shapes cannot be moved
    for callback in (FrozenPartsCallback(trainer), CountCallback(trainer, on_a_gpu)):
        trainer.add_callback(callback)
    trainer.train()


class CountCallback(TrainerCallback):
    def __init__(self, trainer: Trainer, on_a_gpu: bool):
        self.trainer, self.on_a_gpu = trainer, on_a_gpu

    def on_train_begin(self, args, state, control, model, train_dataloader, processing_class, **kwargs):
        rows, collator = train_dataloader.dataset, collator_of(train_dataloader)
        checks, batch, what, _ = inspect_batches(
            rows, collator, model, processing_class, args.per_device_train_batch_size
        )
        if checks[0].status == "stop":
            raise PlanError(checks[0].found)
        name, counted = _optimizer(args), count_step(self.trainer, batch, self.on_a_gpu)
        raise Planned(
            Step(
                counted=counted,
                what=what,
                evaluation=self._evaluation(args, model, processing_class),
                evaluated=args.per_device_eval_batch_size,
                optimizer=name,
                states=optimizer_states(name, model) or 0,
                stepping=step_needs(name, model),
                paged_states=optimizer_states(PAGED, model) or 0,
                paged_stepping=step_needs(PAGED, model),
                bits=quantised_bits(model),
                batches=args.gradient_accumulation_steps,
                steps=state.max_steps,
            )
        )

    def _evaluation(self, args: TrainingArguments, model: PreTrainedModel, processing_class: Any) -> int:
        if getattr(args.eval_strategy, "value", args.eval_strategy) == "no":
            return 0
        loader = self.trainer.get_eval_dataloader()
        size = args.per_device_eval_batch_size
        _, batch, *_ = inspect_batches(loader.dataset, collator_of(loader), model, processing_class, size)
        return count_evaluation(self.trainer, batch, self.on_a_gpu)


def _optimizer(args: TrainingArguments) -> str:
    return str(getattr(args.optim, "value", args.optim))
