"""What stands in for operations that fake tensors cannot do, because a size or a path depends on values.

Each is called by the name of an operation, with its arguments, of which one is fake, and returns what it would, or
NotImplemented where the operation itself can do it. What it makes is counted.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_any, tree_map_only


def _picked(tensor: torch.Tensor, indices: list[torch.Tensor | None]) -> Any:
    """`tensor[mask]`, whose size depends on the mask, which has values."""
    if not any(one is not None and one.dtype == torch.bool for one in indices):
        return NotImplemented
    numbers: list[torch.Tensor | None] = []
    for one in indices:
        numbers += one.nonzero().unbind(1) if one is not None and one.dtype == torch.bool else [one]
    return torch.ops.aten.index.Tensor(tensor, numbers)


def _one(tensor: torch.Tensor) -> Any:
    """A value that is asked for is 1: a loss that is logged."""
    return 1.0 if tensor.is_floating_point() else tensor.dtype == torch.bool or 1


def _linear_in_4_bits(
    values, packed, shape, absmax, size, kind, bias=None, absmax_8bit=None, absmax_code=None, absmax_offset=None
) -> torch.Tensor:
    """Where there are many rows, bitsandbytes multiplies with a copy of the weight in the format of `values`."""
    if absmax_8bit is not None:
        absmax = torch.ops.bitsandbytes.dequantize_blockwise(absmax_8bit, absmax, absmax_code, 256, torch.float32)
    weight = torch.ops.bitsandbytes.dequantize_4bit(packed, absmax, size, kind, shape, values.dtype)
    rows = values.reshape(-1, values.shape[-1])
    made = torch.mm(rows, weight.t()) if bias is None else torch.addmm(bias, rows, weight.t())
    return made.view(*values.shape[:-1], weight.shape[0])


def _rows_in_8_bits(values: torch.Tensor, threshold: float = 0.0) -> Any:
    """No column has outliers, whose number depends on values; in a model that has learnt they are few."""
    return torch.ops.bitsandbytes.int8_vectorwise_quant(values) if threshold else NotImplemented


def _linear_in_8_bits(values, rows, weight, row_scales, scales, outliers=None, bias=None) -> Any:
    made = torch.ops.bitsandbytes.int8_scaled_mm(rows, weight, row_scales, scales, bias, values.dtype)
    return made, values.new_empty(0)


def _scaled_in_8_bits(rows, weight, row_scales, scales, bias=None, dtype=None) -> torch.Tensor:
    """Products of 8 bits are summed in 32."""
    whole = torch.ops.bitsandbytes.int8_linear_matmul(rows, weight)
    return torch.ops.bitsandbytes.int8_mm_dequant(whole, row_scales, scales, dtype, bias)


STAND_INS: dict[str, Callable[..., Any]] = {
    "aten::index": _picked,
    "aten::_local_scalar_dense": _one,
    "bitsandbytes::gemm_4bit": _linear_in_4_bits,
    "bitsandbytes::int8_vectorwise_quant": _rows_in_8_bits,
    "bitsandbytes::int8_mixed_scaled_mm": _linear_in_8_bits,
    "bitsandbytes::int8_scaled_mm": _scaled_in_8_bits,
}

# Of what a GPU's autocast computes in float32 and a CPU's does not, that which models use ("CUDA Ops that can autocast
# to float32" in PyTorch's documentation of torch.amp); a sum or power of what a network makes is as large as that.
IN_FLOAT32 = {"layer_norm", "group_norm", "softmax", "log_softmax", "cross_entropy", "nll_loss", "normalize", "cumsum"}
IN_FLOAT32 |= {"binary_cross_entropy_with_logits", "exp", "log", "pow", "rsqrt", "sum", "norm", "softplus"}


class AutocastOfAGpu(TorchFunctionMode):
    """Autocast as on a GPU, for fake tensors."""

    def __torch_function__(self, function, types, arguments=(), named=None) -> Any:
        named = named or {}
        if getattr(function, "__name__", "") in IN_FLOAT32 and torch.is_autocast_enabled("cpu"):
            if tree_any(is_half, (arguments, named)):
                arguments, named = tree_map_only(is_half, torch.Tensor.float, (arguments, named))
        return function(*arguments, **named)


def is_half(value: Any) -> bool:
    return isinstance(value, FakeTensor) and value.dtype == torch.bfloat16
