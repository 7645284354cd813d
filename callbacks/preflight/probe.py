"""The Trainer's own step on one batch, of which nothing stays: loss, seconds, memory, and where gradients go."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import nn
from torch.utils._pytree import tree_leaves
from transformers import Trainer

from ..without_trace import same_loss_scale, same_model, same_randomness, twin
from .allocations import CountAllocations

BACKED_OFF = 2.0**-4  # a loss scale that overflowed, as often as it takes; the Trainer halves it at each step


@dataclass
class Probe:
    """What the steps showed: loss, seconds of a batch, peak memory in GiB, gradient norms by parameter.

    The memory is that of parameters, buffers, batch, gradients and activations: on a GPU what PyTorch had allocated,
    elsewhere the sum of the tensors, not of the process. `holding_graph` names the largest frozen modules which keep a
    graph though nothing before them trains.
    """

    loss: float
    seconds: float
    memory: float
    gradients: dict[str, float | None]
    holding_graph: list[str]


def probe(trainer: Trainer, batch: Mapping[str, Any], backward: bool = True) -> Probe:
    """Have `trainer` take `batch` as a step by itself, through its own `training_step`; no optimizer steps.

    So the loss is what this Trainer makes of the model, in the run's number format, with its fused head, loss scale
    and checkpointing. A first pass warms up and gives loss and gradients; the second is timed, with the gradients held
    where the run accumulates them; without a GPU a third one is counted. Without `backward`: the loss alone.
    Weights, buffers, modes, random states, loss scale and the Trainer's own counters are left as they were, gradients
    as None. Raises `torch.OutOfMemoryError` as training would.
    """
    trainer, model, wrapped = twin(trainer), trainer.model, trainer.model_wrapped
    with same_randomness(), same_model(wrapped), same_loss_scale(trainer):
        if not backward:
            wrapped.eval()
            with torch.no_grad(), trainer.compute_loss_context_manager():
                loss = trainer.compute_loss(wrapped, send_to_device(dict(batch), trainer.args.device))
            return Probe(loss.item(), 0.0, 0.0, {}, [])
        on_gpu = trainer.args.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        with _holding_graph(model) as holding:
            loss, norms = _first_step(trainer, batch)
        _end_of_batch(trainer)
        start = _now(on_gpu)
        _step(trainer, batch)
        seconds = _now(on_gpu) - start
        if on_gpu:
            memory = torch.cuda.max_memory_allocated()
        else:
            _end_of_batch(trainer)
            weights = list(model.parameters())
            held = [*weights, *model.buffers(), *tree_leaves(dict(batch)), *(weight.grad for weight in weights)]
            with CountAllocations(tensor for tensor in held if isinstance(tensor, torch.Tensor)) as counted:
                _step(trainer, batch)
            memory = counted.peak
    return Probe(loss, seconds, memory / 2**30, norms, holding)


def _first_step(trainer: Trainer, batch: Mapping[str, Any]) -> tuple[float, dict[str, float | None]]:
    """The loss and each parameter's gradient norm."""
    scaler, scale = trainer.accelerator.scaler, 1.0
    while True:
        loss = _step(trainer, batch)
        scale = scaler.get_scale() if scaler is not None else 1.0
        norms = {
            name: None if parameter.grad is None else parameter.grad.float().norm().item() / scale
            for name, parameter in trainer.model.named_parameters()
            if parameter.requires_grad
        }
        if scale <= 1 or all(norm is None or math.isfinite(norm) for norm in norms.values()):
            break
        trainer.model.zero_grad()
        scaler.load_state_dict(scaler.state_dict() | {"scale": scale * BACKED_OFF})
    return loss, norms


def _step(trainer: Trainer, batch: Mapping[str, Any]) -> float:
    """Forward and backward as in training; returns the loss. Processes keep their gradients to themselves."""
    batch = send_to_device(dict(batch), trainer.args.device)
    # Of the class: a callback may keep the Trainer from taking batches.
    [batch], items = type(trainer).get_batch_samples(trainer, iter([batch]), 1, trainer.args.device)
    with trainer.accelerator.no_sync(trainer.model_wrapped):
        return trainer.training_step(trainer.model_wrapped, batch, items).item()


def _end_of_batch(trainer: Trainer) -> None:
    """Gradients stay where the run accumulates them."""
    if trainer.args.gradient_accumulation_steps == 1:
        trainer.model.zero_grad()


def _now(on_gpu: bool) -> float:
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def _holding_graph(model: nn.Module) -> Iterator[list[str]]:
    """The frozen parts that are found, meanwhile, to make a graph of what has none."""
    holding: list[str] = []

    def watch(name: str, module, arguments, named, output) -> None:
        if name not in holding and _needs_gradient(output) and not _needs_gradient((arguments, named)):
            holding.append(name)

    with ExitStack() as hooks:
        for name, module in frozen_parts(model):
            hooks.enter_context(module.register_forward_hook(partial(watch, name), with_kwargs=True))
        yield holding


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
