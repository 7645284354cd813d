"""Proof with the model at hand that questions about a shared image are what they are by themselves."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from ..rows.conventions import IGNORE_INDEX
from .without_trace import same_model, same_randomness

if TYPE_CHECKING:
    from transformers import Trainer


class AttentionError(ValueError):
    """Questions would see each other, or not all of what is before them; the message says what to do."""


@torch.no_grad()
def differing(trainer: "Trainer", together: Mapping[str, Any], apart: Mapping[str, Any]) -> str:
    """How the model's logits of two short conversations differ between one sequence and one each; "" if they do not.

    `together` and `apart` are batches of the same conversations, see `SharedImageCollator.both_ways`.
    """
    from ..eval.generation.agreement import disagreement  # here, so that importing the callback loads no evaluation

    model = trainer.model
    with same_model(model), same_randomness(), trainer.compute_loss_context_manager():
        model.eval()
        for module in model.modules():  # in eval mode bitsandbytes packs four bits anew on a CPU
            module.training = type(module).__module__.startswith("bitsandbytes.")
        try:
            shared, alone = (_answers(model, batch) for batch in (together, apart))
        except AttentionError:  # which says more
            raise
        except (ValueError, TypeError, RuntimeError, IndexError) as error:  # of a model that reads no such batch
            return f"it does not read such a batch: {type(error).__name__}: {error}"
    return disagreement(shared, alone, model, trainer.args.bf16 or trainer.args.fp16)


def _answers(model: torch.nn.Module, batch: Mapping[str, Any]) -> torch.Tensor:
    """Logits `[tokens, vocabulary]` of what is trained, in the order of the conversations."""
    device = next(model.parameters()).device
    inputs = {key: value.to(device) for key, value in batch.items() if key != "labels"}
    logits = model(**inputs).logits[:, :-1]
    return logits[batch["labels"][:, 1:].to(device) != IGNORE_INDEX]
