"""Gradient norms before clipping, in total and by group of parameters."""

import logging
import math
import re
from collections.abc import Callable, Mapping
from itertools import takewhile
from typing import Any

import torch
import transformers
from torch import nn

from ..models.parts import parts_of

logger = logging.getLogger(__name__)

# The first pattern found in a parameter's name decides its group.
LORA = {"lora_a": r"lora_(embedding_)?A", "lora_b": r"lora_(embedding_)?B"}
# And its kind, in a model that does not itself say what its language model and its vision tower are.
KINDS = {
    "mask_decoder": r"mask_decoder|mask_projection",
    "projector": r"merger|projector|language_projection|qformer|query_tokens",
    "vision": r"visual|vision|(^|\.)video\.",
    "text_encoder": r"text_encoder",
    "language": r"",
}
QUIET_STEPS = 3  # LoRA's B starts at zero, so A's first gradient is zero by design


class GradNormCallback(transformers.TrainerCallback):
    """Log `grad_norm/<group>`: L2 norms of the gradient as it was before clipping (the Trainer logs their total).

    Also `grad_norm/clipped_share` (of the logged steps so far, 0–1) and `tensors_without_gradient` (trainable
    ones that got none; DeepSpeed gives those zeros, so there they are the ones whose gradient is all zero). Warns, by
    name, of a group whose gradient stays zero. Reads gradients only on steps that log (with
    `logging_strategy="epoch"` on every step, for any may be an epoch's last); right under gradient accumulation,
    mixed precision, DDP, FSDP2 and DeepSpeed ZeRO.

    The Trainer calls back after clipping. All groups are scaled by one factor (clipping's; under DeepSpeed the loss
    scale), so the logged total before clipping, divided by the total seen, brings every group back. DeepSpeed steps
    and forgets the gradients before the Trainer calls back; there its optimizer's `step` is wrapped until the training
    ends. (Where an error may end it and the optimizer lives on, call `close`.)

    The groups are `lora_a`, `lora_b`, and of what else trains `language`, `vision` and `projector`, the parts that a
    model of transformers itself names (`vlm_recipes.models.parts`); of others, what `KINDS` finds in the names.

    Args:
        trainer: the Trainer this is added to; its `log` reaches the trackers.
        groups: name -> regular expression searched in parameter names, the first match counts, instead of these.
    """

    def __init__(self, trainer: "transformers.Trainer", groups: Mapping[str, str] | None = None):
        self.trainer = trainer
        self.patterns = groups or None
        self._squares: dict[str, torch.Tensor] | None = None
        self._without_gradient = 0
        self._wrapped: tuple[Any, Callable] | None = None  # DeepSpeed's optimizer and its own `step`

    def on_train_begin(self, args, state, control, model, **kwargs):
        groups = parameters_by_group(model, self.patterns)
        self.parameters = {group: list(parameters.values()) for group, parameters in groups.items()}
        measured = [log for log in state.log_history if "grad_norm/clipped_share" in log]  # by a run that is resumed
        self.logged = len(measured)
        self.clipped = round(measured[-1]["grad_norm/clipped_share"] * self.logged) if measured else 0
        norms = {group: [log.get(f"grad_norm/{group}") for log in reversed(measured)] for group in self.parameters}
        self.quiet = {group: len(list(takewhile(lambda norm: norm == 0, last))) for group, last in norms.items()}
        self.is_deepspeed = self.trainer.is_deepspeed_enabled
        self.close()
        if self.is_deepspeed:
            optimizer = self.trainer.model_wrapped.optimizer
            step = optimizer.step

            def measured_step(*positional, **named):
                if self._will_log(args, state):
                    self._measure()
                return step(*positional, **named)

            optimizer.step, self._wrapped = measured_step, (optimizer, step)

    def close(self, *event, **kwargs) -> None:
        """Give DeepSpeed's optimizer its own `step` back."""
        if self._wrapped:
            optimizer, step = self._wrapped
            optimizer.step, self._wrapped = step, None

    on_train_end = close

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if not self.is_deepspeed and self._will_log(args, state):
            self._measure()

    def _will_log(self, args, state) -> bool:
        step = state.global_step + 1
        if args.logging_strategy == "steps" and step % state.logging_steps == 0:
            return True
        return args.logging_strategy == "epoch" or (step == 1 and args.logging_first_step)

    @torch.no_grad()
    def _measure(self) -> None:
        self._squares, self._without_gradient = {}, 0
        for group, parameters in self.parameters.items():
            squares = [self._square(parameter) for parameter in parameters]
            found = [square for square in squares if square is not None]
            self._without_gradient += len(squares) - len(found)
            self._squares[group] = torch.stack(found).sum() if found else torch.zeros(())

    def _square(self, parameter: nn.Parameter) -> torch.Tensor | None:
        """The squared norm of a parameter's whole gradient, None if it has none."""
        if self.is_deepspeed:
            from deepspeed.utils import safe_get_full_grad

            gradient = safe_get_full_grad(parameter)
            return gradient.float().pow(2).sum() if gradient is not None and gradient.any() else None
        if parameter.grad is None:
            return None
        square = parameter.grad.float().pow(2).sum()
        return square.full_tensor() if hasattr(square, "full_tensor") else square  # FSDP2 shards gradients

    def on_log(self, args, state, control, logs, **kwargs):
        if self._squares is None or "grad_norm" not in logs:
            return
        norms = {group: square.sqrt().item() for group, square in self._squares.items()}
        self._squares = None
        seen, total = sum(norm**2 for norm in norms.values()) ** 0.5, logs["grad_norm"]
        factor = total / seen if seen > 0 else 1.0
        overflow = not math.isfinite(total)  # of the fp16 loss scale: this step is skipped
        self.logged += 1
        self.clipped += bool(args.max_grad_norm and total > args.max_grad_norm and not overflow)
        values = {f"grad_norm/{group}": norm * factor for group, norm in norms.items()}
        values["grad_norm/clipped_share"] = self.clipped / self.logged
        self.trainer.log(values | {"tensors_without_gradient": self._without_gradient})
        for group, norm in norms.items() if not overflow else ():
            self.quiet[group] = self.quiet[group] + 1 if norm == 0 else 0
            if self.quiet[group] == QUIET_STEPS:
                logger.warning("the gradient of %r has been zero at %d logged steps in a row", group, QUIET_STEPS)


def parameters_by_group(
    model: nn.Module, groups: Mapping[str, str] | None = None
) -> dict[str, dict[str, nn.Parameter]]:
    """Group -> its parameters that train, by name; "other" are those that no pattern of `groups` is found in.

    Without `groups`: LoRA's two, and kinds of parts.
    """
    kind = kinds_of(model) if groups is None else lambda name: "other"
    found: dict[str, dict[str, nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            patterns = LORA if groups is None else groups
            group = next((group for group, pattern in patterns.items() if re.search(pattern, name)), None)
            found.setdefault(group or kind(name), {})[name] = parameter
    return found


def kinds_of(model: nn.Module) -> Callable[[str], str]:
    """A parameter's name -> the kind of part it is in: "language", "vision", "projector", or another of `KINDS`."""
    if parts := parts_of(model):
        return parts.kind_of
    return lambda name: next(kind for kind, pattern in KINDS.items() if re.search(pattern, name))
