"""Whether a model computes the same for two ways to ask: what its logits may differ by."""

import torch

TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-3}  # of the logits' spread
COARSE = 0.03  # where something is rounded to 16 bits or fewer: families were off by .011 at most, wrong by .038


class SharingError(ValueError):
    """A model reads questions about a shared image otherwise than by themselves; the message says what to do."""


def disagreement(shared: torch.Tensor, alone: torch.Tensor, model: torch.nn.Module, rounded: bool = False) -> str:
    """How logits `[tokens, vocabulary]` of the same tokens differ; "" if no more than by rounding.

    `rounded`: the model computes in 16 bits, whatever its weights are.
    """
    shared, alone = shared.float(), alone.float()
    spread = float((alone - alone.mean(-1, keepdim=True)).norm())
    difference = float((shared - alone).norm()) / spread
    coarsest = next((weight.dtype for weight in model.parameters() if weight.dtype != torch.float32), torch.float32)
    allowed = COARSE if rounded else TOLERANCES.get(coarsest, COARSE)
    return "" if difference <= allowed else f"its logits are off by {difference:.2g} of their spread"
