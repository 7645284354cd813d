"""Weights from a name or a folder, read from safetensors alone, with the adapter that a folder holds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import PeftConfig, PeftModel, get_peft_model, load_peft_weights, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel, ProcessorMixin
from trl import ModelConfig, get_quantization_config

from .adapters import base_of, files_of
from .precision import trainable_in_float32
from .sharding import gathered, place_for_inference
from .upstream import format_of, keep_weight_names, quantise_outline, without_zero3

FAULTS = (OSError, ValueError, RuntimeError, ImportError, SafetensorError)
weights_are_read: ContextVar[bool] = ContextVar("weights_are_read", default=True)
outlined_as_trained: ContextVar[bool] = ContextVar("outlined_as_trained", default=False)


class CheckpointError(ValueError):
    """The model cannot be loaded; the message says which and why."""


@contextmanager
def without_weights(as_trained: bool = False) -> Iterator[None]:
    """In here a model is loaded as its configuration has it, on the meta device, and without its adapter.

    In a second or two what is of another kind is refused, and so is LoRA that has no layer to train. Nothing is drawn.
    With `as_trained` it has the number formats and the layers of 4 or 8 bits of the run, and its adapter, too: all but
    values, so that its memory can be counted.
    """
    tokens = weights_are_read.set(False), outlined_as_trained.set(as_trained)
    try:
        with torch.random.fork_rng(devices=[]), without_zero3():
            yield
    finally:
        weights_are_read.reset(tokens[0])
        outlined_as_trained.reset(tokens[1])


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
    revision = settings.get("revision")
    if not weights_are_read.get():
        config = settings.get("config") or AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
        with torch.device("meta"):
            network = (model_class.from_config if model_class is AutoModelForImageTextToText else model_class)(config)
        if outlined_as_trained.get():
            _as_trained(network, **settings)
        network.loaded_from = {}
        return network
    settings |= {"use_safetensors": True, "trust_remote_code": False}  # None would ask on the terminal
    with torch.random.fork_rng(devices=[]):  # ZeRO-3 draws while it reads, and what is made next should be the same
        network, loaded = model_class.from_pretrained(name, output_loading_info=True, **settings)
    if Path(name).is_dir() and loaded["missing_keys"]:
        raise OSError(f"the weights lack {min(loaded['missing_keys'])!r}, which would start at random")
    keep_weight_names(network)
    network.loaded_from = {(name, revision): files_of(name, revision)}
    return network


def _as_trained(network: PreTrainedModel, dtype, attn_implementation=None, quantization_config=None, **_) -> None:
    """The rest of what `from_pretrained` would have made of these settings."""
    network.config.dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    for name, weight in network.named_parameters():
        weight.data = weight.data.to(format_of(network, name))
    if attn_implementation is not None:
        network.set_attn_implementation(attn_implementation)
    if quantization_config is not None:
        quantise_outline(network, quantization_config)


def load_named(
    model: ModelConfig, base: Callable, to_train: bool, config_class: type[PreTrainedConfig] | None = None
) -> tuple[PreTrainedModel | PeftModel, ProcessorMixin]:
    """What `model` names: `base(name, revision, None)`, or the adapter in that folder on its `base(…, config)`.

    A composed model has a `config_class`, by which an adapter's folder says what else the base is made of. To answer,
    what is not quantised comes on this process's device. Raises `CheckpointError` in one line.
    """
    name = of = model.model_name_or_path
    try:
        if not Path(name, "adapter_config.json").is_file():
            network, processor = base(name, model.model_revision, None)
        else:
            of, revision = base_of(name)
            revision = revision or model.model_revision
            if not Path(name, "adapter_model.safetensors").is_file():  # PEFT would also read a pickle
                raise OSError("it holds no adapter_model.safetensors")
            config = None
            if config_class is not None:
                if not Path(name, "config.json").is_file():  # or transformers would go on to that of the base
                    raise OSError("it holds no config.json that says what its adapter belongs to")
                config = config_class.from_pretrained(name)
            network, processor = base(of, revision, config)
            if weights_are_read.get() or outlined_as_trained.get():
                if config is None:
                    _grow_vocabulary(network, processor, name)
                if to_train or config is not None:
                    network = _with_adapter(network, name, model if to_train else None)
                else:
                    network = PeftModel.from_pretrained(network, name)
    except FAULTS as error:
        what = f"{name!r}, an adapter to {of!r}" if of != name else repr(name)
        raise CheckpointError(f"cannot load the model {what}: {_reason(of, error)}") from error
    if get_quantization_config(model) is None and not to_train and weights_are_read.get():
        network = place_for_inference(network)
    return network, processor


def _with_adapter(network: PreTrainedModel, name: str, to_train: ModelConfig | None) -> PeftModel:
    """The adapter in the folder `name` on its base, with the weights in float32 as they were trained.

    With `to_train` it trains on, with the dropout that this says.
    """
    adapter = PeftConfig.from_pretrained(name)
    adapter.inference_mode = False
    if to_train:
        adapter.lora_dropout = to_train.lora_dropout
    network = get_peft_model(network, adapter)
    trainable_in_float32(network)
    with gathered(*network.parameters(), change=True):
        set_peft_model_state_dict(network, load_peft_weights(name, device="cpu"))
    return network if to_train else network.requires_grad_(False).eval()


def _grow_vocabulary(network: PreTrainedModel, processor: ProcessorMixin, name: str) -> None:
    """Make room for the tokens beyond the base's whose rows the adapter in the folder `name` has.

    Raises `OSError` where its tokenizer has more than these.
    """
    embeddings = network.get_input_embeddings()
    [layer] = [layer for layer, module in network.named_modules() if module is embeddings]
    with safe_open(Path(name, "adapter_model.safetensors"), "pt") as weights:
        known = f"base_model.model.{layer}.weight" in weights.keys()  # trained whole
        rows = weights.get_slice(f"base_model.model.{layer}.weight").get_shape()[0] if known else 0
    if rows > embeddings.num_embeddings:
        with torch.random.fork_rng(devices=[]):
            network.resize_token_embeddings(rows, mean_resizing=False)
    tokens, rows = len(processor.tokenizer), network.get_input_embeddings().num_embeddings
    if tokens > rows:
        raise OSError(f"its tokenizer has {tokens} tokens and the model {rows}: it was saved without the others")


def _reason(name: str, error: Exception) -> str:
    """Why a model cannot be loaded, in one line."""
    if not Path(name).exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1):  # no id of the Hub
        return "there is no such folder"
    return reason_of(error)


def reason_of(error: Exception) -> str:
    """The first line of an error; with the next one where it is no more than a heading."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1])
