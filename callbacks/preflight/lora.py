"""Is LoRA where it is said to be?"""

import re

from torch import nn

from ...eval.report.check import Check
from ...models.parts import LANGUAGE, VISION, linear_layers, parts_of
from .model import Expected

NAMED = 3  # kinds of layers


def check_lora(model: nn.Module, expected: Expected) -> Check | None:
    """On how many of their linear layers the parts have LoRA that are to train; None where none has it.

    Warns, naming them, of layers that it is not on: a pattern that fits one family matches some in another.
    """
    parts = parts_of(model)
    if parts is None or not any("lora_" in name for name, _ in model.named_parameters()):
        return None
    found, missed, numbers = [], {}, {}
    for part, tower in ((LANGUAGE, parts.language), (VISION, parts.vision)):
        if part in expected.parts:
            layers = linear_layers(model, tower)
            without = [name for name, has_lora in layers.items() if not has_lora]
            missed |= dict.fromkeys(re.sub(r"\.\d+(?=\.|$)", ".*", _plain(name)) for name in without)
            numbers |= {f"{part}_layers": len(layers), f"{part}_without": len(without)}
            found.append(f"{len(layers) - len(without):,} of {len(layers):,} linear layers of {_plain(tower)}")
    if not found:
        return None
    said = f"on {' and '.join(found)}"
    if missed:
        more = f" and {len(missed) - NAMED:,} more kinds" if len(missed) > NAMED else ""
        said += f"; not on {', '.join(list(missed)[:NAMED])}{more}"
    return Check("LoRA's layers", "warn" if missed else "pass", said, numbers)


def _plain(name: str) -> str:
    """As the base calls it."""
    return name.removeprefix("base_model.model.")
