"""What libraries do not do yet, or show only under private names; a test for each fails once they have mended it.

A leaf, which all may import, and which loads nothing.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch
    from datasets import Dataset
    from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel


def keep_weight_names(network: "PreTrainedModel") -> None:
    """Have checkpoints written under the names that `network`'s weights have, not the Hub's old ones.

    The Trainer does not translate the old ones when it resumes or loads the best model: it would go on with other
    weights, with no more than a warning (transformers issue 43701). `save_pretrained` has `save_original_format` for
    it, which the Trainer does not pass on.
    """
    if conversions := getattr(network, "_weight_conversions", None):
        network.names_on_the_hub = conversions
    network._weight_conversions = []


def has_other_names_on_the_hub(network: "PreTrainedModel") -> bool:
    """Whether the Trainer would save `network` under names that it does not load, see `keep_weight_names`."""
    return bool(getattr(network, "_weight_conversions", None))


def give_names_of_the_hub(network: "PreTrainedModel") -> None:
    """Have `network` saved under the Hub's names again, which others read, where `keep_weight_names` took them."""
    if conversions := getattr(network, "names_on_the_hub", None):
        network._weight_conversions = conversions


def hub_weight_names(network: "PreTrainedModel") -> None:
    """The same also for one that was read from a folder with other names: those of its class."""
    del network._weight_conversions


@contextmanager
def without_zero3() -> Iterator[None]:
    """In here models are made whole, as without ZeRO-3; transformers has a way to forget it, and none to recall it."""
    from transformers.integrations import deepspeed

    kept, deepspeed._hf_deepspeed_config_weak_ref = deepspeed._hf_deepspeed_config_weak_ref, None
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = kept


def clear_nested_dtypes(config: "PreTrainedConfig") -> None:
    """Have `config`'s parts follow it in dtype, where it is itself a part of a composed model's configuration.

    `from_pretrained(dtype=…)` sets the dtype of a configuration's parts and not of their parts, which would be loaded
    in the dtype they were saved in.
    """
    for name in config.sub_configs:
        getattr(config, name).dtype = None


def mark_quantised(network: "PreTrainedModel", quantization: "BitsAndBytesConfig") -> None:
    """Say of a model composed of parts loaded in 4 or 8 bits that it is so, as `from_pretrained` does of each part.

    PEFT asks the model and not its layers, and would take layers of 4 bits for plain ones.
    """
    network.is_loaded_in_4bit, network.is_loaded_in_8bit = quantization.load_in_4bit, quantization.load_in_8bit


def name_of_cache() -> str:
    """What models, their outputs and `generate` call the keys and values of tokens that they have read.

    transformers 5.24 warns of the older name, and earlier ones know no other.
    """
    major_minor = tuple(map(int, version("transformers").split(".")[:2]))
    return "cache" if major_minor >= (5, 24) else "past_key_values"


def quantised_bits(network: "PreTrainedModel") -> int | None:
    """4 or 8, where a model was loaded in so many bits."""
    return next((bits for bits in (4, 8) if getattr(network, f"is_loaded_in_{bits}bit", False)), None)


def fingerprint(dataset: "Dataset") -> str:
    """What names the rows of `dataset`, as its cache on disk does; datasets has no public name for it."""
    return dataset._fingerprint


def cast_pictures(dataset: "Dataset", column: str, decode: bool) -> "Dataset":
    """Have a column of pictures, or of lists of pictures, decoded when a row is read, or not; no byte is copied.

    `cast_column` does so for pictures, but writes all rows anew for lists of them.
    """
    from datasets import Image, List
    from datasets.fingerprint import Hasher

    if not hasattr(dataset.features.get(column), "feature"):
        return dataset.cast_column(column, Image(decode=decode))
    cast = copy.deepcopy(dataset)  # of which tables are no part
    cast._info.features[column] = List(Image(decode=decode))
    cast._data = cast._data.replace_schema_metadata(cast.features.arrow_schema.metadata)
    cast._fingerprint = Hasher.hash([dataset._fingerprint, column, decode])
    return cast


def selected_from(dataset: "Dataset") -> tuple["Dataset", "np.ndarray | None"]:
    """All rows that a dataset's own were selected from, and the numbers of its own in them; None where it has all."""
    from datasets import Dataset

    if dataset._indices is None:
        return dataset, None
    whole = Dataset(dataset.data, info=dataset.info, split=dataset.split, fingerprint=f"{dataset._fingerprint}-whole")
    return whole, dataset._indices.column("indices").to_numpy().astype("int64")


def attention_of(config: "PreTrainedConfig") -> str | None:
    """The attention that a model's text was loaded with, such as "sdpa"; transformers has only a way to set it."""
    return config.get_text_config()._attn_implementation


def reads_pairs(config: "PreTrainedConfig") -> bool:
    """Whether that attention reads a mask of pairs of tokens; flash attention does not, nor do others."""
    return attention_of(config) in ("sdpa", "eager")


@contextmanager
def without_router_loss(config: "PreTrainedConfig") -> Iterator[None]:
    """In here a model of experts takes no loss over its routers, which `SFTTrainer` has its `config` ask for.

    That loss reads the mask of the whole sequence, and where tokens come one by one there are fewer: with padding in
    the batch transformers raises in the second step of `generate`.
    """
    text = config.get_text_config()
    asked = getattr(text, "output_router_logits", False)
    if asked:
        text.output_router_logits = False
    try:
        yield
    finally:
        if asked:
            text.output_router_logits = True


def format_of(network: "PreTrainedModel", name: str) -> "torch.dtype":
    """In which format `from_pretrained` loads the weight of this name: float32 for some parts of a float16 model."""
    import torch

    parts = {*(network._keep_in_fp32_modules_strict or ())}
    if network.config.dtype == torch.float16:
        parts |= {*(network._keep_in_fp32_modules or ())}
    in_float32 = network.config.dtype != torch.float32 and parts & {*name.split(".")}
    return torch.float32 if in_float32 else network.config.dtype


def quantise_outline(network: "PreTrainedModel", quantization: "BitsAndBytesConfig") -> None:
    """Give a `network` on the device "meta" the layers of 4 or 8 bits that it would be loaded with.

    Which layers these are, transformers says only in what it does before it reads weights; these stay unpacked.
    """
    from transformers.quantizers.auto import AutoHfQuantizer

    network.hf_quantizer = AutoHfQuantizer.from_config(quantization)
    network.hf_quantizer.preprocess_model(network, device_map={"": "cpu"})
    network.config.quantization_config = quantization
    mark_quantised(network, quantization)


@contextmanager
def as_on_a_gpu(really: bool = True) -> Iterator[None]:
    """In here libraries do on a CPU what they do on a GPU, where they ask for the device; nothing, unless `really`.

    TRL projects only what has a label, and its kernels fold logits in place; bitsandbytes multiplies in 8 bits.
    """
    if not really:
        yield
        return
    from unittest.mock import patch

    from bitsandbytes.autograd import _functions as products
    from trl.kernels import chunked_logprob
    from trl.trainer import utils

    def in_place(*_, **__) -> None:
        pass

    with (
        patch.object(utils, "_use_triton", lambda device: True),
        patch.object(chunked_logprob, "_forward_tile", in_place),
        patch.object(chunked_logprob, "_backward_tile", in_place),
        patch.object(products, "MatMul8bitFp", products.MatMul8bitLt),
    ):
        yield
