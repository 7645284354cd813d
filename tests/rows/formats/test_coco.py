"""COCO's files as public tools write them, and as people break them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import supervision
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO
from torchvision.ops import box_convert

from tests.support.annotated import BOXES, SIZE, as_supervision, judged, picture
from vlm_recipes.rows.boxes import BoxFormat
from vlm_recipes.rows.errors import DataError
from vlm_recipes.rows.formats import coco

CATEGORIES = [{"id": 1, "name": "cup"}, {"id": 4, "name": "bottle"}]


def note(number: int, image: Any = 1, category: Any = 1, bbox: Any = (1, 2, 10, 20), **more) -> dict:
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, **more}


def content(*annotations: dict, **changed) -> dict:
    """Three pictures, of which the second has no annotation of its own."""
    images = [{"id": i, "file_name": f"{i}.png", "width": SIZE[0], "height": SIZE[1]} for i in (1, 2, 3)]
    known = [*annotations, note(900, image=3, category=4, bbox=[5, 6, 7, 8])]
    return {"images": images, "annotations": known, "categories": CATEGORIES, **changed}


def write(folder: Path, found: Any, file: str = "instances.json") -> Path:
    """The file, and the pictures beside it."""
    for number in (1, 2, 3):
        picture(folder / f"{number}.png")
    place = folder / file
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(found if isinstance(found, str) else json.dumps(found))
    return place


THIRD = {"3.png": [("bottle", [5, 6, 12, 14])]}  # what `content` says of it


# --- what public tools write


def test_what_supervision_writes_is_read_with_its_boxes_and_its_pictures_without_any(tmp_path):
    for split in ("train", "val"):
        as_supervision(tmp_path / "drawn", BOXES).as_coco(
            images_directory_path=str(tmp_path / f"coco/{split}2017"),
            annotations_path=str(tmp_path / f"coco/annotations/instances_{split}2017.json"),
        )
    assert coco.recognises(tmp_path / "coco")
    read = coco.read_boxes(tmp_path / "coco")
    assert read.counts == "2 categories, 6 images" and read.boxes == BoxFormat("xywh", "pixels")
    assert judged(read, tmp_path) == ({"train": BOXES, "val": BOXES}, {})
    assert read.splits["train"]["image_id"][:] == ["train2017/a.png", "train2017/b.png", "train2017/empty.png"]
    assert read.splits["train"][2]["objects"] == {"bbox": [], "category_name": []}  # and not None


def test_roboflows_folders_are_splits_with_the_pictures_beside_the_file(tmp_path):
    for split in ("train", "valid", "test"):
        as_supervision(tmp_path / "drawn", BOXES).as_coco(
            images_directory_path=str(tmp_path / f"export/{split}"),
            annotations_path=str(tmp_path / f"export/{split}/_annotations.coco.json"),
        )
    read = coco.read_boxes(tmp_path / "export")
    assert judged(read, tmp_path) == ({split: BOXES for split in ("test", "train", "valid")}, {})


@pytest.mark.parametrize(
    ("file", "pictures", "split"),
    [
        ("instances.json", ".", "all"),
        ("instances.json", "images", "all"),
        ("result.json", "images", "all"),  # Label Studio
        ("annotations/instances_default.json", "images", "all"),  # CVAT
        ("annotations/train.json", "train", "train"),
        ("annotations/instances_val2017.json", "images/val2017", "val"),
        ("test/labels.json", "test/images", "test"),
    ],
)
def test_pictures_are_found_where_tools_put_them(tmp_path, file, pictures, split):
    as_supervision(tmp_path / "drawn", BOXES).as_coco(
        images_directory_path=str(tmp_path / "data" / pictures), annotations_path=str(tmp_path / "data" / file)
    )
    assert coco.recognises(tmp_path / "data") and coco.recognises(tmp_path / "data" / file)
    assert judged(coco.read_boxes(tmp_path / "data"), tmp_path) == ({split: BOXES}, {})
    alone = coco.read_boxes(tmp_path / "data" / file)
    if not file.startswith("test/"):  # a file alone has its own folder, which is no split
        assert judged(alone, tmp_path) == ({split: BOXES}, {})


def test_boxes_are_those_of_pycocotools_and_supervision(tmp_path):
    file = write(tmp_path, content(note(7, bbox=[3.25, 4, 20.5, 30], iscrowd=0), note(8, category=4, iscrowd=0)))
    index = COCO(str(file))
    boxes = judged(coco.read_boxes(file), tmp_path)[0]["all"]
    loaded = supervision.DetectionDataset.from_coco(str(tmp_path), str(file))
    for path, _, found in loaded:
        named = [loaded.classes[number] for number in found.class_id]
        notes = index.loadAnns(index.getAnnIds(int(Path(path).stem)))
        corners = box_convert(torch.tensor([one["bbox"] for one in notes]).reshape(-1, 4), "xywh", "xyxy").tolist()
        expected = [(index.cats[one["category_id"]]["name"], box) for one, box in zip(notes, corners, strict=True)]
        assert sorted(boxes[Path(path).name]) == sorted(expected)
        assert sorted(boxes[Path(path).name]) == sorted(zip(named, found.xyxy.tolist(), strict=True))


def test_of_several_kinds_of_annotations_the_instances_are_read(tmp_path):
    write(tmp_path, content(), "annotations/instances_train2017.json")
    write(tmp_path, content(note(1, bbox=None)), "annotations/person_keypoints_train2017.json")
    assert judged(coco.read_boxes(tmp_path), tmp_path) == ({"train": {"1.png": [], "2.png": [], **THIRD}}, {})


def test_a_path_that_windows_wrote_is_found(tmp_path):
    (tmp_path / "images" / "a").mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(tmp_path / "images" / "a" / "9.png")
    picture = {"id": 9, "file_name": "a\\9.png", "width": 64, "height": 48}
    write(tmp_path, {"images": [picture], "annotations": [], "categories": CATEGORIES})
    taken, refused = judged(coco.read_boxes(tmp_path), tmp_path)
    assert refused == {} and list(taken["all"].values()) == [[]]


def test_crowds_are_left_out_and_counted(tmp_path):
    counts = {"size": [48, 64], "counts": [100, 2000, 972]}
    crowd = note(1, iscrowd=1, segmentation=counts)
    write(tmp_path, content(crowd, note(2, iscrowd=1, image=3)))
    read = coco.read_boxes(tmp_path)
    assert read.counts == "1 category, 3 images, 1 crowds left out"
    taken, refused = judged(read, tmp_path)
    assert taken == {"all": {"2.png": [], **THIRD}}
    assert ["nothing but crowds is marked on it" in reason for reason in refused.values()] == [True]


def test_a_category_that_nobody_uses_may_have_the_name_of_another(tmp_path):
    project = {"id": 0, "name": "cup", "supercategory": "none"}  # Roboflow's
    write(tmp_path, content(note(1), categories=[project, *CATEGORIES]))
    assert judged(coco.read_boxes(tmp_path), tmp_path)[1] == {}


# --- what is refused


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (note(5, category=7), "annotation 5: its category_id 7 is none of 'categories'"),
        (note(5, category=[1]), "annotation 5: its category_id [1] is none of 'categories'"),
        (note(5, bbox=None), "annotation 5: its bbox, None, is no list of 4 finite numbers"),
        (note(5, bbox=[1, 2, 3]), "annotation 5: its bbox, [1, 2, 3], is no list of 4 finite numbers"),
        (note(5, bbox=[1, 2, float("nan"), 3]), "its bbox, [1, 2, nan, 3], is no list"),
        (note(5, bbox=[1, 2, float("inf"), 3]), "its bbox, [1, 2, inf, 3], is no list"),
        (note(5, bbox=[1, 2, 10**400, 3]), "is no list of 4 finite numbers"),
        (note(5, bbox=["1", 2, 3, 4]), "its bbox, ['1', 2, 3, 4], is no list"),
        (note(5, bbox=[1, 2, -3, 4]), "annotation 5: its bbox [1.0, 2.0, -3.0, 4.0] has no area"),
        (note(5, bbox=[1, 2, 3, 0]), "has no area: [x_min, y_min, width, height] in pixels are due"),
        (note(5, bbox=[50, 2, 30, 4]), "is inverted or outside the image of 64×48"),
        (note(5, iscrowd="no"), "annotation 5: its iscrowd 'no' is neither 0 nor 1"),
        (note("\ud800", bbox=[]), "annotation '\\ud800': its bbox, [], is no list"),
        ([5], None),
        (note(5, image=99), None),
        (note(5, image="1"), None),
        (note(5, image=None), None),
    ],
)
def test_a_bad_annotation_refuses_its_whole_picture_or_itself_and_nothing_else(tmp_path, annotation, reason):
    write(tmp_path, content(note(6), annotation))
    boxes, refused = judged(coco.read_boxes(tmp_path), tmp_path)
    (row, why), *others = refused.items()
    assert not others
    if reason is None:  # of no picture: its own row
        assert row.startswith("instances.json, annotation") and ("image_id" in why or "no object" in why)
        assert boxes == {"all": {"1.png": [("cup", [1, 2, 11, 22])], "2.png": [], **THIRD}}
    else:
        assert row == "instances.json#1" and reason in why
        assert boxes == {"all": {"2.png": [], **THIRD}}


def changed(place: int, **fields) -> dict:
    """The content with some fields of one image, or another image, in place of the first or second."""
    images = content()["images"]
    images[place] |= fields
    return content(note(6), images=images)


@pytest.mark.parametrize(
    ("found", "reasons"),
    [
        (changed(1, file_name="gone.png"), {"#2": "image file is missing: gone.png"}),
        (changed(1, file_name="../outside.png"), {"#2": "no image, or one outside the dataset's folder"}),
        (changed(1, file_name="/etc/hostname"), {"#2": "no image, or one outside the dataset's folder"}),
        (changed(1, file_name="link.png"), {"#2": "no image, or one outside the dataset's folder"}),
        (changed(1, file_name="a\0.png"), {"#2": "no image, or one outside the dataset's folder"}),
        (changed(1, file_name=7), {"#2": "its file_name, 7, is empty or no text"}),
        (changed(1, file_name="\ud800.png"), {"#2": "its file_name, '\\ud800.png', has half of a surrogate pair"}),
        (changed(1, width=48, height=64), {"#2": "annotated on a picture of 48×64, and this one has 64×48"}),
        (changed(1, width="wide"), {"#2": "the size of its picture, ['wide', 48], is no list of 2 finite numbers"}),
        (changed(1, id=[2]), {", image 2 of the file": "its id [2] is neither a whole number nor a text"}),
        (changed(1, id=None), {", image 2 of the file": "its id None is neither a whole number nor a text"}),
        (
            changed(1, id=1),
            dict.fromkeys((", image 1 of the file", ", image 2 of the file"), "2 images have the id 1"),
        ),
        (changed(1, file_name="1.png"), dict.fromkeys(("#1", "#2"), "2 images have the file_name '1.png'")),
    ],
)
def test_a_bad_image_is_refused_and_nothing_else(tmp_path, found, reasons):
    folder = tmp_path / "data"
    write(folder, found)
    picture(tmp_path / "outside.png")
    os.symlink(tmp_path / "outside.png", folder / "link.png")
    boxes, refused = judged(coco.read_boxes(folder), tmp_path)
    assert refused.keys() == {f"instances.json{row}" for row in reasons}
    assert all(why in refused[f"instances.json{row}"] for row, why in reasons.items())
    first = {"1.png": [("cup", [1, 2, 11, 22])]} if all("1" not in row for row in reasons) else {}
    assert boxes == {"all": {**first, **THIRD}}


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "has no list 'images', as COCO's files have"),
        ('{"images": []}', "has no list 'annotations', as COCO's files have"),
        (content(categories={}), "has no list 'categories', as COCO's files have"),
        (content(categories=["cup"]), "the category 'cup' has no whole number or text for an id"),
        (content(categories=[*CATEGORIES, {"id": 1}]), "two categories have the id 1: give each its own"),
        (
            content(note(1), categories=[{"id": 1, "name": "cup"}, {"id": 4, "name": "cup"}]),
            "the categories 1 and 4 are both 'cup': rename one",
        ),
    ],
)
def test_a_file_that_is_not_cocos_is_refused_by_its_name(tmp_path, found, reason):
    file = write(tmp_path, found)
    with pytest.raises(DataError, match="instances.json") as error:
        coco.read_boxes(file)
    assert reason in str(error.value)


def test_other_encodings_and_a_folder_without_a_file_are_refused_by_name(tmp_path):
    file = write(tmp_path, "")
    file.write_bytes(json.dumps(content()).encode("utf-16"))
    with pytest.raises(DataError, match=r"instances.json is not JSON: .*utf-8"):
        coco.read_boxes(file)
    with pytest.raises(DataError, match="has no JSON file with lists of images, annotations and categories"):
        coco.read_boxes(tmp_path)
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(content()).encode())
    assert coco.recognises(tmp_path) and len(coco.read_boxes(tmp_path).splits["all"]) == 3


def test_a_category_without_a_name_is_refused_where_it_is_used(tmp_path):
    write(tmp_path, content(note(1), categories=[{"id": 1, "name": None}, CATEGORIES[1]]))
    boxes, refused = judged(coco.read_boxes(tmp_path), tmp_path)
    assert refused == {"instances.json#1": "the name of category 1, None, is empty or no text"}
    assert boxes == {"all": {"2.png": [], **THIRD}}


@pytest.mark.parametrize(
    "found",
    [
        '{"version": "5.0", "shapes": [], "imagePath": "1.png"}',  # labelme
        '{"text": ["where?"], "is_sentence": true, "shapes": []}',  # ReasonSeg
        '{"images": [{"id": 1}], "annotations": [{"image_id": 1, "caption": "a cup"}]}',  # COCO's captions
        '[{"id": "1", "image": "1.png", "conversations": []}]',  # LLaVA
        '[{"images": [], "annotations": [], "categories": []}]',
        '{"text": "\\"images\\": [], \\"annotations\\": [], \\"categories\\": []"}',
        "",
        "{" * 100,
    ],
)
def test_other_formats_are_not_recognised(tmp_path, found):
    assert not coco.recognises(write(tmp_path, found)) and not coco.recognises(tmp_path)
    assert not coco.recognises(tmp_path / "nowhere") and not coco.recognises(tmp_path / "1.png")


def test_a_file_beyond_a_link_is_not_read(tmp_path):
    write(tmp_path / "outside", content())
    (tmp_path / "data").mkdir()
    os.symlink(tmp_path / "outside", tmp_path / "data" / "annotations")
    assert not coco.recognises(tmp_path / "data")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
NOTES = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON,
        "image_id": st.sampled_from([1, 2, 9]) | JSON,
        "category_id": st.sampled_from([1, 4]) | JSON,
        "bbox": st.lists(st.floats() | st.integers(), min_size=4, max_size=4) | JSON,
        "iscrowd": st.sampled_from([0, 1]) | JSON,
    },
)
IMAGES = st.fixed_dictionaries(
    {"id": st.sampled_from([1, 2]) | JSON, "file_name": st.sampled_from(["1.png", "2.png"]) | JSON},
    optional={"width": JSON, "height": JSON},
)


@settings(max_examples=60, deadline=None)
@given(notes=st.lists(NOTES | JSON, max_size=4), images=st.lists(IMAGES | JSON, max_size=3))
def test_whatever_is_in_a_file_each_image_is_a_row_and_each_annotation_is_in_one_or_its_own(
    tmp_path_factory, notes, images
):
    folder = tmp_path_factory.mktemp("fuzzed")
    write(folder, {"images": images, "annotations": notes, "categories": CATEGORIES})
    rows = coco.read_boxes(folder).splits["all"]
    of_images = [row for row in rows if ", annotation" not in row["id"]]
    assert len(of_images) == len(images)
    if all(not row["why it cannot be read"] for row in of_images):
        boxes = sum(len(row["objects"]["bbox"]) + row["crowds"] for row in of_images)
        assert boxes + len(rows) - len(of_images) == len(notes)
