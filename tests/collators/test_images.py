import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor
from trl import ModelConfig

from tests.rows.test_usable import EXIF_ORIENTATION, encoded, picture
from tests.support import tiny
from vlm_recipes.collators import (
    ChatCollator,
    SegmentationCollator,
    Seq2SeqCollator,
    SharedImageCollator,
    VideoCollator,
)
from vlm_recipes.collators.images import by_image, open_image, open_images, open_only_image
from vlm_recipes.models.lisa.loading import load_lisa
from vlm_recipes.models.surgvivqa.loading import SurgViVqaProcessor
from vlm_recipes.rows.errors import BadRow

PIXELS = np.asarray(picture())


@pytest.fixture
def file(tmp_path) -> Path:
    picture().save(tmp_path / "a.png")
    return tmp_path / "a.png"


def spellings(file: Path) -> dict:
    """The same picture, spelt in every way."""
    tensor = torch.from_numpy(PIXELS.copy())
    return {
        "PIL": picture(),
        "path": str(file),
        "Path": file,
        "bytes": encoded(),
        "stored path": {"bytes": None, "path": str(file)},
        "bytes win": {**encoded(), "path": "/nowhere.png"},
        "array": PIXELS,
        "read-only array": np.broadcast_to(PIXELS, PIXELS.shape),
        "tensor": tensor,
        "channels first": tensor.permute(2, 0, 1),
    }


@pytest.mark.parametrize("spelling", spellings(Path("a.png")))
def test_an_image_opens_to_the_same_pixels_however_it_is_spelt(spelling, file):
    image = spellings(file)[spelling]
    for row in ({"image": image}, {"images": image}, {"images": [image]}, {"image": image, "images": None}):
        [opened] = open_images(row)
        assert opened.mode == "RGB" and np.array_equal(np.asarray(opened), PIXELS)
        assert np.array_equal(np.asarray(open_only_image(row)), PIXELS)


def test_rows_with_one_image_id_have_one_image_as_far_as_one_sees_unopened(file):
    def row(name, *shown):
        return {"id": name, "image_id": "x", "images": list(shown)}

    stored = {"bytes": None, "path": str(file)}
    for same in ([stored, dict(stored)], [str(file), file], [picture(), picture()], [encoded(), encoded()]):
        assert by_image([row("a", same[0]), row("b", same[1]), row("c")])[1] == [0, 0, 0]
    other = encoded(picture(41))
    for images in ([encoded(), other], [stored, stored | {"path": "b.png"}], [picture(), picture(41)]):
        with pytest.raises(ValueError, match="^row 'b': its image_id 'x' has other images in row 'a'$"):
            by_image([row("a", images[0]), row("b", images[1])])
    with pytest.raises(ValueError, match="^row 'b': its image_id 'x' has other images in row 'a'$"):
        by_image([row("a", stored), row("b", stored, stored)])
    assert by_image([row("a", stored), row("b", other) | {"image_id": None}])[1] == [0, 1]


def test_a_grey_array_becomes_a_grey_picture():
    for grey in (PIXELS[:, :, 0], torch.from_numpy(PIXELS[:, :, 0].copy())):
        assert np.array_equal(np.asarray(open_image(grey)), np.repeat(PIXELS[:, :, :1], 3, axis=2))


def test_bytes_are_turned_upright_by_their_exif_tag():
    stored = encoded(format="JPEG", orientation=6)
    assert Image.open(io.BytesIO(stored["bytes"])).getexif()[EXIF_ORIENTATION] == 6
    assert open_image(stored).size == (30, 40)


def test_of_a_mixed_files_rows_no_image_is_lost():
    rows = [{"image": encoded(), "images": None}, {"image": None, "images": [encoded()] * 2}, {"image": None}]
    assert [len(open_images(row)) for row in rows] == [1, 2, 0]


def test_one_image_is_due_where_a_model_reads_one():
    for row, n in (({}, 0), ({"image": None, "images": []}, 0), ({"images": [picture()] * 2}, 2)):
        with pytest.raises(BadRow, match=f"^{n} images, where the model reads one$"):
            open_only_image(row)


@pytest.mark.parametrize("wrong", [7, b"\x89PNG", {"url": "a.png"}, PIXELS / 255, [], ["a.png", "b.png"], None])
def test_what_is_no_image_is_no_traceback(wrong):
    with pytest.raises(BadRow, match="no image|an image that is a"):
        open_image(wrong)


