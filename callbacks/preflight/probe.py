"""Two forward and backward passes that change nothing: loss, seconds, memory, and where gradients go."""

import platform
import random
import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import nn
from transformers import Trainer

STEPS = 2  # the first one warms up


@dataclass
class Probe:
    """What two steps showed: loss, seconds of the second step, peak memory in GiB, gradient norms by parameter.

    `holding_graph` names the largest frozen modules which keep a graph though nothing before them trains.
    """

    loss: float
    seconds: float
    memory: float
    gradients: dict[str, float | None]
    holding_graph: list[str]


def probe(trainer: Trainer, model: nn.Module, batch: Mapping[str, Any], backward: bool = True) -> Probe:
    """Pass `batch` through the unwrapped `model` twice, forward and, with `backward`, back; gradients end as None.

    Dropout is on and checkpointing as in training; random states are left as they were. Raises
    `torch.OutOfMemoryError` as training would.
    """
    batch = send_to_device(dict(batch), trainer.args.device)
    was_training, holding = model.training, []

    def watch(name: str, module, arguments, named, output) -> None:
        if _needs_gradient(output) and not _needs_gradient((arguments, named)):
            holding.append(name)

    model.train(backward)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with same_randomness(), torch.set_grad_enabled(backward), ExitStack() as hooks:
        for name, module in frozen_parts(model):
            hooks.enter_context(module.register_forward_hook(partial(watch, name), with_kwargs=True))
        for _ in range(STEPS):
            start = _now()
            with trainer.accelerator.autocast():
                loss = model(**batch)["loss"]
            if backward:
                model.zero_grad()
                loss.backward()
            seconds = _now() - start
    norms = {
        name: None if parameter.grad is None else parameter.grad.float().norm().item()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and backward
    }
    model.zero_grad()
    model.train(was_training)
    return Probe(loss.item(), seconds, peak_memory(), norms, list(dict.fromkeys(holding)))


def peak_memory() -> float:
    """This process's peak memory in GiB: the GPU's where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if platform.system() == "Darwin" else 1)
    return kilobytes / 2**20


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def same_randomness() -> Iterator[None]:
    """Every random generator is afterwards as it was before, so that inspecting changes no training."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
        yield
    random.setstate(python)
    np.random.set_state(numpy)


def frozen_parts(model: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The largest modules with parameters of which none trains; embeddings are left out (see below).

    Checkpointing with LoRA asks the embeddings' output for a gradient, so that it reaches the first block.
    """
    trains = [parameter.requires_grad for parameter in model.parameters()]
    if trains and not any(trains) and not isinstance(model, nn.Embedding):
        yield name, model
    elif trains:
        for child_name, child in model.named_children():
            yield from frozen_parts(child, f"{name}.{child_name}" if name else child_name)


def _needs_gradient(value: Any) -> bool:
    if isinstance(value, Mapping | list | tuple):
        return any(map(_needs_gradient, value.values() if isinstance(value, Mapping) else value))
    return isinstance(value, torch.Tensor) and value.requires_grad
