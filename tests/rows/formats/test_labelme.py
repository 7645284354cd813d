"""labelme's files as supervision writes them and as labelme 5.5 has them (its README, labelme/label_file.py)."""

import base64
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import supervision
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline
from PIL import Image

from tests.support.annotated import BOXES, SIZE, as_supervision, judged, judged_masks, picture
from vlm_recipes.rows.boxes import BoxFormat
from vlm_recipes.rows.conventions import PROBLEM
from vlm_recipes.rows.errors import DataError
from vlm_recipes.rows.formats import coco, labelme, voc, yolo

CUP = ("cup", [10, 5, 30, 40])  # what `rectangle` says


def png(mask: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def shape(kind: str | None, *points: tuple[float, float], label: Any = "cup", **more) -> dict:
    own = {} if kind is None else {"shape_type": kind}
    return {"label": label, "points": [list(point) for point in points], "group_id": None, "flags": {}, **own, **more}


RECTANGLE = shape("rectangle", (30, 40), (10, 5))  # drawn from below


def content(*shapes: Any, picture: str = "a.png", **changed) -> dict:
    size = {"imageHeight": SIZE[1], "imageWidth": SIZE[0]}
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": picture,
        "imageData": None,
        **size,
        **changed,
    }


def write(folder: Path, files: dict[str, Any]) -> Path:
    """Pictures with a JSON beside each."""
    for name, found in files.items():
        picture(folder / f"{name}.png")
        text = found if isinstance(found, str | bytes) else json.dumps(found)
        (folder / f"{name}.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


# --- what public tools write


@pytest.mark.parametrize(
    ("pictures", "files"), [("{}", "{}"), ("images/{}", "annotations/{}"), ("{}/images", "{}/labels")]
)
def test_what_supervision_writes_is_read_with_its_boxes_and_its_pictures_without_any(tmp_path, pictures, files):
    for split in ("train", "val"):
        as_supervision(tmp_path / "drawn", BOXES).as_labelme(
            images_directory_path=str(tmp_path / "data" / pictures.format(split)),
            annotations_directory_path=str(tmp_path / "data" / files.format(split)),
        )
    place = tmp_path / "data"
    assert labelme.recognises(place) and not any(other.recognises(place) for other in (coco, voc, yolo))
    read = labelme.read_boxes(place)
    assert judged(read, tmp_path) == ({"train": BOXES, "val": BOXES}, {})
    assert read.counts == "2 categories, 6 images" and read.boxes == BoxFormat("xyxy", "pixels")
    assert read.splits["train"][2]["objects"] == {"bbox": [], "category_name": []}


def test_boxes_of_rectangles_polygons_and_groups_are_those_that_supervision_reads(tmp_path):
    shapes = [
        RECTANGLE,
        shape("polygon", (40, 3), (60.5, 9), (44, 30.25)),
        shape("polygon", (2, 2), (8, 2), (8, 9), label="bottle", group_id=7),
        shape("rectangle", (20, 20), (50, 44), label="bottle", group_id=7),
        shape("rectangle", (20, 20), (22, 44), label="cup", group_id=7),
    ]
    write(tmp_path, {"a": content(*shapes)})
    loaded = supervision.DetectionDataset.from_labelme(str(tmp_path), str(tmp_path))
    ((_, _, found),) = list(loaded)
    names = [loaded.classes[number] for number in found.class_id]
    boxes, _ = judged(labelme.read_boxes(tmp_path), tmp_path)
    assert sorted(boxes["all"]["a.png"]) == sorted(zip(names, found.xyxy.tolist(), strict=True)) and len(names) == 4


def test_circles_masks_old_polygons_and_turned_rectangles_have_the_boxes_around_them(tmp_path):
    part = np.zeros((11, 16), dtype=bool)
    part[2:, 3:] = True
    shapes = {
        "circle": shape("circle", (30, 20), (33, 24)),
        "mask": shape("mask", (5, 6), (20, 16), mask=png(part)),
        "old": shape(None, (1, 2), (9, 2), (9, 12)),
        "turned": shape("oriented_rectangle", (10, 2), (20, 12), (15, 17), (5, 7)),
    }
    write(tmp_path, {name: content(one, picture=f"{name}.png") for name, one in shapes.items()})
    boxes, refused = judged(labelme.read_boxes(tmp_path), tmp_path)
    expected = {"circle": [25, 15, 35, 25], "mask": [5, 6, 21, 17], "old": [1, 2, 9, 12], "turned": [5, 2, 20, 17]}
    assert boxes["all"] == {f"{name}.png": [("cup", box)] for name, box in expected.items()} and not refused


def test_masks_are_what_the_shapes_cover_and_those_of_one_label_are_one(tmp_path):
    part = np.zeros((11, 16), dtype=bool)
    part[2:, 3:] = True
    triangle = [(40, 3), (60, 9), (44, 30)]
    shapes = [
        shape("circle", (30, 30), (30, 40)),
        shape("mask", (5, 6), (20, 16), mask=png(part), label="bottle"),
        shape("polygon", *triangle, label="box"),
        shape("rectangle", (2, 20), (9, 40)),
    ]
    read = labelme.read_masks(write(tmp_path, {"a": content(*shapes), "none": content(picture="none.png")}))
    assert read.counts == "3 categories, 2 images, 1 of them without any"
    masks, refused = judged_masks(read, tmp_path)
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]]
    bottle = np.zeros(SIZE[::-1], dtype=bool)
    bottle[6:17, 5:21] = part
    assert (masks["all"].pop(("a.png", "bottle")) == bottle).all()
    cup = masks["all"].pop(("a.png", "cup"))
    far, inside = np.hypot(rows - 30, columns - 30), (columns >= 2) & (columns <= 9) & (rows >= 20) & (rows <= 40)
    assert (cup[(far < 9.5) | inside] == 1).all() and (cup[(far > 10.5) & ~inside] == 0).all()
    box, pixels = masks["all"].pop(("a.png", "box")), np.stack([columns, rows], axis=-1).reshape(-1, 2)
    turns = [
        Outline([*triangle, triangle[0]]).contains_points(pixels, radius=r).reshape(box.shape) for r in (-1.5, 1.5)
    ]
    surely, perhaps = turns if turns[0].sum() < turns[1].sum() else turns[::-1]
    assert (box[surely] == 1).all() and (box[~perhaps] == 0).all() and surely.sum() > 100
    assert masks == {"all": {}} and not refused


