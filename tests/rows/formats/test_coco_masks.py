"""COCO's polygons and run lengths, as pycocotools and supervision write and read them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import supervision
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from tests.rows.formats.test_coco import content, note, write
from tests.support.annotated import CLASSES, SIZE, judged_masks, picture
from vlm_recipes.rows.errors import BadRow
from vlm_recipes.rows.formats import coco
from vlm_recipes.rows.segments import segments_mask

WIDTH, HEIGHT = SIZE
SQUARE = [[4, 6, 20, 6, 20, 30, 4, 30]]


def blob(seed: int) -> np.ndarray:
    """A mask of two pieces, one of them with a hole."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    far = np.hypot(rows - 20, columns - 20 - seed)
    return ((far < 12) & (far > 5)) | ((rows > 40) & (columns < 9))


def compressed(mask: np.ndarray) -> dict:
    found = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": found["size"], "counts": found["counts"].decode()}


def uncompressed(mask: np.ndarray) -> dict:
    return {"size": list(mask.shape), "counts": supervision.mask_to_rle(mask)}


def segmented(number: int, segmentation: Any, **more) -> dict:
    return {**note(number, iscrowd=0), "segmentation": segmentation, **more}


def file_of(folder: Path, *annotations: dict) -> Path:
    """Two pictures, the second with a bottle; and one without anything."""
    second = segmented(900, SQUARE, image_id=3, category_id=4)
    return write(folder, content(annotations=[*annotations, second]))


def test_masks_are_those_of_pycocotools_in_every_encoding(tmp_path):
    file = file_of(
        tmp_path,
        segmented(1, [[3.5, 4.25, 30, 4, 18.75, 33]]),
        segmented(2, compressed(blob(0)), category_id=4),
        segmented(3, uncompressed(blob(9)), category_id=4),
        segmented(4, [[40, 4, 60, 4, 60, 20], [40, 30, 60, 30, 60, 40]]),
    )
    read = coco.read_masks(file)
    assert read.counts == "2 categories, 3 images, 1 of them without any" and read.boxes is None
    masks, refused = judged_masks(read, tmp_path)
    index = COCO(str(file))
    for image, category in ((1, 1), (1, 4), (3, 4)):
        notes = index.loadAnns(index.getAnnIds(image, category))
        expected = np.maximum.reduce([index.annToMask(one) for one in notes])
        assert (masks["all"].pop((f"{image}.png", index.cats[category]["name"])) == expected).all()
    assert masks == {"all": {}} and not refused


def test_masks_that_supervision_writes_are_read_as_they_were(tmp_path):
    path = str(picture(tmp_path / "drawn/a.png"))
    masks = np.stack([blob(0), blob(20)])
    boxes = supervision.mask_to_xyxy(masks).astype(np.float32)
    found = supervision.Detections(
        xyxy=boxes, mask=masks, class_id=np.array([0, 1]), data={"iscrowd": np.array([0, 1])}
    )
    drawn = supervision.DetectionDataset(classes=CLASSES, images=[path], annotations={path: found})
    drawn.as_coco(images_directory_path=str(tmp_path / "coco"), annotations_path=str(tmp_path / "coco/all.json"))
    content = json.loads((tmp_path / "coco/all.json").read_text())
    content["annotations"][0]["segmentation"] = content["annotations"][1]["segmentation"]  # run lengths for both
    for one in content["annotations"]:
        one["iscrowd"] = 0
    (tmp_path / "coco/all.json").write_text(json.dumps(content))
    read, _ = judged_masks(coco.read_masks(tmp_path / "coco"), tmp_path)
    assert (read["all"]["a.png", "cup"] == blob(20)).all() and (read["all"]["a.png", "bottle"] == blob(20)).all()


