"""What recipes on Qwen-VL share: loading it, where LoRA goes, and the area that its processor gives each image."""

from dataclasses import dataclass, field, replace

from accelerate import PartialState
from peft import PeftConfig
from PIL import Image
from transformers import PreTrainedModel, ProcessorMixin
from trl import ModelConfig, get_peft_config

from .checkpoints import left_by_a_run, load_checkpoint
from .precision import launched_dtype, small_card

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
    model: ModelConfig, budget: PixelBudget, to_train: bool, adapter: bool
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Model and processor; an `adapter` is trained on four bits where the card is small, unless `model` says.

    A processor that was saved by a run keeps the budget it was trained with, to answer. Another family's, for recipes
    that are at home with it, has its own way to resize.
    """
    if model.load_in_4bit is None:
        model = replace(model, load_in_4bit=adapter and small_card())
    network, processor = load_checkpoint(model, to_train=to_train, skip_quantising=("model.visual",))
    of_qwen = "image_grid_thw" in processor.image_processor.model_input_names
    if of_qwen and (to_train or not left_by_a_run(model.model_name_or_path)):
        set_pixel_budget(processor, budget.min_pixels, budget.max_pixels)
    elif not of_qwen and PartialState().is_main_process:
        print(f"{type(processor).__name__} resizes pictures in its own way: --min_pixels and --max_pixels do nothing")
    return network, processor


def lora_on(model: ModelConfig, targets: str | None) -> PeftConfig | None:
    """LoRA as `model` says, on the layers that it names or those that match `targets`; None without any of these."""
    layers = model.lora_target_modules or targets
    return get_peft_config(replace(model, use_peft=True, lora_target_modules=layers)) if targets else None


def set_pixel_budget(processor: ProcessorMixin, min_pixels: int, max_pixels: int) -> None:
    """Make a Qwen-VL processor resize every image to an area between `min_pixels` and `max_pixels`, and check it.

    Raises `ValueError` if a large image still becomes larger than that, as it would with a processor that has its
    own way to name the limits.
    """
    image_processor = processor.image_processor
    image_processor.size = {"shortest_edge": min_pixels, "longest_edge": max_pixels}
    grid = image_processor(Image.new("RGB", (4000, 3000)), return_tensors="pt")["image_grid_thw"][0]
    if (pixels := int(grid.prod()) * image_processor.patch_size**2) > max_pixels:
        raise ValueError(f"a 4000×3000 image becomes {pixels} pixels, more than max_pixels={max_pixels}")
