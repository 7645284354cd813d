"""Sequences of different lengths -> one tensor."""

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence


def padded(tensors: Sequence[torch.Tensor], value: int, side: str = "right") -> torch.Tensor:
    """`[B, S, …]` of several `[S, …]`, filled up with `value`."""
    return pad_sequence(list(tensors), batch_first=True, padding_value=value, padding_side=side)
