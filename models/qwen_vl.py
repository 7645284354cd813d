"""What recipes on Qwen-VL share: loading it, where LoRA goes, and the area that its processor gives each image."""

import math
from collections.abc import Container
from dataclasses import dataclass, field, replace

from accelerate import PartialState
from peft import PeftConfig, PeftModel
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as CHAT
from trl import ModelConfig, get_peft_config

from .checkpoints import left_by_a_run, load_checkpoint
from .kinds import refuse_other_kinds
from .lora import refuse_unmatched
from .precision import launched_dtype, small_card
from .weights import CheckpointError

QWEN_VL = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")  # whose vision tower has the same name, and whose boxes are known
LANGUAGE = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"  # not the vision tower's
VISION = r".*visual\.blocks.*\.(qkv|attn\.proj|fc1|fc2)"


@dataclass
class QwenVL(ModelConfig):
    """For a recipe's `Model` to inherit."""

    model_name_or_path: str = "Qwen/Qwen2-VL-7B-Instruct"
    dtype: str = field(default_factory=launched_dtype)
    load_in_4bit: bool | None = field(default=None, metadata={"help": "QLoRA; by default on cards below 24 GB"})
    use_bnb_nested_quant: bool = True


@dataclass
class PixelBudget:
    """For a recipe's `Data` to inherit."""

    min_pixels: int = field(default=256 * 28 * 28, metadata={"help": "smaller images are enlarged to this area"})
    max_pixels: int = field(default=1280 * 28 * 28, metadata={"help": "larger images are reduced to this area"})


def load_qwen_vl(
    model: ModelConfig,
    budget: PixelBudget,
    output_dir: str | None,
    adapter: PeftConfig | None,
    kinds: Container[str] = CHAT,
) -> tuple[PreTrainedModel | PeftModel, ProcessorMixin]:
    """Model and processor, to answer or for a training that saves in `output_dir`, see `load_checkpoint`.

    An `adapter` is trained on four bits where the card is small, unless `model` says.

    A processor that was saved by a run keeps the budget it was trained with, to answer. Another family's, for recipes
    that are at home with it, has its own way to resize. Raises `CheckpointError` for a model that is of none of these
    `kinds`, or does not chat, and where LoRA would have no layer to train.
    """
    name, wanted = model.model_name_or_path, "chat models of images and text" if kinds is CHAT else " or ".join(kinds)
    refuse_other_kinds(name, kinds, f"this recipe is for {wanted}", model.model_revision)
    if model.load_in_4bit is None:
        model = replace(model, load_in_4bit=adapter is not None and small_card())
    to_train, apart = output_dir is not None, ("model.visual",)
    network, processor = load_checkpoint(model, to_train, apart, adapter=adapter, output_dir=output_dir)
    if processor.chat_template is None:
        raise CheckpointError(f"{name!r} has no chat template, and this recipe is for chat models: name another model")
    if to_train and adapter is not None and not isinstance(network, PeftModel):
        refuse_unmatched(network, adapter)
    of_qwen = "image_grid_thw" in processor.image_processor.model_input_names
    if of_qwen and (to_train or not left_by_a_run(model.model_name_or_path)):
        set_pixel_budget(processor, budget.min_pixels, budget.max_pixels)
    elif not of_qwen and PartialState().is_main_process:
        print(f"{type(processor).__name__} resizes pictures in its own way: --min_pixels and --max_pixels do nothing")
    return network, processor


def lora_on(model: ModelConfig, targets: str | None, network: PreTrainedModel | None = None) -> PeftConfig | None:
    """LoRA as `model` says, on the layers that it names or those that match `targets`.

    None without `targets`, and for a `network` whose own adapter trains on.
    """
    if not targets or isinstance(network, PeftModel):
        return None
    layers = model.lora_target_modules or targets
    return get_peft_config(replace(model, use_peft=True, lora_target_modules=layers))


def set_pixel_budget(processor: ProcessorMixin, min_pixels: int, max_pixels: int) -> None:
    """Make a Qwen-VL processor resize every image to an area between `min_pixels` and `max_pixels`, and check it.

    Raises `ValueError` if an image of twice that area still becomes larger than that, as it would with a
    processor that has its own way to name the limits.
    """
    image_processor = processor.image_processor
    image_processor.size = {"shortest_edge": min_pixels, "longest_edge": max_pixels}
    side = math.ceil((2 * max_pixels) ** 0.5)
    grid = image_processor(Image.new("RGB", (side, side)), return_tensors="pt")["image_grid_thw"][0]
    if (pixels := int(grid.prod()) * image_processor.patch_size**2) > max_pixels:
        raise ValueError(f"a {side}×{side} image becomes {pixels} pixels, more than max_pixels={max_pixels}")
