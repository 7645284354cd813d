"""Drawn scenes are files like ReasonSeg's, and a query is true of its target alone."""

import colorsys
import io
import json
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from scipy import ndimage
from scipy.spatial import ConvexHull

from demo.worlds.scenes.dataset import draw_scenes
from demo.worlds.scenes.queries import CLUES, KINDS

PICTURES = {"train": 40, "val": 10, "test": 10}
HUES = {0: "red", 130: "green", 230: "blue", 53: "yellow", 288: "purple"}  # in degrees
FORMS = {  # shares of the bounding box and of the convex hull that a shape fills, and its width's of both sides
    "circle": (np.pi / 4, 1.0, 0.5),
    "bar": (1.0, 1.0, 0.75),
    "pole": (1.0, 1.0, 0.25),
    "cross": (0.56, 0.71, 0.5),
}


class Seen(NamedTuple):
    """A figure as measured in the pixels of a picture."""

    mask: np.ndarray
    unclear: np.ndarray  # the pixels that it covers by about a half
    colour: str
    shape: str
    x: float
    y: float
    area: int


@lru_cache
def look(content: bytes) -> list[Seen]:
    """Every figure in a picture: what differs from the background, in connected parts."""
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    rough, count = ndimage.label(abs(pixels - pixels[0, 0]).max(axis=2) > 8)
    seen = []
    for number in range(1, count + 1):
        colour = np.median(pixels[ndimage.binary_erosion(rough == number, iterations=2)], axis=0)
        towards = colour - pixels[0, 0]
        covered = (rough == number) * ((pixels - pixels[0, 0]) @ towards) / (towards @ towards)
        mask, unclear = covered > 0.5, abs(covered - 0.5) < 0.15
        y, x = np.nonzero(mask)
        fine = np.argwhere(ndimage.zoom(covered, 4, order=1) > 0.5)  # the edges' shades say where between pixels
        hull = ConvexHull(np.concatenate([fine + [down, right] for down in (0, 1) for right in (0, 1)]))
        height, width = np.ptp(fine, axis=0) + 1
        form = (len(fine) / (height * width), len(fine) / hull.volume, width / (height + width))
        shape = min(FORMS, key=lambda name: np.linalg.norm(np.subtract(FORMS[name], form)))
        hue, saturation, _ = colorsys.rgb_to_hsv(*colour / 255)
        named = "white" if saturation < 0.1 else HUES[min(HUES, key=lambda degrees: abs(360 * hue - degrees))]
        seen.append(Seen(mask, unclear, named, shape, x.mean() + 0.5, y.mean() + 0.5, len(x)))
    return seen


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    return (first & second).sum() / (first | second).sum()


def fill(points: list[list[float]], size: int) -> np.ndarray:
    """The polygon's mask by COCO's own rasteriser."""
    return coco.decode(coco.frPyObjects([[number for point in points for number in point]], size, size))[..., 0] > 0


def read(path: Path) -> dict:
    content = path.read_bytes()
    try:
        return json.loads(content.decode("utf-8"))
    except UnicodeDecodeError:
        return json.loads(content.decode("cp1252"))


def outline(annotation: dict) -> list[list[float]]:
    (points,) = (shape["points"] for shape in annotation["shapes"] if shape["label"] == "target")
    return points


def meant(value: str, seen: list[Seen]) -> list[Seen]:
    """The figures that a value names, and only by what was measured; a side's figure leads by an eighth."""
    ways = {"left": lambda one: -one.x, "right": lambda one: one.x, "top": lambda one: -one.y}
    ways |= {"bottom": lambda one: one.y, "largest": lambda one: one.area, "smallest": lambda one: -one.area}
    if value not in ways:
        return [one for one in seen if set(value.split()) <= {one.colour, one.shape}]
    first, second, *_ = sorted(seen, key=ways[value], reverse=True)
    larger, smaller = sorted((first.area, second.area), reverse=True)
    clear = larger > 1.25 * smaller if value.endswith("est") else ways[value](first) - ways[value](second) > 7
    return [first] if clear else []