def test_a_broken_picture_is_a_refusal_whatever_its_decoder_raises(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # DecompressionBombError is neither ValueError nor OSError
    with pytest.raises(BadRow, match="^image cannot be read: Image size .1200 pixels. exceeds limit"):
        open_image(encoded())


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "0 images, where the model reads one"),
        ({"image": None}, "0 images, where the model reads one"),
        ({"images": [picture(), picture()]}, "2 images, where the model reads one"),
        ({"image": 7}, "an image that is a int"),
        ({"image": picture(), "images": [picture(seed=1)]}, "different pictures"),
    ],
    ids=range(5),
)
def test_a_question_about_no_image_names_its_row(blip2, row, reason):
    with pytest.raises(ValueError, match=f"^row 'r7': .*{reason}"):
        Seq2SeqCollator(blip2.processor)([{"id": "r7", "prompt": "So?", "answer": "yes", **row}])


def test_a_question_reads_its_picture_under_either_key(blip2):
    asked = {"id": "r7", "prompt": "So?", "answer": "yes"}
    one, other = (
        Seq2SeqCollator(blip2.processor)([asked | row])["pixel_values"]
        for row in ({"image": picture()}, {"image": None, "images": [encoded()]})
    )
    assert torch.equal(one, other)


# --- transparency


def cut_out() -> Image.Image:
    """A picture, all of it or nothing seen: then Pillow's compositing rounds nothing."""
    layered = picture(60, 40).convert("RGBA")
    layered.putalpha(Image.fromarray(np.random.default_rng(1).choice([0, 255], (40, 60)).astype(np.uint8)))
    return layered


def seq2seq(**settings):
    processor = AutoProcessor.from_pretrained(tiny.blip2())
    row = {"prompt": "So?", "answer": "yes"}
    return Seq2SeqCollator(processor, **settings), row, {"pixel_values": processor.image_processor}


def video(**settings):
    processor = SurgViVqaProcessor.from_pretrained(tiny.surgvivqa())
    row = {"prompt": "So?", "answer": "grasp"}
    return VideoCollator(processor, 2, **settings), row, {"pixel_values": processor.image_processor}


def chat(collator=ChatCollator, **settings):
    processor = AutoProcessor.from_pretrained(tiny.qwen2_vl())
    row = {"messages": tiny.chat_rows()[0]["messages"]}
    return collator(processor, **settings), row, {"pixel_values": processor.image_processor}


def segmentation(**settings):
    llava, sam = tiny.lisa()
    _, processor = load_lisa(ModelConfig(str(llava), dtype="float32"), str(sam))
    row = {"messages": tiny.mask_rows()[1]["messages"], "masks": []}
    own = {"pixel_values": processor.image_processor, "sam_pixel_values": processor.sam_image_processor}
    return SegmentationCollator(processor, **settings), row, own


COLLATORS = {
    "chat": chat,
    "shared image": lambda **settings: chat(SharedImageCollator, **settings),
    "seq2seq": seq2seq,
    "segmentation": segmentation,
    "video": video,
}


@pytest.mark.parametrize("settings", [{}, {"background": "white"}, {"background": "black"}], ids=str)
@pytest.mark.parametrize("make", COLLATORS.values(), ids=COLLATORS)
def test_of_a_transparent_picture_a_model_gets_the_processor_s_pixels_of_the_composited_one(make, settings, tmp_path):
    collator, row, processors = make(**settings)
    canvas = Image.new("RGBA", (60, 40), settings.get("background", "white"))
    composited = Image.alpha_composite(canvas, cut_out()).convert("RGB")
    cut_out().save(tmp_path / "a.png")
    for image in (cut_out(), tmp_path / "a.png", encoded(cut_out())):
        batch = collator([{"id": "r7", "image_id": "i", "image": image, **row}])
        for name, processor in processors.items():
            expected = processor([composited], return_tensors="pt")["pixel_values"]
            assert torch.equal(batch[name].reshape(expected.shape), expected)


# --- pictures of more than 8 bits


@pytest.mark.parametrize("mode", ["I", "I;16", "I;16B", "F"])
@pytest.mark.parametrize("make", COLLATORS.values(), ids=COLLATORS)
def test_a_deep_picture_in_memory_is_refused_as_a_file_is(make, mode, tmp_path):
    """Its conversion to RGB would show all above 255 as white."""
    collator, row, _ = make()
    deep = Image.new(mode, (60, 40), 300)
    deep.save(tmp_path / "deep.tif")
    reason = "image of mode {}, deeper than 8 bits: convert it, so that you choose what is white"
    for image, found in ((deep, mode), (tmp_path / "deep.tif", Image.open(tmp_path / "deep.tif").mode)):
        with pytest.raises(ValueError) as refused:
            collator([{"id": "r7", "image_id": "i", "image": image, **row}])
        assert str(refused.value) == f"row 'r7': {reason.format(found)}"
