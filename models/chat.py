"""What recipes on chat models share: loading one of any family, where LoRA goes, and the area of an image."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from peft import PeftConfig, PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText, PreTrainedModel, ProcessorMixin
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as CHAT
from trl import ModelConfig, get_peft_config

from .checkpoints import left_by_a_run, load_checkpoint
from .kinds import refuse_other_kinds
from .lora import LoraModel, layers_of, refuse_lora, refuse_unmatched
from .parts import LANGUAGE, VISION, fused_layers, parts_of, train_only
from .precision import small_card
from .weights import CheckpointError, load_named, load_weights, without_weights

TRIED = 16 * 28  # the side of a square, in pixels, to see how a processor counts its area
# What adapters of earlier versions call the layers of these parts: they train on with those that they have.
EARLIER = {(LANGUAGE,): r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"}
EARLIER[LANGUAGE, VISION] = EARLIER[LANGUAGE,] + r"|.*visual\.blocks.*\.(qkv|attn\.proj|fc1|fc2)"


@dataclass
class ChatModel(LoraModel):
    """For a recipe's `Model` to inherit."""

    model_name_or_path: str = "Qwen/Qwen2-VL-7B-Instruct"
    load_in_4bit: bool | None = field(default=None, metadata={"help": "QLoRA; by default on cards below 24 GB"})
    use_bnb_nested_quant: bool = True


@dataclass
class PixelBudget:
    """For a recipe's `Data` to inherit; it does nothing where a model's processor resizes in its own way."""

    min_pixels: int = field(default=256 * 28 * 28, metadata={"help": "smaller images are enlarged to this area"})
    max_pixels: int = field(default=1280 * 28 * 28, metadata={"help": "larger images are reduced to this area"})


def load_chat_model(
    model: ModelConfig,
    budget: PixelBudget,
    output_dir: str | None,
    lora: Sequence[str] = (),
    whole: Sequence[str] | None = None,
) -> tuple[PreTrainedModel | PeftModel, ProcessorMixin]:
    """Model and processor, to answer or for a training that saves in `output_dir`, see `load_checkpoint`.

    LoRA goes to the parts of the model that `lora` names (see `vlm_recipes.models.parts`), on four bits where the card
    is small, unless `model` says. Or else those parts train that `whole` names, () being all of them. What is no
    language model is never quantised.

    A processor that was saved by a run keeps the budget it was trained with, to answer. One without an area to give
    has its own way to resize. Raises `CheckpointError` for a model that is none of images and text, or does not chat,
    and where LoRA would have no layer to train.
    """
    name, to_train, says = model.model_name_or_path, output_dir is not None, PartialState().is_main_process
    refuse_other_kinds(name, CHAT, "this recipe is for chat models of images and text", model.model_revision)
    if to_train and lora:
        refuse_lora(model, "what trains here is LoRA", "use_peft")
    elif to_train:
        refuse_lora(model, "what trains here trains whole, without LoRA")
    if model.load_in_4bit is None:
        model = replace(model, load_in_4bit=bool(lora) and small_card() and not model.load_in_8bit)
    outline = outline_of(model)
    parts, adapter = parts_of(outline), lora_on(model, lora, outline)
    if adapter is not None and not model.lora_target_modules and Path(name, "adapter_config.json").is_file():
        if (made := PeftConfig.from_pretrained(name).target_modules) == EARLIER.get(tuple(lora)):
            adapter.target_modules = made
    if whole and parts is None:
        kind = outline.config.model_type
        raise CheckpointError(f"this {kind} does not say which its language model and its vision tower are: train all")
    apart = () if parts is None else parts.beside(outline)
    network, processor = load_checkpoint(model, to_train, apart, adapter=adapter, output_dir=output_dir)
    if processor.chat_template is None:
        raise CheckpointError(f"{name!r} has no chat template, and this recipe is for chat models: name another model")
    if to_train and adapter is not None and not isinstance(network, PeftModel):
        refuse_unmatched(network, adapter)
    if to_train and whole is not None:
        train_only(network, whole)
    if to_train and adapter is not None and parts is not None and says:
        if fused := fused_layers(outline, parts.language):
            share = sum(fused.values()) / sum(weight.numel() for weight in outline.parameters())
            print(f"LoRA is for linear layers: {share:.0%} of the weights, fused as {min(fused)} is, stay as they are")
    has_own_way = not has_budget(processor)
    if has_own_way and says:
        print(f"{type(processor).__name__} resizes pictures in its own way: --min_pixels and --max_pixels do nothing")
    elif not has_own_way and (to_train or not left_by_a_run(name, model.model_revision)):
        if budget.min_pixels > budget.max_pixels:  # small pictures would become larger than large ones
            least, most = budget.min_pixels, budget.max_pixels
            raise CheckpointError(f"--min_pixels {least} is more than --max_pixels {most}: give both of them")
        set_pixel_budget(processor, budget.min_pixels, budget.max_pixels)
    elif not has_own_way:
        _say_trained(name, budget_of(processor), budget)
    return network, processor


