"""YOLO's folders as supervision writes them and as docs.ultralytics.com/datasets/detect has them; and broken ones."""

import os
from pathlib import Path

import pytest
import supervision
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.annotated import BOXES, CLASSES, as_supervision, judged, picture
from vlm_recipes.rows.boxes import BoxFormat
from vlm_recipes.rows.conventions import PROBLEM
from vlm_recipes.rows.errors import DataError
from vlm_recipes.rows.formats import yolo

NAMES = "names: [cup, bottle, box]\n"
YAML = NAMES + "train: images/train\n"
HALF = ("cup", [16, 12, 48, 36])  # what the line says
LINE = "0 0.5 0.5 0.5 0.5\n"


NEAR = {name: [(category, pytest.approx(box, abs=1e-3)) for category, box in found] for name, found in BOXES.items()}


def write(folder: Path, labels: dict[str, str | bytes | None], yaml: str = YAML, split: str = "train") -> Path:
    """`images/train` and `labels/train`; None: no label file."""
    for name, text in labels.items():
        picture(folder / f"images/{split}/{name}.png")
        file = folder / f"labels/{split}/{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
    if yaml:
        (folder / "data.yaml").write_text(yaml)
    return folder


# --- what public tools write


def written(folder: Path, images: str, labels: str, yaml: str | None = None) -> None:
    as_supervision(folder / "drawn", BOXES).as_yolo(
        images_directory_path=str(folder / "data" / images),
        annotations_directory_path=str(folder / "data" / labels),
        data_yaml_path=str(folder / "data/data.yaml"),
    )
    if yaml is not None:
        (folder / "data/data.yaml").write_text(yaml)


@pytest.mark.parametrize(
    ("layout", "yaml"),
    [
        (("images/{}", "labels/{}"), None),  # supervision's YAML names classes alone
        (
            ("images/{}", "labels/{}"),
            "names: {2: box, 0: cup, 1: bottle}\ntrain: images/train\nval: images/val",
        ),
        (("images/{}", "labels/{}"), NAMES + "path: ../data\ntrain: images/train\nval: images/val"),
        (("{}/images", "{}/labels"), NAMES + "train: ../train/images\nval: ../val/images"),  # Roboflow
        (("{}/images", "{}/labels"), NAMES + "path: /content/data\ntrain: train\nval: [val]"),
        (("{}", "{}"), NAMES + "train: train\nval: val"),  # side by side
    ],
)
def test_what_supervision_writes_is_read_with_its_boxes_and_its_pictures_without_any(tmp_path, layout, yaml):
    for split in ("train", "val"):
        written(tmp_path, *(part.format(split) for part in layout), yaml)
    for place in (tmp_path / "data", tmp_path / "data/data.yaml"):
        assert yolo.recognises(place) or (yaml is None and place.suffix)
        read = yolo.read_boxes(place)
        assert judged(read, tmp_path) == ({"train": NEAR, "val": NEAR}, {})
        assert read.counts == "2 categories, 6 images" and read.boxes == BoxFormat("cxcywh", "relative")
    assert read.splits["train"][2]["objects"] == {"bbox": [], "category_name": []}  # an empty file, and not None


@pytest.mark.parametrize("place", ["classes.txt", "labels/classes.txt"])
def test_without_a_yaml_classes_are_listed_in_a_text_file(tmp_path, place):
    write(tmp_path, {"a": LINE, "b": ""}, yaml="")
    write(tmp_path, {"c": "2 .5 .5 .5 .5"}, yaml="", split="val")
    (tmp_path / place).write_text("cup\r\nbottle\r\nbox\r\n")
    assert yolo.recognises(tmp_path)
    boxes, refused = judged(yolo.read_boxes(tmp_path), tmp_path)
    assert (boxes, refused) == ({"train": {"a.png": [HALF], "b.png": []}, "val": {"c.png": [("box", HALF[1])]}}, {})


