"""Drawn packages are read as the Hub's nutrition tables are, and a box is where its table is."""

import json
from collections import Counter

import numpy as np
import pytest
from datasets import load_dataset
from PIL import UnidentifiedImageError

from demo.worlds.packages.dataset import draw_packages
from demo.worlds.packages.photo import draw_photo


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
