"""Our images and those of qwen_vl_utils.process_vision_info side by side, through the same processor.

Sizes and grids agree to the digit. Pixels agree within rounding: qwen_vl_utils resizes with Pillow, transformers with
torchvision, and both with the same antialiased bicubic filter. Three things differ: a rotation in the EXIF tag, which
qwen_vl_utils leaves out; slivers, which it cannot resize; and transparent pixels, which it makes white.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from qwen_vl_utils import process_vision_info
from qwen_vl_utils.vision_process import smart_resize

from vlm_recipes.collators import ChatCollator
from vlm_recipes.models.chat import set_pixel_budget

MIN_PIXELS, MAX_PIXELS = 16 * 28 * 28, 64 * 28 * 28
ORIENTATION = 0x0112
# Measured over these pictures: under 1% of the values differ, by one of 255 levels, and under .01% by two.
LEVELS, MEAN_LEVELS = 2, 0.012


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl"])
def processor(request):
    processor = request.getfixturevalue(request.param).new_processor()
    set_pixel_budget(processor, MIN_PIXELS, MAX_PIXELS)
    return processor


def noise(width: int, height: int, channels: int = 3) -> Image.Image:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze())


def waves(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    channels = [x * 255 / width, y * 255 / height, 128 + 127 * np.sin(x / 9) * np.cos(y / 7)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def ours(processor, image):
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
    ]
    return ChatCollator(processor)([{"id": "a", "images": [image], "messages": messages}])


def theirs(processor, image):
    part = {"type": "image", "image": image, "min_pixels": MIN_PIXELS, "max_pixels": MAX_PIXELS}
    images, _ = process_vision_info([{"role": "user", "content": [part]}])
    return processor.image_processor(images, return_tensors="pt")


def levels(processor, batch) -> torch.Tensor:
    """The 256 levels of a batch's pixels, channels last."""
    mean, std = (
        torch.tensor(values) for values in (processor.image_processor.image_mean, processor.image_processor.image_std)
    )
    return 255 * (batch["pixel_values"].unflatten(1, (3, -1)).movedim(1, -1) * std + mean)


def assert_alike(processor, image, reference):
    found, expected = ours(processor, image), theirs(processor, reference)
    assert torch.equal(found["image_grid_thw"], expected["image_grid_thw"])
    assert (found["input_ids"] == processor.image_token_id).sum() == expected["image_grid_thw"].prod() // 4
    difference = (levels(processor, found) - levels(processor, expected)).abs()
    assert difference.max() <= LEVELS + 1e-3 and difference.mean() <= MEAN_LEVELS


@pytest.mark.parametrize("size", [(60, 40), (300, 200), (112, 112), (1000, 700), (640, 480), (7, 5), (1, 1), (30, 3)])
@pytest.mark.parametrize("draw", [noise, waves])
@pytest.mark.parametrize("as_path", [False, True], ids=["image", "path"])
def test_grids_are_the_same_and_pixels_within_rounding(processor, size, draw, as_path, tmp_path):
    image = draw(*size)
    if as_path:
        image.save(tmp_path / "a.png")
        image = str(tmp_path / "a.png")
    assert_alike(processor, image, image)


@pytest.mark.parametrize("size", [(112, 112), (224, 168)])
def test_an_image_that_needs_no_resizing_is_the_same_bit_for_bit(processor, size):
    assert torch.equal(ours(processor, noise(*size))["pixel_values"], theirs(processor, noise(*size))["pixel_values"])


def test_a_grey_image_is_the_same(processor):
    assert_alike(processor, noise(300, 200, channels=1), noise(300, 200, channels=1))


def test_an_opaque_rgba_image_is_the_same_and_a_transparent_one_is_on_white(processor):
    """As theirs, and the processor's given such an image itself."""
    stored = noise(224, 168)
    opaque, transparent = stored.copy(), stored.copy()
    opaque.putalpha(255)
    transparent.putalpha(0)
    assert_alike(processor, opaque, opaque)
    assert_alike(processor, transparent, transparent)
    white = ours(processor, Image.new("RGB", (224, 168), "white"))["pixel_values"]
    assert torch.equal(ours(processor, transparent)["pixel_values"], white)
    assert torch.equal(processor.image_processor([transparent], return_tensors="pt")["pixel_values"], white)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotation_in_the_exif_tag_is_applied_as_every_viewer_does_and_not_by_them(processor, orientation, tmp_path):
    """Boxes and masks are annotated on what is displayed, and `datasets` turns the image likewise."""
    corners = Image.new("RGB", (2, 2))
    corners.putdata([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)])
    stored = corners.resize((300, 200), Image.Resampling.NEAREST)
    # The tag's own definition: where the stored first row and the stored first column are displayed.
    displayed = {
        1: stored,
        2: stored.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: stored.transpose(Image.Transpose.ROTATE_180),
        4: stored.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: stored.transpose(Image.Transpose.TRANSPOSE),
        6: stored.transpose(Image.Transpose.ROTATE_270),  # counter-clockwise in Pillow
        7: stored.transpose(Image.Transpose.TRANSVERSE),
        8: stored.transpose(Image.Transpose.ROTATE_90),
    }[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = Path(tmp_path, "a.png")
    stored.save(path, exif=exif)
    assert_alike(processor, path, displayed)
    assert torch.equal(theirs(processor, str(path))["pixel_values"], theirs(processor, stored)["pixel_values"])
    turned = torch.equal(ours(processor, path)["image_grid_thw"], theirs(processor, str(path))["image_grid_thw"])
    assert turned == (orientation < 5)


@pytest.mark.parametrize("size", [(2000, 15), (40, 4000)])
def test_a_sliver_that_they_cannot_resize_is_one_token_wide(processor, size):
    with pytest.raises(ValueError, match="height and width must be > 0"):
        theirs(processor, noise(*size))
    assert smart_resize(size[1], size[0], 28, MIN_PIXELS, MAX_PIXELS).count(0) == 1
    assert 2 in ours(processor, noise(*size))["image_grid_thw"][0, 1:].tolist()
