"""Drawn endoscopy is read as Kvasir-VQA is, and its polyps can be read off the pixels."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image
from scipy import ndimage

from demo.worlds.endoscopy import canvas
from demo.worlds.endoscopy import picture as endoscopy_picture
from demo.worlds.endoscopy.dataset import draw_endoscopy
from demo.worlds.endoscopy.picture import render
from demo.worlds.endoscopy.questions import answers
from demo.worlds.endoscopy.scene import Scene, draw_scene

SEED = 5
SCENES = [draw_scene(np.random.default_rng([SEED, index])) for index in range(300)]
# One channel or two at full strength for each colour, for measuring on black mucosa.
CHANNELS = {
    "pink": (1, 0, 0),
    "red": (0, 1, 0),
    "white": (0, 0, 1),
    "yellow": (1, 1, 0),
    "blue": (1, 0, 1),
    "flesh": (0, 1, 1),
}
HEIGHTS, SIDES = ("upper", "center", "lower"), ("left", "center", "right")


@pytest.fixture(scope="module")
def endoscopy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "endoscopy"
    draw_endoscopy(folder, images=30, seed=SEED)
    return folder


@pytest.fixture(scope="module")
def rows(endoscopy) -> list[dict]:
    return [json.loads(line) for line in (endoscopy / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def raw(endoscopy, tmp_path_factory):
    return load_dataset(str(endoscopy), cache_dir=str(tmp_path_factory.mktemp("cache")))["raw"]


def pixels(scene: Scene) -> np.ndarray:
    return np.asarray(render(scene), dtype=int)


def findings_alone(scene: Scene) -> Scene:
    return replace(scene, text=False, box=False, scar=None, landmark=None, instruments=())


def measured_colours(scene: Scene, monkeypatch) -> np.ndarray:
    """bool [colours, height, width]: where each of CHANNELS is, when findings are painted pure and all else black."""
    paint = {name: tuple(255 * bit for bit in bits) for name, bits in CHANNELS.items()}
    monkeypatch.setattr(canvas, "PAINT", paint)
    monkeypatch.setattr(endoscopy_picture, "MUCOSA", dict.fromkeys(("colonoscopy", "gastroscopy"), (0, 0, 0)))
    for name in ("OUTLINE", "DARK", "SHINE"):
        monkeypatch.setattr(endoscopy_picture, name, (0, 0, 0))
    bright = pixels(findings_alone(scene)) > 70
    return np.stack([(bright == np.array(bits, dtype=bool)).all(axis=-1) for bits in CHANNELS.values()])


def blobs(scene: Scene, monkeypatch) -> list[tuple[float, float, float, float]]:
    """(x, y, radius of a disc of the same area, width / height) of each polyp, measured in pixels of the picture."""
    seen = measured_colours(replace(scene, patch=None), monkeypatch).any(axis=0)
    regions, count = ndimage.label(ndimage.binary_closing(seen, iterations=2))
    found = []
    for number in range(1, count + 1):
        down, across = np.nonzero(ndimage.binary_fill_holes(regions == number))
        if len(down) > 40:  # less is noise at the edge of two colours
            aspect = (np.ptp(across) + 1) / (np.ptp(down) + 1)
            found.append((across.mean(), down.mean(), np.sqrt(len(down) / np.pi), aspect))
    return found


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    for name, seed in (("first", 3), ("second", 3), ("other", 4)):
        draw_endoscopy(tmp_path / name, images=5, seed=seed)
    first, second, other = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("first", "second", "other")
    )
    assert len(first) == 5 + 3  # and the card, the rows and half an image
    assert first == second
    assert first.keys() != other.keys()


def test_load_dataset_reads_the_hubs_split_and_columns(raw, rows):
    assert (raw.split, raw.column_names) == ("raw", ["image", "source", "question", "answer", "img_id"])
    for index in (0, 1, len(rows) // 2, len(rows) - 5):
        row = raw[index]
        image = row.pop("image")
        assert row | {"file_name": f"images/{row['img_id']}.jpg"} == rows[index]
        assert image.size == (280, 224) and image.mode == "RGB"
    assert len(raw) == len(rows)
    assert {row["source"] for row in rows} == {"HyperKvasir", "Kvasir-Instrument"}
    assert all(len(row["img_id"]) == 25 and row["img_id"].startswith("cl8k2") for row in rows)


def test_as_many_rows_are_broken_as_were_asked_for(endoscopy, raw, rows, tmp_path):
    *good, missing, truncated, mute, unanswered = rows
    assert not (endoscopy / missing["file_name"]).exists()
    for index, error in ((-4, FileNotFoundError), (-3, OSError)):
        with pytest.raises(error):
            raw[len(raw) + index]["image"].load()
    assert (endoscopy / truncated["file_name"]).stat().st_size > 0
    assert mute["question"] == "" and mute["answer"] != ""
    assert unanswered["answer"] == "" and unanswered["question"] != ""
    assert all(row["question"] and row["answer"] for row in good)
    for name in {row["file_name"] for row in good}:
        with Image.open(endoscopy / name) as image:
            image.load()
    with pytest.raises(ValueError, match="broken=4"):
        draw_endoscopy(tmp_path / "few", images=3)


def test_number_size_kind_and_place_of_polyps_can_be_read_off_the_pixels(monkeypatch):
    checked = Counter()
    for scene in SCENES[:90]:
        found, told = blobs(scene, monkeypatch), answers(scene)
        assert told["polyps"] == str(len(found)), scene
        sizes = {
            ("<5mm", "5-10mm", "11-20mm", ">20mm")[np.searchsorted((7.6, 11.4, 15.6), radius / 2)]
            for _, _, radius, _ in found
        }
        assert told["size"] == (";".join(sorted(sizes)) or "none"), scene
        flat = [aspect > 1.45 for *_, aspect in found]
        assert ("paris iia" in told["kind"], told["kind"] == "paris iia") == (any(flat), bool(flat) and all(flat))
        cells = {f"{HEIGHTS[int(y * 3 / 224)]}-{SIDES[int(x * 3 / 280)]}" for x, y, *_ in found}
        cells = {"center" if name == "center-center" else name for name in cells}
        assert answers(replace(scene, patch=None))["place"] == ("; ".join(sorted(cells)) or "none"), scene
        checked.update([told["polyps"], *sizes, *cells])
    assert min(checked[key] for key in ("0", "1", "2", "3", "4", "<5mm", ">20mm", "center", "upper-left")) > 1
