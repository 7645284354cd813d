"""What is shown as the model's view is what the image processor's resize gives; PIL's own resize is the oracle."""

import numpy as np
import pytest
import torch
from PIL import Image
from qwen_vl_utils.vision_process import smart_resize
from transformers import LlavaProcessor, SamImageProcessor, VideoMAEImageProcessor

from tests.support import tiny
from vlm_recipes.collators import SegmentationCollator, VideoCollator
from vlm_recipes.eval.report.data.seen_images import seen_images
from vlm_recipes.models.lisa.loading import LisaProcessor
from vlm_recipes.models.surgvivqa.loading import SurgViVqaProcessor

BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR
GREY_LEVELS = 3  # by which PIL and torchvision may differ at an edge


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Colours that change in both directions, with rectangles on them, so that no part looks like another."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([255 * x / width, 255 * y / height, 127 + 120 * np.sin(x / 9 + y / 13 + seed)], axis=-1)
    pixels[height // 5 : height // 3, width // 4 : width // 2] = (250, 20, 30 + seed)
    return Image.fromarray(pixels.round().astype(np.uint8))


def difference(left: Image.Image, right: Image.Image) -> int:
    """The largest difference of any colour of any pixel."""
    assert left.size == right.size and left.mode == right.mode == "RGB"
    return np.abs(np.asarray(left).astype(int) - np.asarray(right)).max()


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_qwen_s_patches_become_the_resized_images_again_each_of_its_own_size(family, request):
    processor = request.getfixturevalue(family).processor.image_processor
    pictures = [picture(300, 200), picture(90, 310, 40), picture(40, 40, 80)]
    seen = seen_images(processor(pictures, return_tensors="pt"), processor)
    limits = processor.size["shortest_edge"], processor.size["longest_edge"]
    sizes = [smart_resize(image.height, image.width, 28, *limits)[::-1] for image in pictures]
    assert [image.size for image in seen] == sizes and len(set(sizes)) == 3
    for image, original, size in zip(seen, pictures, sizes, strict=True):
        assert difference(image, original.resize(size, BICUBIC)) <= GREY_LEVELS


def test_the_first_frame_of_a_qwen_video_is_shown(qwen2_vl):
    processor = qwen2_vl.processor
    frames = torch.stack([torch.from_numpy(np.array(picture(84, 56, 30 * i))).permute(2, 0, 1) for i in range(4)])
    video = processor.video_processor(
        [frames], size={"shortest_edge": 84 * 56, "longest_edge": 4 * 84 * 56}, do_sample_frames=False
    )
    assert video["video_grid_thw"].tolist() == [[2, 4, 6]]
    batch = {"pixel_values": video["pixel_values_videos"], "image_grid_thw": video["video_grid_thw"]}
    [seen] = seen_images(batch, processor.image_processor)
    assert difference(seen, picture(84, 56)) <= 1


def test_llava_is_shown_with_what_clip_cuts_off_missing(llava):
    processor = llava.processor.image_processor
    assert isinstance(llava.processor, LlavaProcessor)
    [seen] = seen_images(processor([picture(336, 224)], return_tensors="pt"), processor)
    resized = picture(336, 224).resize((168, 112), BICUBIC)
    assert difference(seen, resized.crop((28, 0, 140, 112))) <= GREY_LEVELS


def test_blip2_is_shown_squeezed_to_its_square(blip2):
    processor = blip2.processor.image_processor
    wide, tall = seen_images(processor([picture(90, 60), picture(50, 100, 9)], return_tensors="pt"), processor)
    assert difference(wide, picture(90, 60).resize((32, 32), BICUBIC)) <= GREY_LEVELS
    assert difference(tall, picture(50, 100, 9).resize((32, 32), BICUBIC)) <= GREY_LEVELS


def test_sam_is_shown_with_its_padding_in_the_mean_colour():
    processor = SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    [seen] = seen_images(processor([picture(128, 80)], return_tensors="pt"), processor)
    assert seen.size == (64, 64)
    assert difference(seen.crop((0, 0, 64, 40)), picture(128, 80).resize((64, 40), BILINEAR)) <= GREY_LEVELS
    mean = [round(255 * value) for value in processor.image_mean]
    assert np.unique(np.asarray(seen)[40:].reshape(-1, 3), axis=0).tolist() == [mean]


def test_of_a_clip_the_first_frame_is_shown():
    processor = VideoMAEImageProcessor(size={"height": 72, "width": 72}, do_center_crop=False)
    clips = [[picture(100, 80, 30 * i) for i in range(3)], [picture(100, 80, 200)] * 3]
    pixels = processor(clips, return_tensors="pt")
    assert list(pixels["pixel_values"].shape) == [2, 3, 3, 72, 72]
    first, second = seen_images(pixels, processor)
    assert difference(first, picture(100, 80).resize((72, 72), BILINEAR)) <= GREY_LEVELS
    assert difference(second, picture(100, 80, 200).resize((72, 72), BILINEAR)) <= GREY_LEVELS


def test_a_processor_that_neither_scales_nor_normalises_is_believed():
    processor = VideoMAEImageProcessor(do_resize=False, do_center_crop=False, do_rescale=False, do_normalize=False)
    [seen] = seen_images(processor([[picture(70, 50)]], return_tensors="pt"), processor)
    assert difference(seen, picture(70, 50)) == 0


def test_of_a_shape_that_is_not_known_no_picture_is_made(qwen2_vl):
    processor = qwen2_vl.processor.image_processor
    pixels = processor([picture(84, 84)], return_tensors="pt")
    assert seen_images({"pixel_values": pixels["pixel_values"]}, processor) == []  # patches without their grid
    assert seen_images(pixels | {"pixel_values": pixels["pixel_values"][:, :588]}, processor) == []  # of one frame
    assert seen_images({"pixel_values": torch.zeros(1, 1, 4, 3, 28, 28)}, processor) == []  # Mllama's tiles
    assert seen_images({"pixel_values": torch.zeros(1, 36, 588)}, processor) == []  # Gemma 4's and LFM2-VL's patches


def test_a_batch_of_lisa_s_collator_shows_what_each_of_its_towers_sees():
    llava, sam = tiny.lisa()
    processor = LisaProcessor.compose(LlavaProcessor.from_pretrained(llava), SamImageProcessor.from_pretrained(sam))
    rows = tiny.mask_rows()
    batch = SegmentationCollator(processor)(rows)
    for_clip = seen_images(batch, processor.image_processor)
    for_sam = seen_images({"pixel_values": batch["sam_pixel_values"]}, processor.sam_image_processor)
    assert [image.size for image in for_clip + for_sam] == [(32, 32)] * 8
    [wide] = [i for i, row in enumerate(rows) if row["image"].size == (80, 40)]
    resized = rows[wide]["image"].resize((32, 16), BILINEAR)
    assert difference(for_sam[wide].crop((0, 0, 32, 16)), resized) <= GREY_LEVELS
    resized = rows[wide]["image"].resize((64, 32), BICUBIC)
    assert difference(for_clip[wide], resized.crop((16, 0, 48, 32))) <= GREY_LEVELS


def test_a_batch_of_the_video_collator_shows_the_first_frame_of_each_video():
    processor = SurgViVqaProcessor.from_pretrained(tiny.surgvivqa())
    frames = [picture(60, 50), picture(60, 50, 99)]
    rows = [{"id": "clip", "frames": frames, "prompt": "What?", "answer": "grasp"}, tiny.video_rows()[2]]
    clip, still = seen_images(VideoCollator(processor, num_frames=2)(rows), processor.image_processor)
    assert difference(clip, frames[0].resize((32, 32), BILINEAR)) <= GREY_LEVELS
    assert np.unique(np.asarray(still).reshape(-1, 3), axis=0).tolist() == [[0, 255, 0]]
