"""In which number format a run computes: what the accelerate config says, and float32 for whatever is trained."""

import os

import torch
from torch import nn

SMALL_CARD_GIB = 22  # a 24 GB card reports a little less than 24 GiB
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "no": "float32"}


def launched_precision() -> str:
    """`bf16`, `fp16` or `no`: `mixed_precision` of the accelerate config; without a launcher, what the GPU can do."""
    bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "bf16" if bf16 else "no")
    return precision if precision in DTYPES else "no"


def launched_dtype() -> str:
    """The dtype that frozen weights are loaded in, named as `ModelConfig.dtype` wants it."""
    return DTYPES[launched_precision()]


def small_card() -> bool:
    """Whether the GPU holds less than about 24 GB, so that a 7B model needs four bits."""
    return torch.cuda.is_available() and torch.cuda.mem_get_info()[1] < SMALL_CARD_GIB * 2**30


def trainable_in_float32(model: nn.Module) -> None:
    """Keep trained weights in float32, where small updates are not lost; call it before the optimizer is made."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