def test_a_picture_is_found_by_its_path_from_the_file_or_by_its_name(tmp_path):
    for name, told in {
        "one": "..\\pictures\\x1.png",
        "two": "../pictures/x2.png",
        "three": "C:\\work\\x3.png",
        "four": "old.jpg",
    }.items():
        (tmp_path / "notes").mkdir(exist_ok=True)
        (tmp_path / f"notes/{name}.json").write_text(json.dumps(content(RECTANGLE, picture=told)))
    for name in ("pictures/x1.png", "pictures/x2.png", "notes/x3.png", "notes/four.png"):
        picture(tmp_path / name)
    boxes, refused = judged(labelme.read_boxes(tmp_path), tmp_path)
    assert boxes == {"all": dict.fromkeys(("x1.png", "x2.png", "x3.png", "four.png"), [CUP])} and not refused


# --- what is refused


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ("", "its JSON cannot be read: Expecting value"),
        ("[" * 100_000, "its JSON cannot be read: "),
        (json.dumps(content()).encode("utf-16"), "its JSON cannot be read: 'utf-8' codec"),
        ([], "its JSON has no list 'shapes', as labelme's have"),
        (content(shapes={}), "its JSON has no list 'shapes', as labelme's have"),
        (content(RECTANGLE, picture=None), "its imagePath, None, is empty or no text"),
        (content(7), "shape 1 is 7 and no object"),
        (
            content(RECTANGLE, shape("linestrip", (1, 1), (9, 9), (9, 20))),
            "shape 2 (cup): a 'linestrip' has no area: one of",
        ),
        (content(shape("point", (1, 1))), "shape 1 (cup): a 'point' has no area: one of polygon, rectangle,"),
        (content(shape("line", (1, 1), (9, 9))), "shape 1 (cup): a 'line' has no area"),
        (content(shape(["line"], (1, 1), (9, 9))), "shape 1 (cup): a ['line'] has no area"),
        (content(shape("circle", (5, 5))), "shape 1 (cup): a circle of 1 points"),
        (content(shape("polygon", (5, 5), (6, 6))), "shape 1 (cup): a polygon of 2 points"),
        (
            content(shape("rectangle", (5, 5), (5, 9))),
            "shape 1 (cup): its points [[5.0, 5.0], [5.0, 9.0]] have no area",
        ),
        (content(shape("circle", (5, 5), (5, 5))), "have no area"),
        (
            content(shape("rectangle", (5, 5), (9, float("nan")))),
            "shape 1 (cup): a point, [9, nan], is no list of 2 finite numbers",
        ),
        (content(shape("rectangle", (5, 5), (9, 10**400))), "is no list of 2 finite numbers"),
        (content(shape("rectangle", (5, 5), (90, 9))), "is inverted or outside the image of 64×48"),
        (content({**RECTANGLE, "points": {}}), "shape 1 (cup): its points, {}, are no list"),
        (content({**RECTANGLE, "points": [1, 2]}), "shape 1 (cup): a point, 1, is no list of 2 finite numbers"),
        (content(shape("rectangle", (1, 1), (9, 9), label=" ")), "shape 1: its label, ' ', is empty or no text"),
        (
            content(shape("rectangle", (1, 1), (9, 9), label="\ud800")),
            "shape 1: its label, '\\ud800', has half of a surrogate",
        ),
        (content(shape("mask", (1, 1), (9, 9))), "shape 1 (cup): its mask, None, is no text"),
        (content({**RECTANGLE, "group_id": []}), "shape 1 (cup): its group_id, [], is neither a number nor a text"),
        (content(RECTANGLE, imageWidth=48, imageHeight=64), "annotated on a picture of 48×64, and this one has 64×48"),
        (
            content(RECTANGLE, imageWidth="wide"),
            "the size of its picture, ['wide', 48], is no list of 2 finite numbers",
        ),
    ],
)
def test_a_bad_file_refuses_its_picture_by_name_and_nothing_else(tmp_path, found, reason):
    write(tmp_path, {"a": found, "b": content(RECTANGLE, picture="b.png")})
    boxes, refused = judged(labelme.read_boxes(tmp_path), tmp_path)
    assert boxes == {"all": {"b.png": [CUP]}}
    assert refused.keys() == {"a.json"} and reason in refused["a.json"]