def test_labels_beside_pictures_are_read_and_other_texts_are_left_alone(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text(LINE)
    (tmp_path / "README.txt").write_text("Made on a Monday.")
    (tmp_path / "lost.txt").write_text(LINE)
    (tmp_path / "classes.txt").write_text("cup\n")
    assert yolo.recognises(tmp_path)
    boxes, refused = judged(yolo.read_boxes(tmp_path), tmp_path)
    assert boxes == {"all": {"a.png": [HALF]}}
    assert refused == {"lost.txt": "there is no picture of this name, like lost.jpg"}


def test_boxes_and_outlines_are_those_that_supervision_reads(tmp_path):
    lines = "1 0.5 0.5 0.25 0.125\n0 0.1 0.2 0.6 0.25 0.3 0.9\n2 0.1 0.1 0.4 0.1 0.4 0.7 0.1 0.7\n"
    write(tmp_path, {"a": lines, "b": "1 0.25 0.5 0.5 1.0\n"})
    other = supervision.DetectionDataset.from_yolo(
        str(tmp_path / "images/train"), str(tmp_path / "labels/train"), str(tmp_path / "data.yaml")
    )
    found = {
        Path(path).name: sorted(
            (CLASSES[number], pytest.approx(box, abs=1e-3))
            for number, box in zip(boxes.class_id, boxes.xyxy.tolist(), strict=True)
        )
        for path, _, boxes in other
    }
    boxes, _ = judged(yolo.read_boxes(tmp_path), tmp_path)
    assert {name: sorted(own) for name, own in boxes["train"].items()} == found


def test_a_picture_without_a_label_file_has_no_box_and_is_counted(tmp_path):
    read = yolo.read_boxes(write(tmp_path, {"a": LINE, "b": None, "c": ""}))
    assert read.counts == "1 category, 3 images, 1 without a label file"
    assert judged(read, tmp_path) == ({"train": {"a.png": [HALF], "b.png": [], "c.png": []}}, {})


def test_points_after_a_box_are_left_out_where_the_yaml_says_how_many(tmp_path):
    write(tmp_path, {"a": LINE.strip() + " .1 .2 2 .3 .4 2"}, YAML + "kpt_shape: [2, 3]\n")
    assert judged(yolo.read_boxes(tmp_path), tmp_path) == ({"train": {"a.png": [HALF]}}, {})


def test_a_list_of_pictures_is_a_split(tmp_path):
    yaml = "names: {0: cup}\ntrain: train.txt\nval: val.txt\n"
    write(tmp_path, {"a": LINE, "b": LINE, "c": ""}, yaml)
    (tmp_path / "train.txt").write_text("./images/train/a.png\nimages/train/b.png\n../secret.png\n")
    (tmp_path / "val.txt").write_text("images/train/c.png\n")
    picture(tmp_path.parent / "secret.png")
    boxes, refused = judged(yolo.read_boxes(tmp_path), tmp_path)
    assert boxes == {"train": {"a.png": [HALF], "b.png": [HALF]}, "val": {"c.png": []}}
    assert refused == {"../secret.txt": "no image, or one outside the dataset's folder"}


def test_a_folder_that_is_not_there_is_named_and_the_others_are_read(tmp_path):
    read = yolo.read_boxes(write(tmp_path, {"a": LINE}, YAML + "test: ../test/images\n"))
    assert read.counts == "1 category, 1 image, no ../test/images for 'test'" and list(read.splits) == ["train"]


def test_names_that_yaml_takes_for_numbers_and_answers_are_texts(tmp_path):
    write(tmp_path, {"a": LINE + "1 .5 .5 .5 .5"}, "names: [no, 1_0]\ntrain: images/train\n")
    boxes, _ = judged(yolo.read_boxes(tmp_path), tmp_path)
    assert sorted(name for name, _ in boxes["train"]["a.png"]) == ["1_0", "no"]


# --- what is refused


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (LINE + "0 .5 .5 .5", "line 2 has 4 fields: a class and four numbers are due, or three points or more"),
        (
            "0 .5 .5 .5 .5 .93",
            "line 1 has 6 fields: a class and four numbers are due, or three points or more, without",
        ),
        ("0 .5 .5 .5 .5 .5 .5 .5", "line 1 has 8 fields"),
        ("7 .5 .5 .5 .5", "line 1: there is no class 7, only [0, 1, 2]"),
        ("-1 .5 .5 .5 .5", "line 1: there is no class -1, only [0, 1, 2]"),
        ("0.5 .5 .5 .5 .5", "line 1: there is no class 0.5"),
        ("cup .5 .5 .5 .5", "line 1: 'cup .5 .5 .5 .5' is no list of finite numbers"),
        ("0 nan .5 .5 .5", "is no list of finite numbers"),
        ("0 .5 .5 inf .5", "is no list of finite numbers"),
        ("0 .5 .5 1e999 .5", "is no list of finite numbers"),
        ("0 .5 .5 0_1 .5", "is no list of finite numbers"),
        ("0 .5 .5 -0.5 .5", "line 1: the box [0.5, 0.5, -0.5, 0.5] has no area"),
        ("0 .5 .5 .5 0", "line 1: the box [0.5, 0.5, 0.5, 0.0] has no area"),
        ("0 .9 .5 .5 .5", "is inverted or outside the image of 64×48"),
        (
            "0 20 20 10 10",
            "outside the image of 64×48: [x_center, y_center, width, height] in 0-1 are due",
        ),
        ("0,.5,.5,.5,.5", "is no list of finite numbers"),
        (LINE.encode("utf-16"), "its label file cannot be read"),
        (b"0 .5 .5 .5 \x00", "is no list of finite numbers"),
    ],
)
def test_a_bad_line_refuses_its_whole_picture_by_name_and_nothing_else(tmp_path, label, reason):
    boxes, refused = judged(yolo.read_boxes(write(tmp_path, {"a": label, "b": LINE, "c": ""})), tmp_path)
    assert boxes == {"train": {"b.png": [HALF], "c.png": []}}
    assert refused.keys() == {"labels/train/a.txt"} and reason in refused["labels/train/a.txt"]


