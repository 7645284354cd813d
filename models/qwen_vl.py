"""What recipes on Qwen-VL share: where LoRA goes, and the area that its processor gives each image."""

from PIL import Image
from transformers import ProcessorMixin

LANGUAGE = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"  # not the vision tower's


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
