"""Masks as pictures beside pictures, saved by Pillow."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.annotated import SIZE, judged_masks, picture
from vlm_recipes.rows.errors import DataError
from vlm_recipes.rows.formats import labelme, pairs, voc, yolo

LEFT = np.zeros(SIZE[::-1], dtype=np.uint8)
LEFT[:, :20] = 1


def save(file: Path, mask: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(file)


def written(folder: Path) -> Path:
    for name in ("a", "b", "none"):
        picture(folder / f"images/{name}.png")
    save(folder / "masks/red_cup/a.png", LEFT * 255)
    save(folder / "masks/test_tube/a.png", np.dstack([LEFT * 7] * 3))
    save(folder / "masks/red_cup/b.png", np.where(LEFT == 1, 1, 255).astype(np.uint8))
    return folder


def test_each_mask_is_a_row_with_its_folders_name_for_a_text(tmp_path):
    read = pairs.read_masks(written(tmp_path))
    assert pairs.recognises(tmp_path) and not any(other.recognises(tmp_path) for other in (labelme, voc, yolo))
    assert read.counts == "2 categories, 3 images, 1 of them without any" and read.boxes is None
    masks, refused = judged_masks(read, tmp_path)
    assert masks["all"].keys() == {("a.png", "red cup"), ("a.png", "test tube"), ("b.png", "red cup")} and not refused
    assert (masks["all"]["a.png", "red cup"] == LEFT).all() and (masks["all"]["a.png", "test tube"] == LEFT).all()
    assert (masks["all"]["b.png", "red cup"] == np.where(LEFT, 1, 255)).all()  # 255 beside 1 is ignored


def test_folders_of_splits_are_splits_and_a_text_is_none(tmp_path):
    for split in ("train", "val"):
        written(tmp_path / split)
    read = pairs.read_masks(tmp_path)
    assert pairs.recognises(tmp_path) and read.counts == "2 categories, 6 images, 2 of them without any"
    masks, refused = judged_masks(read, tmp_path)
    assert {split: len(found) for split, found in masks.items()} == {"train": 3, "val": 3} and not refused
    assert read.splits["val"]["id"][0] == "val/masks/red_cup/a.png"


def test_halves_of_pairs_and_masks_that_are_none_are_refused_by_name_and_nothing_else(tmp_path):
    outside = tmp_path / "outside/x.png"
    save(outside, LEFT)
    data = written(tmp_path / "data")
    picture(data / "images/b.jpg")
    save(data / "masks/red_cup/lost.png", LEFT)
    save(data / "masks/a.png", LEFT)
    save(data / "masks/_/a.png", LEFT)
    save(data / "masks/box/a.jpg", LEFT)
    save(data / "masks/small/a.png", LEFT[:10])
    (data / "masks/broken").mkdir()
    (data / "masks/broken/a.png").write_bytes(b"no picture")
    (data / "masks/link").mkdir()
    os.symlink(outside, data / "masks/link/a.png")
    masks, refused = judged_masks(pairs.read_masks(data), tmp_path)
    assert masks["all"].keys() == {("a.png", "red cup"), ("a.png", "test tube")}
    assert refused.pop("masks/broken/a.png").startswith("a picture beside the image cannot be read")
    assert refused == {
        "masks/red_cup/b.png": "2 pictures have its name but for its end: keep one",
        "masks/red_cup/lost.png": "image file is missing: lost.jpg",
        "masks/a.png": "its folder is named after nothing that it shows: masks/<text>/<name>.png is due",
        "masks/_/a.png": "its folder's name is no text",
        "masks/box/a.jpg": "a mask as .jpg is not what was drawn: PNG is due",
        "masks/small/a.png": "a mask of (height, width) (10, 64) for an image of 64×48",
        "masks/link/a.png": "its mask is a link that leaves the dataset's folder",
    }


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    data = written(tmp_path)
    os.rename(data / "masks/red_cup/b.png", os.fsencode(data / "masks/red_cup") + b"/\xff.png")
    _, refused = judged_masks(pairs.read_masks(data), tmp_path)
    assert refused == {"masks/red_cup/\\udcff.png": "the name of its file is not in UTF-8: rename it"}


def test_folders_without_pairs_are_not_recognised_and_end_in_one_line(tmp_path):
    picture(tmp_path / "images/a.png")
    assert not pairs.recognises(tmp_path) and not pairs.recognises(tmp_path / "images/a.png")
    (tmp_path / "masks").mkdir()
    assert not pairs.recognises(tmp_path)
    with pytest.raises(DataError, match="has no masks, like masks/red_cup/photo.png for images/photo.jpg"):
        pairs.read_masks(tmp_path)