def test_crowds_are_ignored_where_no_object_is_and_not_asked_about_alone(tmp_path):
    whole = np.ones((HEIGHT, WIDTH), dtype=bool)
    file_of(tmp_path, segmented(1, SQUARE), segmented(2, uncompressed(whole), iscrowd=1))
    masks, refused = judged_masks(coco.read_masks(tmp_path), tmp_path)
    cup = masks["all"]["1.png", "cup"]
    assert set(np.unique(cup)) == {1, 255} and (cup == 1).sum() == 16 * 24 and not refused
    file_of(tmp_path, segmented(2, compressed(whole), iscrowd=1))
    read = coco.read_masks(tmp_path)
    assert read.counts == "1 category, 3 images, 2 of them without any" and len(read.splits["all"]) == 1


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        (None, "annotation 5: its segmentation, None, is neither polygons nor run lengths"),
        ([], "annotation 5: its segmentation, [], is neither polygons nor run lengths"),
        (7, "its segmentation, 7, is neither polygons nor run lengths"),
        ([1, 2, 3, 4, 5, 6], "a polygon of its segmentation, 1, is no list of 6 finite numbers"),
        ([[1, 2, 3, 4]], "annotation 5: a polygon of its segmentation, [1, 2, 3, 4], is no list of 6 finite numbers"),
        ([[1, 2, 3, 4, 5, 6, 7]], "is no list of 6 finite numbers"),
        ([[1, 2, 3, 4, 5, float("nan")]], "is no list of 6 finite numbers"),
        ([[1, 2, 3, 4, 5, 10**8]], "annotation 5: from (1, 2) to (5, 1e+08) outside of 64×48"),
        ([[1, 1, 1, 1, 1, 1]], "its segments cover no pixel"),
        ({"counts": [3072]}, "the size of its segmentation is None, and the image has [48, 64], height first"),
        ({"size": [HEIGHT, WIDTH]}, "the counts of its segmentation, None, are no whole numbers from 0 on"),
        ({"size": [HEIGHT, WIDTH], "counts": [10, "a"]}, "the counts of its segmentation, [10, 'a'], are no"),
        ({"size": [HEIGHT, WIDTH], "counts": [10.5, 3061.5]}, "segmentation, [10.5, 3061.5], are no whole"),
        (
            {"size": [WIDTH, HEIGHT], "counts": [0, 3072]},
            "segmentation is [64, 48], and the image has [48, 64]",
        ),
        ({"size": [HEIGHT, WIDTH], "counts": [0, 5]}, "are of 5 pixels, and the image has 3072"),
        ({"size": [HEIGHT, WIDTH], "counts": [-1, 3073]}, "[-1, 3073], are no whole numbers from 0 on"),
        ({"size": [HEIGHT, WIDTH], "counts": []}, "are of 0 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": "05"}, "are of 5 pixels, and the image has 3072"),
        ({"size": [HEIGHT, WIDTH], "counts": "\u00e9"}, "its counts have 'é', which is none of COCO's signs there"),
        ({"size": [HEIGHT, WIDTH], "counts": "o" * 9 + "0"}, "its counts have a number of more than 7 signs"),
        ({"size": [HEIGHT, WIDTH], "counts": "oo"}, "its counts end within a number"),
    ],
)
def test_a_bad_segmentation_refuses_what_is_asked_of_it_by_name_and_nothing_else(tmp_path, segmentation, reason):
    file_of(tmp_path, segmented(5, segmentation))
    masks, refused = judged_masks(coco.read_masks(tmp_path), tmp_path)
    assert masks["all"].keys() == {("3.png", "bottle")}
    assert refused.keys() == {"instances.json#1 cup"} and reason in refused["instances.json#1 cup"]


@settings(max_examples=100, deadline=None)
@given(
    mask=st.lists(st.booleans(), min_size=12, max_size=12), shape=st.sampled_from([(3, 4), (12, 1), (1, 12), (2, 6)])
)
def test_both_encodings_of_any_mask_are_read_as_pycocotools_reads_them(mask, shape):
    wanted = np.array(mask).reshape(shape)
    for written in (compressed(wanted), uncompressed(wanted)):
        segments = json.dumps([{"which": "it", "segmentation": written}])
        if wanted.any():
            assert (segments_mask(segments, [shape[1], shape[0]]) == wanted).all()
        else:
            with pytest.raises(BadRow, match="its segments cover no pixel"):
                segments_mask(segments, [shape[1], shape[0]])


def test_long_runs_in_a_string_are_read_as_pycocotools_reads_them():
    wanted = np.zeros((700, 900), dtype=bool)
    wanted[3:650:7, 5:800] = True
    wanted[:, 850] = True
    assert (segments_mask(json.dumps([{"which": "", "segmentation": compressed(wanted)}]), [900, 700]) == wanted).all()


@settings(max_examples=200, deadline=None)
@given(counts=st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=12))
def test_any_string_of_counts_is_a_mask_of_the_image_or_refused(counts):
    segment = {"which": "it", "segmentation": {"size": [3, 4], "counts": counts}}
    try:
        assert segments_mask(json.dumps([segment]), [4, 3]).shape == (3, 4)
    except BadRow as error:
        assert str(error)
