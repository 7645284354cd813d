"""A run's output folder holds the model that was trained: cleared of what would load otherwise, saved, read again."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import AutoConfig, PreTrainedModel, Trainer
from transformers.core_model_loading import revert_weight_conversion
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from ..models.adapters import MERGED_BASE, base_of, files_of
from ..models.sharding import gathered
from ..models.upstream import without_router_loss

OF_ADAPTER = ("adapter_config.json", "adapter_model*")
OF_WHOLE = ("model*.safetensors", "model.safetensors.index.json", "pytorch_model*", "generation_config.json")
CONFIG = "config.json"  # a composed model's adapter has one, too


class SavedError(RuntimeError):
    """A folder does not hold the model that was trained, or would not; the message names the folder and says why."""


def prepare_to_save(trainer: Trainer) -> None:
    """Have an adapter name its base's revision; call it before training, on all processes.

    Raises `SavedError` where the adapter's folder could not give back the model.
    """
    model, folder = trainer.model, Path(trainer.args.output_dir)
    if not isinstance(model, PeftModel):
        return
    if folder.resolve() in _loaded(model):
        raise SavedError(f"an adapter in {folder} would lie on its own base: give it another --output_dir")
    if getattr(model, "loaded_from", None) == {}:
        raise SavedError(f"{folder} would name a base without what was merged into it: save that first and load it")
    config, name = model.active_peft_config, model.active_peft_config.base_model_name_or_path
    for base, revision in getattr(model, "loaded_from", {}):
        if base == name and not Path(base).is_dir() and revision != "main":
            config.revision = revision
    plain = model.config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES  # others add their own in each load
    if not plain or not name or files_of(name, config.revision) is None:
        return
    base = AutoConfig.from_pretrained(name, revision=config.revision, trust_remote_code=False)
    before, now = (of.get_text_config().vocab_size for of in (base, model.config))
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    # The adapter's file has new rows only where it has the whole layer.
    if now != before and not all(getattr(layer, "modules_to_save", None) for layer in layers if layer is not None):
        raise SavedError(
            f"{folder} would lack the {now - before} tokens beyond the base's {before}: train their layers whole "
            "(--lora_modules_to_save embed_tokens lm_head), or save the base with its new tokens and train on that"
        )


def save(trainer: Trainer) -> None:
    """Save the model in `trainer.args.output_dir`, and prove that nothing but what was trained is loaded from there.

    Each trained tensor is read back and is the model's; no name is missing; the base that an adapter names is the one
    that was loaded, and is as it was; nothing that another run left decides otherwise. Costs the reading of the file.
    Call it on all processes; raises `SavedError` on all.
    """
    folder = Path(trainer.args.output_dir)
    if PartialState().is_main_process:
        for file in {file for pattern in (*OF_ADAPTER, *OF_WHOLE, CONFIG) for file in folder.glob(pattern)}:
            file.unlink()
        if (folder / MERGED_BASE).resolve() not in _loaded(trainer.model):
            shutil.rmtree(folder / MERGED_BASE, ignore_errors=True)
    with without_router_loss(trainer.model.config):  # or whoever loads it could not generate
        trainer.save_model()
    fault = [prove(trainer.model, folder)]
    broadcast_object_list(fault)
    if fault[0]:
        raise SavedError(f"{folder} does not hold the model that was trained: {fault[0]}")


def prove(model: PreTrainedModel | PeftModel, folder: Path) -> str | None:
    """What is loaded from `folder` other than the model that was trained, on the main process; None for nothing."""
    first = PartialState().is_main_process
    faults = [_fault_of_files(model, folder), _fault_of_base(model, folder)] if first else []
    faults.append(_fault_of_weights(model, folder))
    return next(filter(None, faults), None)


def _fault_of_files(model: PreTrainedModel | PeftModel, folder: Path) -> str | None:
    adapter = isinstance(model, PeftModel)
    needed = [OF_ADAPTER[0], "adapter_model.safetensors"] if adapter else [CONFIG]
    if missing := [name for name in needed if not (folder / name).is_file()]:
        return f"there is no {missing[0]}"
    others = {file for pattern in (OF_WHOLE[:-1] if adapter else OF_ADAPTER) for file in folder.glob(pattern)}
    others |= set(folder.glob(OF_ADAPTER[1] if adapter else OF_WHOLE[0])) - set(_weight_files(folder))
    return f"{min(others).name} decides, too, what is loaded from there" if others else None


def _fault_of_base(model: PreTrainedModel | PeftModel, folder: Path) -> str | None:
    loaded = getattr(model, "loaded_from", None)
    if loaded is None or not isinstance(model, PeftModel) or not (folder / OF_ADAPTER[0]).is_file():
        return None
    base, revision = base_of(folder)
    named = [base]
    if (folder / CONFIG).is_file():
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        named += [value for key, value in config.items() if key.endswith("name_or_path") and value]
    places = _loaded(model)
    if _place(base) not in places:
        return f"its adapter names the base {base!r}, and was trained on {' and '.join(places.values()) or 'another'}"
    if unnamed := places.keys() - set(map(_place, named)):
        return f"it does not name {places[min(unnamed, key=str)]!r}, on which it was trained"
    for (name, revision_loaded), files in loaded.items():
        if files_of(name, revision_loaded) != files:
            return f"its base {name!r} has been changed since it was loaded"
        if name == base and not Path(name).exists() and (revision or "main") != (revision_loaded or "main"):
            return f"its adapter names the base {base!r} at {revision or 'main'}, and was trained at {revision_loaded}"
    return None


def _fault_of_weights(model: PreTrainedModel | PeftModel, folder: Path) -> str | None:
    """Compare what trains with the file; all processes gather, as ZeRO-3 and FSDP need it, and the first one reads."""
    first = PartialState().is_main_process
    weights = model.state_dict(keep_vars=True)
    if isinstance(model, PeftModel):
        expected = get_peft_model_state_dict(model, weights, save_embedding_layers=False)
    else:
        expected = revert_weight_conversion(model, weights)
    tied: dict[int, list[str]] = {}
    for name, weight in expected.items():
        tied.setdefault(id(weight), []).append(name)
    read = _reader(folder) if first else None
    faults = []
    for names in tied.values():
        weight = expected[names[0]]
        name = next(filter(read, names), None) if first else None
        if first and name is None:
            faults.append(f"it lacks {names[0]!r}")
        if weight.requires_grad:
            with gathered(weight):
                whole = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
                if name and not _equal(whole, read(name)()):
                    faults.append(f"{name!r} there is not what was trained")
    if isinstance(model, PeftModel):
        trained = {id(weight): name for name, weight in weights.items() if weight.requires_grad}
        faults += [f"it lacks {name!r}, which was trained" for key, name in trained.items() if key not in tied]
    return faults[0] if first and faults else None


def _equal(weight: torch.Tensor, saved: torch.Tensor) -> bool:
    weight = weight.detach().to("cpu", saved.dtype)
    return weight.shape == saved.shape and torch.allclose(weight, saved, rtol=0, atol=0, equal_nan=True)


def _reader(folder: Path) -> Callable[[str], Callable[[], torch.Tensor] | None]:
    """What reads a tensor of the folder by its name; None for a name that is not there."""
    opened = [safe_open(file, "pt") for file in _weight_files(folder)]
    where = {name: file for file in opened for name in file.keys()}
    return lambda name: partial(where[name].get_tensor, name) if name in where else None


def _weight_files(folder: Path) -> list[Path]:
    """The files that a loader of safetensors reads in `folder`."""
    for name in ("adapter_model.safetensors", "model.safetensors"):
        if (folder / name).is_file():
            return [folder / name]
    index = folder / "model.safetensors.index.json"
    names = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else set()
    return [folder / name for name in sorted(names)]


def _loaded(model: PreTrainedModel | PeftModel) -> dict[Path | str, str]:
    """Where the weights were read from that the model began with, and how that was named."""
    return {_place(name): name for name, _ in getattr(model, "loaded_from", {})}


def _place(name: str) -> Path | str:
    """A folder's own path, or a name of the Hub."""
    return Path(name).resolve() if Path(name).exists() else name
