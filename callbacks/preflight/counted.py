"""The Trainer's own step on a batch, counted and not computed: bytes by what they are, and operations."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_any, tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count
from transformers import Trainer

from ...models.upstream import as_on_a_gpu
from .allocations import ACTIVATIONS, GRADIENTS, WEIGHTS, CountAllocations
from .shapes import batch_of_shapes, empty, tensors_of
from .stand_ins import STAND_INS, AutocastOfAGpu


@dataclass(frozen=True)
class Counted:
    """Bytes at the moment when there are most of them, by what they are, and operations of one batch.

    Weights are all that the model holds, with the batch.
    """

    weights: int
    gradients: int
    activations: int
    operations: int

    @property
    def peak(self) -> int:
        return self.weights + self.gradients + self.activations


class CountStep(CountAllocations):
    """Counts floating-point operations, too, of matrix products, convolutions and attention, two for each
    multiplication; among fake tensors `STAND_INS` are used."""

    def __init__(self, held: Iterable[torch.Tensor]):
        super().__init__(held)
        self.operations = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None) -> Any:
        named, name = named or {}, function.name().partition(".")[0]
        if name in STAND_INS and tree_any(_is_fake, arguments):
            with self:
                made = STAND_INS[name](*arguments, **named)
            if made is not NotImplemented:
                return made
        made = super().__torch_dispatch__(function, types, arguments, named)
        if _fills(made, (arguments, named)):
            made = empty(made.shape, made.dtype)
            self._count(made, ACTIVATIONS)
        if name in ATTENTION:
            self.operations += ATTENTION[name](*arguments)
        elif name == "bitsandbytes::int8_linear_matmul":
            self.operations += 2 * made.numel() * arguments[0].shape[-1]
        elif (count := flop_registry.get(function.overloadpacket)) is not None:
            self.operations += count(*arguments, **named, out_val=made)
        return made


def _forward_attention(queries, keys, values, *_, **__) -> int:
    return sdpa_flop_count(queries.shape, keys.shape, values.shape)


def _backward_attention(gradient, queries, keys, values, *_, **__) -> int:
    return sdpa_backward_flop_count(gradient.shape, queries.shape, keys.shape, values.shape)


ATTENTION = {  # the fused one of a CPU, which PyTorch does not count
    "aten::_scaled_dot_product_flash_attention_for_cpu": _forward_attention,
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward": _backward_attention,
}


def count_step(trainer: Trainer, batch: Mapping[str, Any], on_a_gpu: bool = True) -> Counted:
    """What a step of `trainer` on `batch` would take, whose model is of shapes: on a GPU, or on this CPU.

    Gradients are there before the step where the run accumulates those of several batches. To be called as training
    begins, when the Trainer has made its model ready; the optimizer is not looked at.
    """
    model, shaped = trainer.model, batch_of_shapes(batch)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    held = [*tensors_of(model), *_tensors_in(shaped)]
    with as_on_a_gpu(on_a_gpu), _autocast(on_a_gpu), CountStep(held) as counted:
        for weight in trained:
            weight.register_post_accumulate_grad_hook(lambda one: counted.call(one.grad, GRADIENTS))
            if trainer.args.gradient_accumulation_steps > 1:
                weight.grad = torch.zeros_like(weight)
                counted.call(weight.grad, GRADIENTS)
        [inputs], items = trainer.get_batch_samples(iter([shaped]), 1, trainer.args.device)
        trainer.training_step(trainer.model_wrapped, inputs, items)
    bytes_of = {kind: counted.parts[kind] for kind in (WEIGHTS, GRADIENTS, ACTIVATIONS)}
    return Counted(**bytes_of, operations=counted.operations)


def count_evaluation(trainer: Trainer, batch: Mapping[str, Any], on_a_gpu: bool = True) -> int:
    """Bytes that the loss of an evaluation's batch takes beside the weights, the batch among them.

    To be called after `count_step`: the gradients are let go, as they are after a step.
    """
    model, shaped = trainer.model.eval(), batch_of_shapes(batch)
    model.zero_grad()
    with as_on_a_gpu(on_a_gpu), _autocast(on_a_gpu), CountStep(tensors_of(model)) as counted, torch.no_grad():
        for tensor in _tensors_in(shaped):
            counted.call(tensor, ACTIVATIONS)
        trainer.prediction_step(trainer.model_wrapped, shaped, prediction_loss_only=True)
    return counted.parts[ACTIVATIONS]


def _tensors_in(batch: Mapping[str, Any]) -> list[torch.Tensor]:
    return [one for one in tree_leaves(batch) if isinstance(one, torch.Tensor)]


def _autocast(on_a_gpu: bool) -> AbstractContextManager:
    return AutocastOfAGpu() if on_a_gpu else nullcontext()


def _is_fake(value: Any) -> bool:
    return isinstance(value, FakeTensor)


def _fills(made: Any, given: Any) -> bool:
    """Whether numbers were made of no tensor: something to be filled, perhaps with fake ones."""
    is_tensor = isinstance(made, torch.Tensor) and not isinstance(made, FakeTensor)
    return is_tensor and made.is_floating_point() and not tree_any(lambda one: isinstance(one, torch.Tensor), given)