def value_of(text: str, kind: str) -> str:
    """What a query names: by its clue, or by the only words of its kind's vocabulary in it."""
    clues = [value for value, clue in CLUES.items() if clue in text]
    words = text.rstrip("?").split()
    named = [value for value in KINDS[kind] if f" {value} " in f" {' '.join(words)} "]
    (value,) = set(clues) or set(named)
    return value


pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools' own


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "scenes"
    draw_scenes(folder, **PICTURES, seed=2)
    return folder


@pytest.fixture(scope="module")
def annotations(scenes) -> dict[Path, dict]:
    return {path: read(path) for path in sorted(scenes.rglob("*.json"))}


def test_annotations_have_the_fields_of_the_original(annotations):
    for path, annotation in annotations.items():
        assert annotation.keys() == {"text", "is_sentence", "shapes", "kind"}
        for shape in annotation["shapes"]:
            label = shape["label"]
            expected = {"label": label, "labels": [label], "shape_type": "polygon", "image_name": f"{path.stem}.png"}
            expected |= {"points": shape["points"], "group_id": None, "group_ids": [None], "flags": {}}
            assert shape == expected
            assert 0 <= np.min(shape["points"]) and np.max(shape["points"]) <= 64
            assert np.shape(shape["points"]) == (len(shape["points"]), 2)


def test_the_outline_is_that_of_a_figure_in_the_picture(tmp_path):
    draw_scenes(tmp_path, train=12, val=0, test=0)
    for path in tmp_path.rglob("*.json"):
        mask = fill(outline(read(path)), 64)
        overlaps = [
            overlap(mask & ~one.unclear, one.mask & ~one.unclear)
            for one in look(path.with_suffix(".png").read_bytes())
        ]
        assert max(overlaps) > 0.93
        assert sum(overlaps) == max(overlaps)  # it touches no other


def test_a_query_is_true_of_its_target_and_of_no_other_figure(annotations):
    checked = Counter()
    for path, annotation in annotations.items():
        seen = look(path.with_suffix(".png").read_bytes())
        assert 3 <= len(seen) <= 4
        assert len({one.colour for one in seen}) == len({one.shape for one in seen}) == len(seen)
        for text in annotation["text"]:
            value = value_of(text, annotation["kind"])
            (target,) = meant(value, seen)
            assert overlap(fill(outline(annotation), 64), target.mask) > 0.75, (path, text)
            checked[value] += 1
    assert min(checked[value] for value in CLUES) >= 3


def test_no_picture_is_in_two_splits_or_comes_back_with_another_seed(scenes, tmp_path):
    draw_scenes(tmp_path, **PICTURES, seed=3)
    pictures = [
        {path.read_bytes() for path in (folder / split).glob("*.png")}
        for folder in (scenes, tmp_path)
        for split in PICTURES
    ]
    assert sum(len(split) for split in pictures) == len(set().union(*pictures)) == 2 * sum(PICTURES.values())


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name in ("first", "second"):
        draw_scenes(tmp_path / name, train=4, val=2, test=1, seed=7, broken=5)
    first, second = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("first", "second")
    )
    assert len(first) == 2 * (4 * 7 + 5)
    assert first == second


def test_broken_annotations_are_broken_each_in_its_own_way_and_change_no_other(tmp_path):
    draw_scenes(tmp_path / "whole", train=3, val=1, test=1)
    draw_scenes(tmp_path / "broken", train=3, val=1, test=1, broken=10)
    whole, broken = (
        {path.relative_to(tmp_path / name): path for path in (tmp_path / name).rglob("*.*")}
        for name in ("whole", "broken")
    )
    added = {path.name: broken[path] for path in broken.keys() - whole.keys()}
    assert all(name.startswith("broken_") for name in added)
    assert all(broken[path].read_bytes() == whole[path].read_bytes() for path in whole)
    assert sum(name.endswith(".json") for name in added) == sum(name.endswith(".png") for name in added) == 10
    for index in (0, 5):
        assert len(outline(read(added[f"broken_{index}.json"]))) == 2
        assert np.min(outline(read(added[f"broken_{index + 1}.json"]))) > 64
        assert "text" not in read(added[f"broken_{index + 2}.json"])
        assert f"broken_{index + 3}_1.png" in added and f"broken_{index + 3}_2.json" in added
        with pytest.raises(json.JSONDecodeError):
            read(added[f"broken_{index + 4}.json"])
