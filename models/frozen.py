"""Frozen parts are computed without a graph."""

import torch
from torch import nn


def no_grad_if_frozen(*parts: nn.Module | nn.Parameter) -> torch.set_grad_enabled:
    """A context without gradients where none of `parts` is trained; else as gradients are set."""
    weights = (weight for part in parts for weight in (part.parameters() if isinstance(part, nn.Module) else [part]))
    return torch.set_grad_enabled(torch.is_grad_enabled() and any(weight.requires_grad for weight in weights))
