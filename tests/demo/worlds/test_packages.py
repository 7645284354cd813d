import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import load_dataset
from PIL import Image, ImageOps, UnidentifiedImageError
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl.chat_template_utils import get_training_chat_template

from demo.checkpoints.llava import write_llava
from demo.checkpoints.qwen2_vl import SPECIAL_TOKENS, write_qwen2_vl
from demo.worlds.packages.dataset import draw_packages
from demo.worlds.packages.photo import draw_photo

TEXTS = ["Detect the bounding box of the nutrition table.", "nutrition-table<|box_start|>(14,57),(991,603)<|box_end|>"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "packages"
    draw_packages(folder, train=100, val=4, seed=7)
    return folder


@pytest.fixture(scope="module")
def rows(packages):
    return [json.loads(line) for line in (packages / "train" / "metadata.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def splits(packages, tmp_path_factory):
    return load_dataset(str(packages), cache_dir=str(tmp_path_factory.mktemp("cache")))


def displayed(path: Path) -> Image.Image | None:
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image)
    except OSError:
        return None


def usable(row: dict) -> bool:
    boxes = row["objects"]["bbox"]
    numbers = [number for box in boxes for number in box]
    return None not in numbers and all(
        0 <= y_min < y_max <= 1 and 0 <= x_min < x_max <= 1 for y_min, x_min, y_max, x_max in boxes
    )


def test_the_same_seed_draws_the_same_bytes_and_another_seed_does_not(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        draw_packages(tmp_path / name, train=8, val=2, broken=2, seed=seed)
    files = [
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in "abc"
    ]
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_a_smaller_dataset_is_the_beginning_of_a_larger_one(tmp_path, packages, rows):
    draw_packages(tmp_path / "small", train=4, val=0, broken=0, seed=7)
    small = [json.loads(line) for line in (tmp_path / "small" / "train" / "metadata.jsonl").read_text().splitlines()]
    pairs = [pair for pair in zip(small, rows, strict=False) if usable(pair[1])]
    assert len(pairs) > 1 and all(one == other for one, other in pairs)


def test_load_dataset_reads_the_hubs_columns_and_split_names(splits, rows):
    assert {name: len(split) for name, split in splits.items()} == {"train": 100, "val": 4}
    features = splits["train"].features  # as the card of the Hub's dataset lists them
    assert set(features) == {"image_id", "image", "width", "height", "meta", "objects"}
    assert set(features["meta"]) == {"barcode", "off_image_id", "image_url"}
    assert set(features["objects"]) == {"bbox", "category_id", "category_name"}
    first = splits["train"][0]
    assert first["image"].size == (first["width"], first["height"])
    assert first["objects"] == rows[0]["objects"]
    assert first["image_id"] == f"{first['meta']['barcode']}_{first['meta']['off_image_id']}"
    assert first["objects"]["category_name"][0] == "nutrition-table"


def test_sizes_refer_to_the_displayed_picture_and_every_kind_of_jpeg_is_there(packages, rows):
    kinds = Counter()
    for row in rows:
        path = packages / "train" / row["file_name"]
        image = displayed(path)
        if image is None:
            continue
        assert image.size == (row["width"], row["height"])
        assert all(120 <= side <= 400 for side in image.size)
        with Image.open(path) as stored:
            kinds[stored.mode] += 1
            kinds["turned"] += stored.getexif().get(0x0112) is not None
            kinds["lying"] += stored.size != image.size
    assert kinds["RGB"] > 0.7 * len(rows)
    assert min(kinds[kind] for kind in ("L", "CMYK", "turned", "lying")) > 0


def test_one_package_in_five_has_several_tables_in_reading_order(rows):
    boxes = [row["objects"]["bbox"] for row in rows if usable(row)]
    assert 0.1 < np.mean([len(tables) > 1 for tables in boxes]) < 0.3
    assert all(tables == sorted(tables, key=lambda box: box[:2]) for tables in boxes)


def test_boxes_follow_the_tables_through_the_perspective(monkeypatch):
    """Oracle: print each table in pure magenta on a black package; the magenta pixels' extent is the box."""

    def magenta(rng, pen, spot):
        pen.rectangle(spot, fill=(255, 0, 255))

    monkeypatch.setattr("demo.worlds.packages.face._table", magenta)
    monkeypatch.setattr("demo.worlds.packages.face.FACES", ((0, 0, 0),) * 12)
    for index in range(20):
        photo, boxes = draw_photo(np.random.default_rng((11, index)))
        red, green, blue = np.asarray(photo, dtype=int).transpose(2, 0, 1)
        y, x = np.nonzero((red + blue) / 2 - green > 60)
        extent = np.array((x.min(), y.min(), x.max() + 1, y.max() + 1))
        drawn = np.array(boxes)
        expected = np.concatenate((drawn[:, :2].min(0), drawn[:, 2:].max(0)))
        assert np.abs(extent - expected).max() < 4, (index, extent, expected)


def test_broken_rows_reach_the_loader_and_only_they_are_unusable(splits, rows):
    unreadable, outside = Counter(), 0
    for row, index in zip(rows, range(len(rows)), strict=True):
        outside += not usable(row)
        try:
            assert splits["train"][index]["objects"] is not None
        except OSError as error:
            unreadable[type(error)] += 1
    assert unreadable == {FileNotFoundError: 1, UnidentifiedImageError: 1, OSError: 1}
    assert outside == 4  # inverted, outside 0-1, NaN and null
    assert usable(rows[0])


def test_more_broken_rows_than_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="broken=7"):
        draw_packages(tmp_path / "packages", train=5, val=1)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "llava"])
