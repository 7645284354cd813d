"""LoRA on a model's parts, refused in one line where it would have nothing to train."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from peft import PeftConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.constants import DUMMY_TARGET_MODULES
from transformers import PreTrainedModel
from trl import ModelConfig, get_peft_config

from .given import given
from .parts import LANGUAGE, linear_layers, parts_of
from .precision import launched_dtype
from .weights import CheckpointError

NUMBER = r"(?<![^.])\d+(?![^.])"  # of a layer, in the name of a module


@dataclass
class LoraModel(ModelConfig):
    """For a recipe's `Model` to inherit: LoRA unless its own settings say another thing, in the launch's precision."""

    dtype: str = field(default_factory=launched_dtype)
    use_peft: bool = True


def layers_of(network: PreTrainedModel, parts: Sequence[str]) -> str:
    """A regular expression of the full names of all linear layers of these `parts`, and of nothing else.

    See `linear_layers`. Raises `CheckpointError` where the network does not say which its parts are.
    """
    known = parts_of(network)
    if known is None:
        raise CheckpointError(
            f"this {network.config.model_type} does not say which its language model and its vision tower are: "
            "--lora_target_modules has to name the layers that LoRA goes to"
        )
    towers = [known.language if part == LANGUAGE else known.vision for part in parts]
    names = [name for tower in towers for name in linear_layers(network, tower)]
    alike = Counter(re.sub(NUMBER, "#", name) for name, _ in network.named_modules())
    alike.subtract(re.sub(NUMBER, "#", name) for name in names)
    branches: dict[str, list[str]] = {}
    for name in names:
        numberless = re.sub(NUMBER, "#", name)
        if alike[numberless] == 0:  # fc1 of all blocks, and not 0 and 2 in a Sequential whose 1 is no linear layer
            name = numberless
        pattern = name.replace(".", r"\.").replace("#", r"\d+")
        stem, number, layer = pattern.rpartition(r"\d+\.")
        branches.setdefault(stem + number, []).append(layer)
    return "|".join(f"{stem}({'|'.join(dict.fromkeys(layers))})" for stem, layers in branches.items())


def refuse_unmatched(network: PreTrainedModel, adapter: PeftConfig) -> None:
    """Raise `CheckpointError` where `adapter` names layers for LoRA, or one to train whole, that `network` has not."""
    modules = [name for name, _ in network.named_modules()]
    for name in getattr(adapter, "modules_to_save", None) or ():
        if not any(module.endswith(name) for module in modules):  # as PEFT looks for it, which passes over this
            raise CheckpointError(
                f"--lora_modules_to_save {name} would train nothing: no module of this {network.config.model_type} "
                "has a name that ends so"
            )
    targets = adapter.target_modules
    if targets in ("all-linear", DUMMY_TARGET_MODULES):  # which find theirs, or train other weights
        return
    try:
        found = any(check_target_module_exists(adapter, name) for name in modules)
    except re.error as error:
        raise CheckpointError(f"--lora_target_modules {targets!r} is no regular expression: {error}") from error
    if not found:
        named = repr(targets) if isinstance(targets, str) else " ".join(sorted(targets))
        raise CheckpointError(
            f"LoRA has nothing to train, for no layer of this {network.config.model_type} matches "
            f"--lora_target_modules {named}: give several names, or one regular expression of a layer's whole name"
        )


def refuse_lora(model: ModelConfig, why: str, unread: str = "lora_.*|use_dora|use_rslora") -> None:
    """Raise `CheckpointError` where a setting of LoRA that matches `unread` is given, for a training without it."""
    if asked := given(model, unread):
        raise CheckpointError(f"{asked} has no effect: {why}")


def lora_unless(model: ModelConfig, setting: str) -> PeftConfig | None:
    """LoRA as `model` says; None where by this `setting` of it all trains, and then LoRA's own are refused."""
    if whole := getattr(model, setting):
        refuse_lora(model, f"--{setting} true trains without LoRA")
    else:
        refuse_lora(model, f"--{setting} true is what trains without LoRA", "use_peft")
    return get_peft_config(replace(model, use_peft=not whole))


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
        network = prepare_model_for_kbit_training(network, use_gradient_checkpointing=False)  # the Trainer's setting
        for weight in own:
            weight.requires_grad_(True)
    return network if isinstance(network, PeftModel) else add_adapter(network, adapter)
