"""LISA's losses, and a Trainer under which they do not depend on how a batch is split (arXiv 2308.00692)."""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from models.composed import ComposedTrainer

IGNORED = 255
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
        counted, logit, target = (mask != IGNORED).float(), logit.float(), (mask == 1).float()
        each = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
        bce = bce + ((each * counted).sum(1) / counted.sum(1).clamp(min=1)).sum()
        probability = logit.sigmoid() * counted / DICE_SCALE
        overlap, area = 2 * (probability * target).sum(1), probability.sum(1) + target.sum(1) / DICE_SCALE
        dice = dice + (1 - (overlap + DICE_EPSILON) / (area + DICE_EPSILON)).sum()
    divisor = (len(masks) if num_masks is None else num_masks) + MASK_EPSILON
    return bce / divisor, dice / divisor


class LisaTrainer(ComposedTrainer):
    """Divide each loss by the tokens or masks of the whole optimizer step, on all processes; log its three parts.

    Accumulation steps and processes then give what one large batch gives, also where rows have different numbers of
    masks. The parts are logged unweighted beside `loss`, as `loss_ce`, `loss_bce` and `loss_dice`.
    """

    loss_is_scaled_for_ga = True
    _counts: torch.Tensor  # trained tokens and masks of this optimizer step
    _sums: torch.Tensor | int = 0  # of the three parts, since the last log
    _steps = 0

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        tokens = sum((batch["labels"][:, 1:] != -100).sum() for batch in batches)
        masks = sum(len(part) for batch in batches for part in batch["masks"])
        counts = torch.stack([torch.as_tensor(count, dtype=torch.float32).to(device) for count in (tokens, masks)])
        self._counts = self.accelerator.reduce(counts)
        self._steps += 1
        return batches, num_items

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if model.training:
            tokens, masks = self._counts
            outputs = model(**inputs, num_items_in_batch=tokens, num_masks_in_batch=masks)
            scale = self.accelerator.num_processes  # DDP takes the mean of what are shares of one sum
            parts = (outputs.ce_loss, outputs.bce_loss, outputs.dice_loss)
            self._sums = self._sums + scale * torch.stack([part.detach().to(tokens.device) for part in parts])
        else:
            outputs, scale = model(**inputs), 1  # each batch by itself
        loss = outputs.loss * scale
        return (loss, outputs) if return_outputs else loss

    def log(self, logs, *args, **kwargs):
        if "loss" in logs and self._steps:
            means = self.accelerator.reduce(self._sums / self._steps, "mean").tolist()
            logs |= {f"loss_{name}": mean for name, mean in zip(("ce", "bce", "dice"), means, strict=True)}
            self._sums, self._steps = 0, 0
        super().log(logs, *args, **kwargs)