def test_checkpoints_load_offline_train_and_generate(tmp_path, family):
    if family == "llava":
        write_llava(tmp_path, TEXTS, hidden_size=32, layers=1, image_size=56)
    else:
        write_qwen2_vl(tmp_path, TEXTS, family=family, hidden_size=32, layers=1)
    processor = AutoProcessor.from_pretrained(tmp_path)
    model, loading = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values())
    assert model.config.model_type == family
    assert model.config.image_token_id == processor.image_token_id
    assert model.get_input_embeddings().num_embeddings == len(processor.tokenizer)

    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": TEXTS[0]}]}]
    prompt = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    image = Image.effect_noise((150, 90), 60).convert("RGB")
    batch = processor(text=[prompt], images=[image], return_tensors="pt")
    model(**batch, labels=batch["input_ids"]).loss.backward()
    patches = [parameter for name, parameter in model.named_parameters() if "patch_embed" in name]
    assert all(parameter.grad.abs().sum() > 0 for parameter in patches)
    tokens = model.generate(**batch, max_new_tokens=3, do_sample=False)
    assert tokens.shape[1] > batch["input_ids"].shape[1]


def test_the_same_seed_writes_the_same_weights(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.rand(3)
        write_qwen2_vl(tmp_path / name, TEXTS, hidden_size=16, layers=1, seed=seed)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]
    tokenizers = [(tmp_path / name / "tokenizer.json").read_bytes() for name in "ab"]
    assert tokenizers[0] == tokenizers[1]


def test_the_qwen2_tokenizer_is_as_the_original(tmp_path):
    write_qwen2_vl(tmp_path, TEXTS, hidden_size=16, layers=1)
    processor = AutoProcessor.from_pretrained(tmp_path)
    tokenizer = processor.tokenizer
    assert get_training_chat_template(processor)  # TRL compares the whole template
    ids = tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))
    assert ids == list(range(tokenizer.vocab_size, len(tokenizer)))
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == ("<|im_end|>", "<|endoftext|>", None)
    numbers = [token for token in tokenizer.tokenize(TEXTS[1]) if any(map(str.isdigit, token))]
    assert numbers == [*"1457991603"]  # a token for each digit
    for text in ("Ünïcödé 漢字 🥣 <|im_start|> \n\n x", *TEXTS):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.decode(tokenizer("e\u0301")["input_ids"]) == "é"  # NFC
    assert tokenizer.decode(ids, skip_special_tokens=True) == ""


def test_a_phrase_is_one_token(tmp_path):
    write_qwen2_vl(tmp_path, TEXTS[1:], phrases=TEXTS[:1], hidden_size=16, layers=1)
    tokenizer = AutoProcessor.from_pretrained(tmp_path).tokenizer
    (token,) = tokenizer(TEXTS[0])["input_ids"]
    assert tokenizer.decode(token, skip_special_tokens=True) == TEXTS[0]  # ordinary text, not a control token


def test_the_pixel_budget_bounds_the_grid(tmp_path):
    write_qwen2_vl(tmp_path, TEXTS, hidden_size=16, layers=1, min_pixels=16 * 784, max_pixels=24 * 784)
    image_processor = AutoProcessor.from_pretrained(tmp_path).image_processor
    for size in ((120, 120), (400, 280), (210, 300), (4000, 3000)):
        grid = image_processor(images=[Image.new("RGB", size)], return_tensors="pt")["image_grid_thw"]
        assert 16 <= grid.prod().item() // 4 <= 24


def test_llavas_template_renders_as_the_hubs(tmp_path):
    write_llava(tmp_path, TEXTS, hidden_size=16, layers=1, image_size=28)
    processor = AutoProcessor.from_pretrained(tmp_path)
    question = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "A box."}]}
    again = {"role": "user", "content": [{"type": "text", "text": "Sure?"}]}
    assert (
        processor.apply_chat_template([question, answer, again], tokenize=False, add_generation_prompt=True)
        == "USER: <image>\nWhat is this? ASSISTANT: A box. USER: Sure? ASSISTANT:"
    )
