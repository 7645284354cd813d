"""To look at a training before it begins, and leave model, Trainer and random numbers as they were."""

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import Trainer


def twin(trainer: "Trainer") -> "Trainer":
    """A shallow copy that counts for itself, and takes a batch as a whole step of the optimizer."""
    twin = copy.copy(trainer)
    for name, value in vars(trainer).items():
        if name not in ("train_dataset", "eval_dataset"):
            setattr(twin, name, _renewed(value))
    twin.current_gradient_accumulation_steps = 1
    return twin


def _renewed(value: Any) -> Any:
    """Lists, dicts and tensors anew, however nested; of all else the same object."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        renewed = copy.copy(value)  # a defaultdict stays one
        renewed.update({key: _renewed(one) for key, one in value.items()})
        return renewed
    return [_renewed(one) for one in value] if type(value) is list else value


@contextmanager
def same_model(model: nn.Module) -> Iterator[None]:
    """Modes and buffers are afterwards as they were, and there are no gradients."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        model.zero_grad()
        for module, training in modes:
            module.training = training
        for buffer, before in buffers:
            buffer.copy_(before)


@contextmanager
def same_loss_scale(trainer: "Trainer") -> Iterator[None]:
    scaler = trainer.accelerator.scaler  # None but in float16
    before = scaler.state_dict() if scaler is not None else {}
    try:
        yield
    finally:
        if before:
            scaler.load_state_dict(before)


@contextmanager
def same_randomness() -> Iterator[None]:
    """Every random generator is afterwards as it was before, so that inspecting changes no training."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_initialized() else []):
        yield
    random.setstate(python)
    np.random.set_state(numpy)