def outline_of(model: ModelConfig) -> PreTrainedModel:
    """The model that `model` names, or the base of that adapter, without weights: what can be known before they are.

    Raises `CheckpointError` as `load_checkpoint` does.
    """

    def base(name: str, revision: str | None, config: None) -> tuple[PreTrainedModel, None]:
        return load_weights(AutoModelForImageTextToText, name, revision=revision), None

    with without_weights():
        return load_named(model, base, to_train=True)[0]


def lora_on(model: ModelConfig, parts: Sequence[str], network: PreTrainedModel | PeftModel) -> PeftConfig | None:
    """LoRA as `model` says, on the layers that it names or all linear ones of these `parts` of the `network`.

    None without `parts`, and for a `network` whose own adapter trains on.
    """
    if not parts or isinstance(network, PeftModel):
        return None
    layers = model.lora_target_modules or layers_of(network, parts)
    return get_peft_config(replace(model, use_peft=True, lora_target_modules=layers))


def has_budget(processor: ProcessorMixin) -> bool:
    """Whether its images keep their shape and get an area between two limits, as Qwen-VL's and GLM-4V's do."""
    image_processor = processor.image_processor
    limit = (image_processor.size or {}).get
    has_limits = limit("shortest_edge") is not None and limit("longest_edge") is not None
    return has_limits and "image_grid_thw" in image_processor.model_input_names


def set_pixel_budget(processor: ProcessorMixin, min_pixels: int, max_pixels: int) -> None:
    """Make a processor that `has_budget` resize every image to an area between `min_pixels` and `max_pixels`.

    Raises `ValueError` if an image of twice that area still becomes larger than that, as it would with a
    processor that has its own way to name the limits.
    """
    image_processor = processor.image_processor
    frames = _frames(image_processor)
    image_processor.size = {"shortest_edge": frames * min_pixels, "longest_edge": frames * max_pixels}
    side = math.ceil((2 * max_pixels) ** 0.5)
    if (pixels := _area(image_processor, side)) > max_pixels:
        raise ValueError(f"a {side}×{side} image becomes {pixels} pixels, more than max_pixels={max_pixels}")


def budget_of(processor: ProcessorMixin) -> tuple[int, int]:
    """The least and the largest area in pixels, as `set_pixel_budget` sets them."""
    image_processor = processor.image_processor
    limits = (image_processor.size[edge] for edge in ("shortest_edge", "longest_edge"))
    return tuple(limit // _frames(image_processor) for limit in limits)


def _frames(image_processor: Any) -> int:
    """As how many pictures the limits count one: GLM-4V's, as the frames of a video that it is repeated to."""
    tried = copy.copy(image_processor)
    tried.size = {"shortest_edge": 1, "longest_edge": TRIED**2}
    return round(TRIED**2 / _area(tried, 2 * TRIED))


def _area(image_processor: Any, side: int) -> int:
    grid = image_processor(Image.new("RGB", (side, side)), return_tensors="pt")["image_grid_thw"][0]
    return int(grid.prod()) * image_processor.patch_size**2


def _say_trained(name: str, trained: tuple[int, int], budget: PixelBudget) -> None:
    """Say with which budget a run's model answers; raises `CheckpointError` where another one is asked for."""
    names = ("min_pixels", "max_pixels")
    kept = " ".join(f"--{limit} {pixels}" for limit, pixels in zip(names, trained, strict=True))
    for limit, pixels in zip(names, trained, strict=True):
        if getattr(budget, limit) not in (pixels, getattr(type(budget), limit)):
            asked = f"--{limit} {getattr(budget, limit)}"
            raise CheckpointError(f"{asked} has no effect: {name} is shown pictures as it was trained, {kept}")
    if any(getattr(budget, limit) != pixels for limit, pixels in zip(names, trained, strict=True)):
        PartialState().print(f"pictures are shown as {name} was trained: {kept}")
