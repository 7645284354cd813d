"""The parts of a vision-language model: its language model, its vision tower, and what lies between them.

A leaf, which imports nothing of ours, and which all may import.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from torch import nn
from transformers import PreTrainedModel

LANGUAGE, VISION, PROJECTOR = "language", "vision", "projector"
HANDS_ON = r"merger|projector|vision_adapter"  # inside a tower: what makes its features the language model's


@dataclass(frozen=True)
class Parts:
    """The full names of a network's `language` model, its `vision` tower, and its output `head`, if it has one."""

    language: str
    vision: str
    head: str | None

    def part_of(self, name: str) -> str:
        """Where a parameter or module is: "language", with the output head; "vision"; or "projector", all the rest."""
        if any(part is not None and f"{name}.".startswith(f"{part}.") for part in (self.language, self.head)):
            return LANGUAGE
        return VISION if f"{name}.".startswith(f"{self.vision}.") else PROJECTOR

    def kind_of(self, name: str) -> str:
        """The same, with what hands on inside a tower, such as Qwen's merger, counted to the projector."""
        part = self.part_of(name)
        inside = name.removeprefix(self.vision) if part == VISION else ""
        return PROJECTOR if re.search(HANDS_ON, inside) else part

    def tower_of(self, name: str) -> str:
        """The largest module with this parameter that is of one kind, `model.visual` or `model.visual.merger`."""
        heads = accumulate(name.split("."), "{}.{}".format)
        if self.part_of(name) != self.kind_of(name):
            return next(head for head in heads if re.search(HANDS_ON, head.removeprefix(self.vision)))
        return next(head for head in heads if not any(p.startswith(f"{head}.") for p in (self.language, self.vision)))

    def beside(self, network: nn.Module) -> tuple[str, ...]:
        """All modules and parameters that are not the language model's nor hold it: what is never quantised."""
        names = (name for name, _ in network.named_parameters() if self.part_of(name) == PROJECTOR)
        return (self.vision, *dict.fromkeys(map(self.tower_of, names)))


def parts_of(network: nn.Module) -> Parts | None:
    """What transformers' `get_decoder` and `get_encoder(modality="image")` name, in an adapter's base, too.

    None for a network that does not name both.
    """
    base = network.get_base_model() if hasattr(network, "get_base_model") else network
    if not isinstance(base, PreTrainedModel):
        return None
    names = {module: name for name, module in network.named_modules()}
    language, vision = (names.get(part) for part in (base.get_decoder(), base.get_encoder(modality="image")))
    whole = names[base]
    if not language or not vision or whole in (language, vision):
        return None
    return Parts(language, vision, names.get(base.get_output_embeddings()))


def linear_layers(network: nn.Module, part: str) -> dict[str, bool]:
    """The full names of the linear layers that LoRA can be added to, in the module called `part`, and whether it was.

    Not the output head, and not what is linear and yet is not called as such: a router with an output of its own, or
    the projection within torch's attention, whose weights are read past it.
    """
    apart = [network.get_output_embeddings()]
    apart += [module.out_proj for module in network.modules() if isinstance(module, nn.MultiheadAttention)]
    found = {}
    for name, module in network.get_submodule(part).named_modules(prefix=part):
        if isinstance(module, nn.Linear) and not any(module is one for one in apart) and ".lora_" not in name:
            own_forward = type(module).forward is not nn.Linear.forward  # as that of 4 bits, which is fine
            if not (own_forward and type(module).__module__.startswith("transformers.models.")):
                found[name.removesuffix(".base_layer")] = name.endswith(".base_layer")
    return found


def fused_layers(network: nn.Module, part: str) -> dict[str, int]:
    """The weights in the module called `part` that hold several matrices, as those of experts, and their sizes."""
    found = {}
    for name, module in network.get_submodule(part).named_modules(prefix=part):
        if re.search("experts?", name.rpartition(".")[2]):
            weights = module.named_parameters(prefix=name, recurse=False)
            found |= {full: weight.numel() for full, weight in weights if weight.ndim == 3}
    return found


def train_only(network: nn.Module, parts: Sequence[str]) -> None:
    """Have these parts of `network` train and no others; its whole, where none is named.

    Raises `ValueError` where the network does not say which these are.
    """
    known = parts_of(network) if parts else None
    if parts and known is None:
        raise ValueError(f"{type(network).__name__} does not say what its language model and its vision tower are")
    for name, weight in network.named_parameters():
        weight.requires_grad_(known is None or known.part_of(name) in parts)
