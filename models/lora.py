"""LoRA on a model, refused in one line where it would have nothing to train."""

import re

from peft import PeftConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.constants import DUMMY_TARGET_MODULES
from transformers import PreTrainedModel
from trl import ModelConfig

from .weights import CheckpointError


def refuse_unmatched(network: PreTrainedModel, adapter: PeftConfig) -> None:
    """Raise `CheckpointError` where no layer of `network` is one that `adapter` is for."""
    targets = adapter.target_modules
    if targets in ("all-linear", DUMMY_TARGET_MODULES):  # which find theirs, or train other weights
        return
    try:
        found = any(check_target_module_exists(adapter, name) for name, _ in network.named_modules())
    except re.error as error:
        raise CheckpointError(f"--lora_target_modules {targets!r} is no regular expression: {error}") from error
    if not found:
        named = repr(targets) if isinstance(targets, str) else " ".join(sorted(targets))
        raise CheckpointError(
            f"LoRA has nothing to train, for no layer of this {network.config.model_type} matches "
            f"--lora_target_modules {named}: give several names, or one regular expression of a layer's whole name"
        )


def add_adapter(network: PreTrainedModel, adapter: PeftConfig) -> PeftModel:
    """`get_peft_model`; raises `CheckpointError` where no layer matches, or one that LoRA cannot be added to."""
    refuse_unmatched(network, adapter)
    try:
        return get_peft_model(network, adapter)
    except ValueError as error:
        raise CheckpointError(f"LoRA cannot be added to this {network.config.model_type}: {error}") from error


def with_lora(network: PreTrainedModel | PeftModel, model: ModelConfig, adapter: PeftConfig) -> PeftModel:
    """The network with this adapter, or with its own, which trains on; what `model` has quantised is made ready.

    For a Trainer that does not do so itself, as `SFTTrainer` does.
    """
    if model.load_in_8bit or model.load_in_4bit:
        own = [weight for weight in network.parameters() if weight.requires_grad and isinstance(network, PeftModel)]
        network = prepare_model_for_kbit_training(network, gradient_checkpointing_kwargs={"use_reentrant": False})
        for weight in own:
            weight.requires_grad_(True)
    return network if isinstance(network, PeftModel) else add_adapter(network, adapter)
