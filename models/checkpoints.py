"""A name or a folder -> model and processor, whether it holds a whole model or only an adapter."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env
from peft import PeftConfig, PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.utils import has_file
from trl import ModelConfig, get_quantization_config

from .adapters import MERGED_BASE, base_of, files_of, other_kind
from .given import given
from .weights import FAULTS, CheckpointError, load_named, load_weights, reason_of, weight_settings, weights_are_read

EXPORTED = "trained.json"  # in an export: the `run.json` of the run that trained it


def load_checkpoint(
    model: ModelConfig,
    to_train: bool = False,
    skip_quantising: tuple[str, ...] = (),
    model_class: type = AutoModelForImageTextToText,
    adapter: PeftConfig | None = None,
    output_dir: str | None = None,
) -> tuple[PreTrainedModel | PeftModel, ProcessorMixin]:
    """Load `model.model_name_or_path`: a Hub id, or a local folder with a model, or with an adapter to some base.

    To answer, it comes on this process's device, an adapter as an adapter on its base, as it was in training. With
    `to_train`, the Trainer places the model, and an adapter trains on where `adapter` is of its kind. Else it becomes
    part of the weights: in memory for a whole model to train, in the folder `merged_base` of `output_dir` for an
    `adapter` of another kind, which then belongs to that. Weights are read from safetensors only and no code from the
    checkpoint runs.

    Args:
        skip_quantising: modules that stay as they are under 4 or 8 bit, besides the output head.
        model_class: instead of the one that the checkpoint's configuration names.
        adapter: what is to train on the model.
        output_dir: where the training will save.

    Raises `CheckpointError` in one line when there is no such model, or when merging would round it.
    """
    name, goes_on = model.model_name_or_path, False
    if to_train and Path(name, "adapter_config.json").is_file():
        if adapter is not None:
            differs = other_kind(PeftConfig.from_pretrained(name), adapter)
            goes_on = not differs
            if differs and output_dir is not None and weights_are_read.get():
                model = replace(model, model_name_or_path=merge_beside(model, model_class, output_dir, differs))
        elif get_quantization_config(model) is not None:
            raise CheckpointError(
                f"merging the adapter {name!r} into 4 or 8 bits would round what it has learnt: "
                f"vlm-export {name} --to FOLDER, and train on from that FOLDER"
            )
    settings = weight_settings(model, ["lm_head", *skip_quantising] if skip_quantising else None)
    settings |= {"attn_implementation": model.attn_implementation}

    def base(name: str, revision: str, config: None) -> tuple[PreTrainedModel, ProcessorMixin]:
        own = model.model_name_or_path  # an adapter's folder has the processor that it was trained with
        processor = AutoProcessor.from_pretrained(own, revision=model.model_revision, trust_remote_code=False)
        return load_weights(model_class, name, **settings, revision=revision), processor

    network, processor = load_named(model, base, to_train)
    if network.config.model_type == "qwen2_vl" and model.dtype == "float16" and PartialState().is_main_process:
        print(
            "float16: Qwen2-VL was seen to overflow in it (transformers issue 33294), and no recipe was tried in it; "
            "without bfloat16: --model_name_or_path Qwen/Qwen2-VL-2B-Instruct --bf16 false --fp16 false, in float32"
        )
    if to_train and isinstance(network, PeftModel) and not goes_on:
        network = network.merge_and_unload()
        network.loaded_from = {}  # no folder has these weights
    return network, processor


def merge_beside(model: ModelConfig, model_class: type, output_dir: str, why: str) -> str:
    """Merge the adapter that `model` names into its base, which is not quantised; returns `output_dir/merged_base`.

    A whole model with its processor, written by the first process alone, and once for each state of adapter and base.
    Raises `CheckpointError` in one line where `output_dir` holds what is to be merged.
    """
    name, folder = model.model_name_or_path, Path(output_dir).absolute() / MERGED_BASE
    if folder.parent in (Path(name).absolute(), *Path(name).absolute().parents):
        raise CheckpointError(f"an adapter of another kind than {name!r} ({why}) needs another --output_dir than that")
    if is_deepspeed_zero3_enabled():  # which shards what the first process would have to load whole
        raise CheckpointError(f"{name!r} has {why}: vlm-export {name} --to FOLDER, and train on from that FOLDER")
    fault, made_of = [None], folder / "merged_from.json"
    if PartialState().is_main_process:
        try:
            base = base_of(name)
            found = json.dumps([files_of(name), files_of(*base)])
            if not (made_of.is_file() and made_of.read_text() == found):
                print(f"{name} has {why}: merged into {folder}, on which a new adapter trains")
                plain = replace(model, load_in_4bit=False, load_in_8bit=False)
                network, processor = load_checkpoint(plain, to_train=True, model_class=model_class)
                partial = folder.with_name(f"{MERGED_BASE}.partial")
                for old in (partial, folder):
                    shutil.rmtree(old, ignore_errors=True)
                network.save_pretrained(partial)
                processor.save_pretrained(partial)
                (partial / made_of.name).write_text(found)
                partial.rename(folder)
        except (*FAULTS, CheckpointError) as error:
            fault = [f"cannot merge {name!r} into {folder}: {reason_of(error)}"]
    broadcast_object_list(fault)
    if fault[0] is not None:
        raise CheckpointError(fault[0])
    return str(folder)


def refuse_fsdp(what: str) -> None:
    """Raise `CheckpointError` under FSDP, which gathers weights for a model's own `forward` and for no part's."""
    if parse_flag_from_env("ACCELERATE_USE_FSDP"):
        raise CheckpointError(f"{what} does not run under FSDP: use ddp.yaml, zero2.yaml or zero3.yaml")


def refuse_other_kind(made: PeftConfig, wanted: PeftConfig) -> None:
    """Raise `CheckpointError` where an adapter that is there cannot train on as what is `wanted`."""
    if differs := other_kind(made, wanted):
        raise CheckpointError(f"this adapter has {differs}: train it on as it began")


def refuse_other_parts(model: ModelConfig, has: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` where `model` asks for a part, by its setting's name, that its checkpoint `has` not."""
    for setting, known in has.items():
        if given(model, setting) and getattr(model, setting) != known:
            asked = f"--{setting} {getattr(model, setting)}"
            raise CheckpointError(f"{asked} has no effect: {model.model_name_or_path} was made with {known}")


def left_by_a_run(name: str, revision: str | None = None) -> bool:
    """Whether the processor of `name` is the one that a run trained its model with.

    That is so of a recipe's output folder, its checkpoints, its export, and what it or one has sent to the Hub.
    """
    places = (name, str(Path(name).parent)) if Path(name).is_dir() else (name,)
    return any(has_file(place, file, revision=revision) for place in places for file in ("run.json", EXPORTED))
