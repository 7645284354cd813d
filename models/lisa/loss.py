"""LISA's losses (arXiv 2308.00692)."""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from ...rows.conventions import IGNORED_PIXEL

DICE_SCALE, DICE_EPSILON, MASK_EPSILON = 1000.0, 1e-6, 1e-8
Count = torch.Tensor | int | None


def token_loss(logits: torch.Tensor, targets: torch.Tensor, num_items: Count = None) -> torch.Tensor:
    """Cross-entropy of logits `[N, V]`, summed and divided by `num_items` (None: by N)."""
    total = F.cross_entropy(logits.float(), targets, reduction="sum")
    return total / (max(len(targets), 1) if num_items is None else num_items)


def mask_losses(
    logits: Sequence[torch.Tensor], masks: Sequence[torch.Tensor], num_masks: Count = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """BCE and Dice of masks of any sizes, each summed over the masks and divided by `num_masks` (None: their number).

    Logits and masks are `[H, W]`; a mask is 1 in the target, 0 outside, and 255 where a pixel counts neither in the
    mean of BCE nor in the sums of Dice. There the reference differs: it trains such pixels as being outside. Logits
    beyond the masks are left out.
    """
    of_shape: dict[torch.Size, list[int]] = {}
    for i, mask in enumerate(masks):
        of_shape.setdefault(mask.shape, []).append(i)
    bce = dice = torch.zeros((), device=logits[0].device if len(logits) else None)
    for places in of_shape.values():  # masks of one size together: with many small ones, calls are what takes time
        logit, mask = (torch.stack([of[i] for i in places]).flatten(1) for of in (logits, masks))
        counted, logit, target = (mask != IGNORED_PIXEL).float(), logit.float(), (mask == 1).float()
        each = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
        bce = bce + ((each * counted).sum(1) / counted.sum(1).clamp(min=1)).sum()
        probability = logit.sigmoid() * counted / DICE_SCALE
        overlap, area = 2 * (probability * target).sum(1), probability.sum(1) + target.sum(1) / DICE_SCALE
        dice = dice + (1 - (overlap + DICE_EPSILON) / (area + DICE_EPSILON)).sum()
    divisor = (len(masks) if num_masks is None else num_masks) + MASK_EPSILON
    return bce / divisor, dice / divisor