@pytest.mark.parametrize(
    ("part", "points", "reason"),
    [
        ("no base64!", [(1, 1), (9, 9)], "shape 1 (cup): its mask is no PNG in base64"),
        (base64.b64encode(b"GIF89a").decode(), [(1, 1), (9, 9)], "shape 1 (cup): its mask is no PNG in base64"),
        (png(np.ones((5, 4))), [(1, 1), (9, 9)], "shape 1 (cup): its mask is of (4, 5), and its points are of (9, 9)"),
        (png(np.ones((9, 9))), [(60, 1), (68, 9)], "shape 1 (cup): from (60, 1) to (69, 10) outside of 64×48"),
        (png(np.zeros((9, 9))), [(1, 1), (9, 9)], "its segments cover no pixel"),
    ],
)
def test_a_bad_mask_is_refused_by_name(tmp_path, part, points, reason):
    good = content(shape("mask", (1, 1), (9, 9), mask=png(np.ones((9, 9)))), picture="b.png")
    write(tmp_path, {"a": content(shape("mask", *points, mask=part)), "b": good})
    masks, refused = judged_masks(labelme.read_masks(tmp_path), tmp_path)
    assert masks["all"].keys() == {("b.png", "cup")}
    assert refused.keys() == {"a.json cup"} and refused["a.json cup"].startswith(reason)


