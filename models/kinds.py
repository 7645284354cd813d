"""Of which kind a model is, before its weights are read."""

from collections.abc import Container
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from .adapters import base_of
from .weights import FAULTS, CheckpointError


def config_of(name: str, revision: str | None = None) -> dict[str, Any]:
    """What `config.json` says of a model, or, for an adapter that has none, of its base; {} where there is none.

    Whether there is such a model at all is said where it is loaded.
    """
    try:
        if Path(name, "adapter_config.json").is_file() and not Path(name, "config.json").is_file():
            name, revision = base_of(name)
        return PreTrainedConfig.get_config_dict(name, revision=revision)[0]
    except FAULTS:
        return {}


def refuse_other_kinds(name: str, kinds: Container[str], wanted: str, revision: str | None = None) -> None:
    """Raise `CheckpointError` for a model of none of these `model_type`s; `wanted` says in words where they belong."""
    kind = config_of(name, revision).get("model_type")
    if kind is not None and kind not in kinds:
        raise CheckpointError(f"{name!r} is of the kind {kind!r}, and {wanted}: name another model")
