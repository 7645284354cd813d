"""Trainers whose loss does not depend on how a batch is split, for models that the stock ones get wrong."""

import torch
from torch.nn import functional as F
from transformers import Seq2SeqTrainer, Trainer

from ..callbacks.grad_norm import parameters_by_group
from ..rows.conventions import IGNORE_INDEX


class RateError(ValueError):
    """There is nothing that a learning rate could be for; the message says what was asked."""


class ComposedTrainer(Trainer):
    """A Trainer that saves the configuration, too, where it saves an adapter; an evaluation's batches stand alone."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not self.model.training:  # or it would be divided by the tokens of all processes: another mean than in one
            num_items_in_batch = None
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def save_model(self, output_dir=None, **settings):
        super().save_model(output_dir, **settings)
        if self.args.should_save:
            self.accelerator.unwrap_model(self.model).config.save_pretrained(output_dir or self.args.output_dir)


class TokenMeanTrainer(Seq2SeqTrainer):
    """Train on the mean cross-entropy over all target tokens of an optimizer step.

    The stock Trainer takes BLIP-2's `**kwargs` as a promise to divide by the number of target tokens, which T5 does
    not keep: loss and gradient come out multiplied by `gradient_accumulation_steps`.
    """

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        loss = outputs.loss  # the mean over this micro-batch's target tokens
        if num_items_in_batch is not None:  # the sum, for there may be none
            logits = outputs.logits.float().flatten(0, 1)
            loss = F.cross_entropy(logits, inputs["labels"].flatten(), reduction="sum") / num_items_in_batch
            if self.args.average_tokens_across_devices:
                loss = loss * self.accelerator.num_processes  # tokens of all processes are counted, DDP averages
        return (loss, outputs) if return_outputs else loss


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
        tokens = sum((batch["labels"][:, 1:] != IGNORE_INDEX).sum() for batch in batches)
        masks = sum(len(part) for batch in batches for part in batch["masks"])
        counts = torch.stack([torch.as_tensor(count, dtype=torch.float32).to(device) for count in (tokens, masks)])
        self._counts = self.accelerator.reduce(counts)
        self._steps += 1
        return batches, num_items

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if self.model.training:  # DeepSpeed's engine itself always says so
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


def with_rate_of_vision(trainer: Trainer, rate: float) -> None:
    """Have the optimizer train the vision tower's weights at a `rate` of their own, under the same schedule.

    Raises `RateError` where none of them trains, and under DeepSpeed and FSDP, which would train all at one rate.
    """
    vision = {id(weight) for weight in parameters_by_group(trainer.model).get("vision", {}).values()}
    if not vision or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        why = "DeepSpeed and FSDP have one rate for all" if vision else "no weight of a vision tower trains"
        raise RateError(f"--vision_learning_rate {rate:g}: {why}")
    optimizer = trainer.create_optimizer()
    for group in list(optimizer.param_groups):
        apart = [weight for weight in group["params"] if id(weight) in vision]
        if apart:
            group["params"] = [weight for weight in group["params"] if id(weight) not in vision]
            optimizer.add_param_group({**group, "params": apart, "lr": rate})
