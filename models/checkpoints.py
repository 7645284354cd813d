"""A name or a folder -> model and processor, whether it holds a whole model or only an adapter."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from peft import PeftConfig, PeftModel, get_peft_model, load_peft_weights, set_peft_model_state_dict
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedConfig, PreTrainedModel, ProcessorMixin
from trl import ModelConfig, get_quantization_config

from .precision import trainable_in_float32
from .sharding import gathered, place_for_inference
from .upstream import keep_weight_names

FAULTS = (OSError, ValueError, RuntimeError, SafetensorError)


class CheckpointError(ValueError):
    """The model cannot be loaded; the message says which and why."""


def load_checkpoint(
    model: ModelConfig,
    to_train: bool = False,
    skip_quantising: tuple[str, ...] = (),
    model_class: type = AutoModelForImageTextToText,
) -> tuple[PreTrainedModel | PeftModel, ProcessorMixin]:
    """Load `model.model_name_or_path`: a Hub id, or a local folder with a model, or with an adapter to some base.

    To answer, it comes on this process's device, an adapter as an adapter on its base, as it was in training. With
    `to_train`, an adapter becomes part of the weights, to train on from there, and the Trainer places the model.
    Weights are read from safetensors only and no code from the checkpoint runs.

    Args:
        skip_quantising: modules that stay as they are under 4 or 8 bit, besides the output head.
        model_class: instead of the one that the checkpoint's configuration names.

    Raises `CheckpointError` in one line when there is no such model.
    """
    settings = weight_settings(model, ["lm_head", *skip_quantising] if skip_quantising else None)
    settings |= {"revision": model.model_revision, "attn_implementation": model.attn_implementation}

    def base(name: str, config: None) -> tuple[PreTrainedModel, ProcessorMixin]:
        own = model.model_name_or_path  # an adapter's folder has the processor that it was trained with
        processor = AutoProcessor.from_pretrained(own, revision=model.model_revision, trust_remote_code=False)
        return load_weights(model_class, name, **settings), processor

    network, processor = load_named(model, base, to_train)
    if network.config.model_type == "qwen2_vl" and model.dtype == "float16" and PartialState().is_main_process:
        print(
            "float16: Qwen2-VL was seen to overflow in it (transformers issue 33294), and no recipe was tried in it; "
            "without bfloat16: --model_name_or_path Qwen/Qwen2-VL-2B-Instruct --bf16 false --fp16 false, in float32"
        )
    if to_train and isinstance(network, PeftModel):
        network = network.merge_and_unload()
    return network, processor


def weight_settings(model: ModelConfig, skip_quantising: list[str] | None) -> dict[str, Any]:
    """What `model` says to `from_pretrained` of each of its parts; None leaves the output head alone as it is."""
    quantization = get_quantization_config(model)
    if quantization is None:
        return {"dtype": model.dtype}
    quantization.llm_int8_skip_modules = skip_quantising  # a list replaces the automatic lm_head
    return {"dtype": model.dtype, "quantization_config": quantization, "device_map": {"": PartialState().device}}


def load_weights(model_class: type, name: str, **settings) -> PreTrainedModel:
    """`model_class.from_pretrained(name, **settings)` from safetensors, without code from the checkpoint.

    Raises `OSError` where a local folder lacks some of the weights.
    """
    settings |= {"use_safetensors": True, "trust_remote_code": False}  # None would ask on the terminal
    with torch.random.fork_rng(devices=[]):  # ZeRO-3 draws while it reads, and what is made next should be the same
        network, loaded = model_class.from_pretrained(name, output_loading_info=True, **settings)
    if Path(name).is_dir() and loaded["missing_keys"]:
        raise OSError(f"the weights lack {min(loaded['missing_keys'])!r}, which would start at random")
    keep_weight_names(network)
    return network


def load_named(
    model: ModelConfig, base: Callable, to_train: bool, config_class: type[PreTrainedConfig] | None = None
) -> tuple[PreTrainedModel | PeftModel, ProcessorMixin]:
    """What `model` names: `base(name, None)`, or the adapter in that folder on `base(name of its base, config)`.

    A composed model has a `config_class`, by which an adapter's folder says what else the base is made of. To answer,
    what is not quantised comes on this process's device. Raises `CheckpointError` in one line.
    """
    name = of = model.model_name_or_path
    try:
        if not Path(name, "adapter_config.json").is_file():
            network, processor = base(name, None)
        else:
            of = PeftConfig.from_pretrained(name).base_model_name_or_path
            if not Path(name, "adapter_model.safetensors").is_file():  # PEFT would also read a pickle
                raise OSError("it holds no adapter_model.safetensors")
            if config_class is None:
                network, processor = base(of, None)
                network = PeftModel.from_pretrained(network, name)
            elif not Path(name, "config.json").is_file():  # or transformers would go on to that of the adapter's base
                raise OSError("it holds no config.json that says what its adapter belongs to")
            else:
                network, processor = base(of, config_class.from_pretrained(name))
                network = _with_adapter(network, name, to_train)
    except FAULTS as error:
        what = f"{name!r}, an adapter to {of!r}" if of != name else repr(name)
        raise CheckpointError(f"cannot load the model {what}: {_reason(of, error)}") from error
    if get_quantization_config(model) is None and not to_train:
        network = place_for_inference(network)
    return network, processor


def _with_adapter(network: PreTrainedModel, name: str, to_train: bool) -> PeftModel:
    """The adapter in the folder `name` on its base, with the weights in float32 as they were trained."""
    adapter = PeftConfig.from_pretrained(name)
    adapter.inference_mode = False
    network = get_peft_model(network, adapter)
    trainable_in_float32(network)
    with gathered(*network.parameters(), change=True):
        set_peft_model_state_dict(network, load_peft_weights(name, device="cpu"))
    return network if to_train else network.requires_grad_(False)


def _reason(name: str, error: Exception) -> str:
    """Why a model cannot be loaded, in one line."""
    if not Path(name).exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1):  # no id of the Hub
        return "there is no such folder"
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def refuse_fsdp(what: str) -> None:
    """Raise `CheckpointError` under FSDP, which gathers weights for a model's own `forward` and for no part's."""
    if parse_flag_from_env("ACCELERATE_USE_FSDP"):
        raise CheckpointError(f"{what} does not run under FSDP: use ddp.yaml, zero2.yaml or zero3.yaml")


def left_by_a_run(name: str) -> bool:
    """Whether `name` is a recipe's output folder or one of its checkpoints, with the processor it was trained with."""
    return any((folder / "run.json").is_file() for folder in (Path(name), Path(name).parent))
