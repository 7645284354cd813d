"""A model or a batch as its shapes alone: fake tensors, which have a size and a number format and take no memory.

They say that they are on the CPU, so that autocast and the fused attention are those of a run. What holds values that
models read, such as grids and positions, stays as it is.
"""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map_only


class Shapes(FakeTensorMode):
    """Does not look for a GPU at each operation, as fake tensors do otherwise, for a fifth of the time.

    Nor does it put a guard in the place of one that is not there, for which autograd would start a thread: a process
    that is forked later could compute no gradient.
    """

    avoid_device_init = False


FAKE = Shapes(allow_non_fake_inputs=True)


def empty(size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A fake tensor; float16 becomes bfloat16, as large, in which a CPU's autocast computes."""
    with FAKE:
        return torch.empty(size, dtype=torch.bfloat16 if dtype == torch.float16 else dtype)


def batch_of_shapes(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Floating-point tensors as shapes; numbers of tokens and sizes keep their values."""
    return tree_map_only(
        torch.Tensor, lambda one: empty(one.shape, one.dtype) if one.is_floating_point() else one, dict(batch)
    )


def to_shapes(network: nn.Module) -> None:
    """Put fake tensors in the place of all parameters and buffers, one for what modules share; layers of 4 or 8 bits
    are packed as bitsandbytes packs them."""
    packed = {module.weight: module for module in network.modules() if quantised(module)}
    made: dict[int, torch.Tensor] = {}
    for module in network.modules():
        own = chain(*(list(kind(recurse=False)) for kind in (module.named_parameters, module.named_buffers)))
        for name, tensor in own:
            if id(tensor) not in made:
                made[id(tensor)] = empty(tensor.shape, tensor.dtype)
                if isinstance(tensor, nn.Parameter):
                    made[id(tensor)] = nn.Parameter(made[id(tensor)], tensor.requires_grad)
            setattr(module, name, made[id(tensor)])
    for weight, module in packed.items():
        _pack(module, weight)


def quantised(module: nn.Module) -> str | None:
    """ "4 bits" or "8 bits" for a layer of bitsandbytes."""
    kinds = {"Linear4bit": "4 bits", "Linear8bitLt": "8 bits"}
    ours = type(module).__module__.startswith("bitsandbytes.")
    return kinds.get(type(module).__name__) if ours else None


def _pack(module: nn.Module, weight: nn.Parameter) -> None:
    """A weight of bitsandbytes' own class cannot be fake: a plain one carries what its layers read of it."""
    import bitsandbytes.functional

    whole = empty((module.out_features, module.in_features), torch.bfloat16)
    if quantised(module) == "4 bits":
        carried = {name: getattr(weight, name) for name in ("compress_statistics", "quant_type", "quant_storage")}
        bits, carried["quant_state"] = bitsandbytes.functional.quantize_4bit(whole, **carried)
    else:
        bits, scales, _ = bitsandbytes.functional.int8_vectorwise_quant(whole)
        carried = {"CB": bits, "SCB": scales}
    module.weight = nn.Parameter(bits, requires_grad=False)
    vars(module.weight).update(carried)


def tensors_of(network: nn.Module) -> Iterator[torch.Tensor]:
    """All that a model holds: parameters, buffers, and the scales of packed ones."""
    scales: list[Any] = []
    for module in filter(quantised, network.modules()):
        state = getattr(module.weight, "quant_state", None)
        if state is not None:
            scales += [vars(state), vars(state.state2) if state.nested else None]
        else:
            scales += [getattr(module.weight, "SCB", None), module.state.SCB]  # it moves with the first step
    tensors = chain(network.parameters(), network.buffers(), tree_leaves(scales))
    return (one for one in tensors if isinstance(one, torch.Tensor))
