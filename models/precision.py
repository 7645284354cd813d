"""In which number format a run computes: what the accelerate config says, and float32 for whatever is trained."""

import os
from contextvars import ContextVar

import torch
from torch import nn

SMALL_CARD_GIB = 22  # a 24 GB card reports a little less than 24 GiB
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "no": "float32"}
planned_gib: ContextVar[float | None] = ContextVar("planned_gib", default=None)  # of a card that is not here
MIXED_PRECISION = "ACCELERATE_MIXED_PRECISION"  # where the launcher leaves `mixed_precision` of its config


def launched_precision() -> str:
    """`bf16`, `fp16` or `no`: `mixed_precision` of the accelerate config; without a launcher, what the GPU can do."""
    precision = os.environ.get(MIXED_PRECISION) or ("bf16" if computes_in_bfloat16() else "no")
    return precision if precision in DTYPES else "no"


def computes_in_bfloat16() -> bool:
    """Whether this process's GPU has bfloat16; of cards before 2020 PyTorch also says so, which emulate it slowly."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def precision_of(bf16: bool, fp16: bool) -> str:
    """`bf16`, `fp16` or `no`: what those two of `TrainingArguments` say."""
    return "fp16" if fp16 else "bf16" if bf16 else "no"


def launched_dtype() -> str:
    """The dtype that frozen weights are loaded in, named as `ModelConfig.dtype` wants it."""
    return DTYPES[launched_precision()]


def small_card() -> bool:
    """Whether the GPU holds less than about 24 GB, so that a 7B model needs four bits."""
    if (planned := planned_gib.get()) is not None:
        return planned < SMALL_CARD_GIB
    return torch.cuda.is_available() and torch.cuda.mem_get_info()[1] < SMALL_CARD_GIB * 2**30


def trainable_in_float32(model: nn.Module) -> None:
    """Keep trained weights in float32, where small updates are not lost; call it before the optimizer is made."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