def test_halves_of_pairs_and_two_files_about_one_picture_are_refused(tmp_path):
    write(tmp_path, {name: content(RECTANGLE, picture=f"{name}.png") for name in ("a", "alone")})
    write(tmp_path, {name: content(RECTANGLE, picture="shared.png") for name in ("one", "other")})
    for name in ("alone", "one", "other"):
        (tmp_path / f"{name}.png").unlink()
    for name in ("shared", "new"):
        picture(tmp_path / f"{name}.png")
    for read, judge in ((labelme.read_boxes, judged), (labelme.read_masks, judged_masks)):
        found, refused = judge(read(tmp_path), tmp_path)
        assert len(found["all"]) == 1
        assert {row.removesuffix(" cup"): why for row, why in refused.items()} == {
            "alone.json": "image file is missing: alone.png",
            "one.json": "2 JSON files are about 'shared.png': keep one",
            "other.json": "2 JSON files are about 'shared.png': keep one",
            "new.png": "there is no JSON file of this name: one without shapes says that nothing is there",
        }


def test_paths_and_links_that_leave_the_folder_are_not_followed(tmp_path):
    data, outside = tmp_path / "data", write(tmp_path / "outside", {"x": content(RECTANGLE, picture="x.png")})
    write(data, {"a": content(RECTANGLE), "told": content(RECTANGLE, picture="../outside/x.png")})
    (data / "told.png").unlink()
    os.symlink(outside / "x.json", data / "x.json")
    os.symlink(outside / "x.png", data / "x.png")
    boxes, refused = judged(labelme.read_boxes(data), tmp_path)
    assert boxes == {"all": {"a.png": [CUP]}}
    assert refused == {
        "x.json": "its JSON is a link that leaves the dataset's folder",
        "told.json": "no image, or one outside the dataset's folder",
    }


def test_a_folder_without_files_ends_in_one_line(tmp_path):
    with pytest.raises(DataError, match="has no JSON files beside its pictures"):
        labelme.read_boxes(tmp_path)


@pytest.mark.parametrize(
    "found",
    [
        {"text": ["where?"], "is_sentence": True, "shapes": [RECTANGLE]},  # ReasonSeg's
        {**content(), "is_sentence": False},
        {"images": [], "annotations": [], "categories": []},
        {"shapes": []},
        [content()],
        "",
        "{" * 1000,
    ],
)
def test_other_folders_are_not_recognised(tmp_path, found):
    write(tmp_path, {"a": found})
    os.mkfifo(tmp_path / "pipe.json")
    assert not any(map(labelme.recognises, (tmp_path, tmp_path / "a.json", tmp_path / "nowhere")))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
KINDS = st.sampled_from(["rectangle", "polygon", "circle", "mask", "point"])
SHAPES = st.fixed_dictionaries(
    {"label": st.sampled_from(["cup", "box"]) | JSON},
    optional={
        "shape_type": KINDS | JSON,
        "points": st.lists(st.lists(st.floats(0, 40), min_size=2, max_size=2), max_size=4) | JSON,
        "group_id": JSON,
        "mask": JSON,
    },
)


@settings(max_examples=80, deadline=None)
@given(shapes=st.lists(SHAPES | JSON, max_size=3), told=st.just("a.png") | JSON, side=st.just(48) | JSON)
def test_whatever_is_in_a_file_it_is_a_row(tmp_path_factory, shapes, told, side):
    folder = write(tmp_path_factory.mktemp("fuzzed"), {"a": content(*shapes, picture=told, imageHeight=side)})
    (row,) = labelme.read_boxes(folder).splits["all"]
    assert row["id"] == "a.json"
    assert row[PROBLEM] or len(row["objects"]["bbox"]) <= len(shapes)
    masks = labelme.read_masks(folder).splits["all"]
    assert masks["id"][:] == ["a.json"] or len(masks) == len({one["label"] for one in shapes})