def test_labels_without_a_picture_pictures_of_one_name_and_broken_ones_are_refused(tmp_path):
    write(tmp_path, {"a": LINE, "twice": LINE, "broken": LINE, "lost": LINE})
    folder = tmp_path / "images/train"
    (folder / "lost.png").unlink()
    (folder / "broken.png").write_bytes(b"")
    picture(folder / "twice.bmp")
    boxes, refused = judged(yolo.read_boxes(tmp_path), tmp_path)
    assert boxes == {"train": {"a.png": [HALF]}}
    assert refused.pop("labels/train/broken.txt").startswith("image cannot be read")
    assert refused == {
        "images/train/twice.png": yolo.TWICE,
        "images/train/twice.bmp": yolo.TWICE,
        "labels/train/lost.txt": "there is no picture of this name, like lost.jpg",
    }


def test_links_that_leave_the_folder_are_not_followed(tmp_path):
    data, outside = write(tmp_path / "data", {"a": LINE, "b": LINE}), write(tmp_path / "outside", {"c": LINE})
    os.symlink(outside / "images/train/c.png", data / "images/train/c.png")
    os.symlink(outside / "labels/train/c.txt", data / "labels/train/c.txt")
    (data / "labels/train/b.txt").unlink()
    os.symlink(outside / "labels/train/c.txt", data / "labels/train/b.txt")
    boxes, refused = judged(yolo.read_boxes(data), tmp_path)
    assert boxes == {"train": {"a.png": [HALF]}}
    assert refused == {
        f"labels/train/{name}.txt": "its label file is a link that leaves the dataset's folder" for name in "bc"
    }
    (data / "data.yaml").write_text(YAML + f"val: {outside}/images/train\ntest: ../outside/images/train\n")
    assert list(yolo.read_boxes(data).splits) == ["train"]  # the YAML's own folder has none of the others


def test_names_that_are_not_utf8_are_refused(tmp_path):
    write(tmp_path, {"a": LINE})
    os.rename(tmp_path / "images/train/a.png", os.fsencode(tmp_path / "images/train") + b"/\xff.png")
    rows = yolo.read_boxes(tmp_path).splits["train"]
    assert [(row["id"], row[PROBLEM]) for row in rows] == [
        ("labels/train/\\udcff.txt", "the name of its file is not in UTF-8: rename it"),
        ("labels/train/a.txt", "there is no picture of this name, like a.jpg"),
    ]


