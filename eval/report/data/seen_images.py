"""What an image processor gave -> pictures again, so that a person sees what the model sees."""

from collections.abc import Mapping

import torch
from PIL import Image
from transformers import BaseImageProcessor


def seen_images(pixels: Mapping[str, torch.Tensor], image_processor: BaseImageProcessor) -> list[Image.Image]:
    """The pictures in `pixels`, RGB, of the size that the model reads: cropped, squeezed and padded as it sees them.

    `pixels` is what `image_processor` gave, or a batch that holds it; of a video the first frame is shown. For SAM's
    half of a LISA batch: `seen_images({"pixel_values": batch["sam_pixel_values"]}, processor.sam_image_processor)`.
    SAM pads after it normalises, so its padding has the mean colour. Of another shape, such as that of Mllama's tiles,
    no picture is made: it is missing in what is shown.

    Args:
        pixels: `pixel_values`, either `[images, 3, H, W]` or `[videos, frames, 3, H, W]`, or with `image_grid_thw`
            `[images, 3]` Qwen-VL's flat patches, `[patches, 3 * temporal_patch_size * patch_size**2]`.
        image_processor: knows how the values were scaled, and how patches were cut.
    """
    values = pixels["pixel_values"].detach().float().cpu()
    if values.ndim == 2 and "image_grid_thw" in pixels and _is_cut_as_qwen_s(values, image_processor):
        grids = pixels["image_grid_thw"].tolist()
        parts = values.split([frames * height * width for frames, height, width in grids])
        pictures = [_from_patches(part, grid, image_processor) for part, grid in zip(parts, grids, strict=True)]
    elif values.ndim in (4, 5) and values.shape[-3] == 3:
        pictures = list(values if values.ndim == 4 else values[:, 0])
    else:
        return []
    return [_as_picture(picture, image_processor) for picture in pictures]


def _is_cut_as_qwen_s(patches: torch.Tensor, image_processor: BaseImageProcessor) -> bool:
    names = ("merge_size", "patch_size", "temporal_patch_size")
    if not all(hasattr(image_processor, name) for name in names):
        return False
    return patches.shape[1] == 3 * image_processor.temporal_patch_size * image_processor.patch_size**2


def _from_patches(patches: torch.Tensor, grid: list[int], image_processor: BaseImageProcessor) -> torch.Tensor:
    """Qwen-VL's patches `[t * h * w, …]` of one image, which come in squares of `merge_size`, as `[3, H, W]`."""
    (frames, height, width), merge = grid, image_processor.merge_size
    size, repeats = image_processor.patch_size, image_processor.temporal_patch_size
    patches = patches.reshape(frames, height // merge, width // merge, merge, merge, 3, repeats, size, size)
    patches = patches[0, :, :, :, :, :, 0]  # rows and columns of squares, rows and columns within, colour, y, x
    return patches.permute(4, 0, 2, 5, 1, 3, 6).reshape(3, height * size, width * size)


def _as_picture(values: torch.Tensor, image_processor: BaseImageProcessor) -> Image.Image:
    if image_processor.do_normalize:
        mean, std = (torch.tensor(image_processor.image_mean), torch.tensor(image_processor.image_std))
        values = values * std[:, None, None] + mean[:, None, None]
    if image_processor.do_rescale:
        values = values / image_processor.rescale_factor
    return Image.fromarray(values.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy())