@pytest.mark.parametrize(
    ("yaml", "reason"),
    [
        ("names: [cup", "data.yaml is not YAML"),
        ("[" * 100_000, "data.yaml is not YAML"),
        (
            "names: !!python/object/apply:os.getcwd []\ntrain: images/train",
            "'names' is {}: a list, or a name",
        ),
        ("- names", "'names' and 'train' are due"),
        ("names: cup\ntrain: images/train", "'names' is 'cup': a list, or a name for each number, is due"),
        ("names: {cup: 0}\ntrain: images/train", "a list, or a name for each number, is due"),
        ("names: [cup, cup]\ntrain: images/train", "two classes have the name 'cup': rename one"),
        ("names: [cup]\ntrain: {a: b}", "'train' is [{'a': 'b'}]: the name of a folder or a list of them is due"),
        ("names: [cup]\ntrain: nowhere", "names no picture that is in its folder: nowhere for 'train'"),
        ("names: [cup]\ntrain: images/train\nkpt_shape: 3", "'kpt_shape' in the YAML is '3'"),
    ],
)
def test_a_yaml_that_cannot_be_read_is_refused_by_name(tmp_path, yaml, reason):
    write(tmp_path, {"a": LINE}, yaml)
    with pytest.raises(DataError) as error:
        yolo.read_boxes(tmp_path / "data.yaml")
    assert reason in str(error.value)


def test_a_class_without_a_name_is_refused_where_it_is_used(tmp_path):
    write(tmp_path, {"a": LINE, "b": "1 .5 .5 .5 .5"}, "names: ['', bottle]\ntrain: images/train\n")
    boxes, refused = judged(yolo.read_boxes(tmp_path), tmp_path)
    assert boxes == {"train": {"b.png": [("bottle", HALF[1])]}}
    assert refused == {"labels/train/a.txt": "line 1: the name of class 0, '', is empty or no text"}


def test_classes_that_nobody_names_or_two_files_name_differently_end_in_one_line(tmp_path):
    write(tmp_path, {"a": LINE}, yaml="")
    assert yolo.recognises(tmp_path)
    with pytest.raises(DataError, match="it has neither a YAML with 'names' nor classes.txt, a name a line"):
        yolo.read_boxes(tmp_path)
    (tmp_path / "classes.txt").write_text("cup")
    (tmp_path / "labels/classes.txt").write_text("box")
    with pytest.raises(DataError, match="classes.txt and labels/classes.txt differ"):
        yolo.read_boxes(tmp_path)
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).write_text(YAML)
    with pytest.raises(DataError, match="has one.yaml and two.yaml: name one as the dataset"):
        yolo.read_boxes(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("notes.txt", "2007 1\n"),
        ("ImageSets/Main/train.txt", "000005\n"),
        ("config.yaml", "names: [a]\n"),
        ("config.yaml", "train: 1\n"),
        ("labels/a.txt", "1 2 3"),
        ("labels/a.txt", ""),
    ],
)
def test_other_folders_are_not_recognised(tmp_path, name, text):
    picture(tmp_path / "a.png")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
    os.mkfifo(tmp_path / "pipe.txt")
    os.mkfifo(tmp_path / "pipe.yaml")
    assert not any(map(yolo.recognises, (tmp_path, tmp_path / name, tmp_path / "a.png", tmp_path / "nowhere")))


@settings(max_examples=60, deadline=None)
@given(labels=st.lists(st.text(alphabet="01.5 -e\n\x00n٣_", max_size=40), min_size=1, max_size=4))
def test_whatever_is_in_a_label_each_picture_is_a_row_with_a_box_for_each_line(tmp_path_factory, labels):
    named = {f"p{i}": text for i, text in enumerate(labels)}
    folder = write(tmp_path_factory.mktemp("fuzzed"), named)
    for row in yolo.read_boxes(folder).splits["train"]:
        lines = [line for line in named[Path(row["id"]).stem].split("\n") if line.split()]
        assert row[PROBLEM].startswith("line ") or len(row["objects"]["bbox"]) == len(lines)
    assert len(yolo.read_boxes(folder).splits["train"]) == len(labels)
