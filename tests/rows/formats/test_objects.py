"""Boxes as datasets on the Hub spell them, made by `datasets` itself."""

import io

import datasets
import pytest
from datasets import ClassLabel, Features, Image, List, Value
from PIL import Image as Pillow

from vlm_recipes.rows.conventions import PROBLEM
from vlm_recipes.rows.errors import DataError
from vlm_recipes.rows.formats.objects import with_objects

NAMES = ["cup", "bottle", "box"]
BOXES = [[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]], [], [[9.0, 10.0, 11.0, 12.0]]]
NUMBERS = [[0, 2], [], [1]]
EXPECTED = [
    {"bbox": BOXES[0], "category_name": ["cup", "box"]},
    {"bbox": [], "category_name": []},
    {"bbox": BOXES[2], "category_name": ["bottle"]},
    None,
]


def made(objects: list, feature) -> datasets.Dataset:
    """Rows with a picture's bytes, so that a copy of them would be seen."""
    buffer = io.BytesIO()
    Pillow.new("RGB", (8, 8)).save(buffer, "PNG")
    columns = {
        "id": [f"r{i}" for i in range(len(objects))],
        "image": [{"bytes": buffer.getvalue(), "path": None}] * len(objects),
        "objects": objects,
    }
    return datasets.Dataset.from_dict(columns, Features(id=TEXT, image=Image(decode=False), objects=feature))


def as_lists(box: str, category: str, categories: list) -> list:
    return [{box: boxes, category: own} for boxes, own in zip(BOXES, categories, strict=True)] + [None]


def as_dicts(box: str, category: str, categories: list) -> list:
    rows = zip(BOXES, categories, strict=True)
    return [[{box: one, category: name} for one, name in zip(boxes, own, strict=True)] for boxes, own in rows] + [None]


TEXTS = [[NAMES[number] for number in own] for own in NUMBERS]
PAIRS = List(List(Value("float32")))
TEXT = Value("string")
LABEL = ClassLabel(names=NAMES)
LABELS = List(LABEL)


@pytest.mark.parametrize(
    ("objects", "feature"),
    [
        (as_lists("bbox", "category", NUMBERS), {"bbox": PAIRS, "category": LABELS}),  # CPPE-5
        (as_lists("bboxes", "label", NUMBERS), {"bboxes": PAIRS, "label": LABELS}),
        (
            as_lists("boxes", "labels", TEXTS),
            {"boxes": List(List(Value("int64"), 4)), "labels": List(TEXT)},
        ),
        (
            as_dicts("bbox", "category_name", TEXTS),
            List({"bbox": List(Value("float64")), "category_name": TEXT}),
        ),
        (
            as_dicts("bbox", "category_id", NUMBERS),
            List({"bbox": List(Value("int32"), 4), "category_id": LABEL}),
        ),
    ],
)
def test_each_spelling_becomes_the_one_that_recipes_know(objects, feature):
    rows = with_objects(made(objects, feature))
    assert rows["objects"][:] == EXPECTED and rows[PROBLEM][:] == [""] * 4
    assert rows.features["objects"]["bbox"] == List(List(Value("float64")))
    assert rows["id"][:] == ["r0", "r1", "r2", "r3"]


def test_names_win_over_numbers_without_any():
    objects = [{"bbox": [BOXES[0][0]], "category_id": [7], "label": ["cup"], "area": [4.0]}]
    feature = {
        "bbox": PAIRS,
        "category_id": List(Value("int64")),
        "label": List(TEXT),
        "area": List(Value("float32")),
    }
    assert with_objects(made(objects, feature))[0]["objects"] == {"bbox": [BOXES[0][0]], "category_name": ["cup"]}


def test_the_standard_spelling_is_returned_as_it_is():
    rows = made(as_lists("bbox", "category_name", TEXTS), {"bbox": PAIRS, "category_name": List(TEXT)})
    assert with_objects(rows) is rows


def test_pictures_are_not_copied_nor_is_a_selection_written_out():
    rows = made(as_lists("bbox", "category", NUMBERS), {"bbox": PAIRS, "category": LABELS})
    chosen = rows.select([2, 0])
    read = with_objects(chosen)
    assert read["objects"][:] == [EXPECTED[2], EXPECTED[0]] and read["id"][:] == ["r2", "r0"]

    def place(of: datasets.Dataset) -> int:
        return of.data.column("image").chunk(0).field("bytes").buffers()[2].address

    assert place(read) == place(rows)


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        (
            {"bbox": [[1, 2, 3, 4]], "category": [-1]},
            "'category' -1 has no name: there are 3, ['cup', 'bottle', 'box']",
        ),
        ({"bbox": [[1, 2, 3, 4]], "category": [None]}, "'category' None has no name"),
        ({"bbox": [[1, 2, 3, 4]], "category": [0, 1]}, "1 under 'bbox' and 2 under 'category'"),
        ({"bbox": [[1, 2, 3]], "category": [0]}, "box 1, [1.0, 2.0, 3.0], is no list of 4 finite numbers"),
        ({"bbox": [[1, 2, 3, 4], None], "category": [0, 0]}, "box 2, None, is no list of 4 finite numbers"),
        ({"bbox": [[1, 2, 3, float("nan")]], "category": [0]}, "is no list of 4 finite numbers"),
        ({"bbox": [[1, 2, 3, None]], "category": [0]}, "is no list of 4 finite numbers"),
    ],
)
def test_a_row_that_cannot_be_read_says_why_and_the_others_are_read(objects, reason):
    feature = {"bbox": List(List(Value("float64"))), "category": LABELS}
    read = with_objects(made([{"bbox": [], "category": []}, objects], feature))
    assert read[0]["objects"] == {"bbox": [], "category_name": []} and read[0][PROBLEM] == ""
    assert read[1]["objects"] is None and reason in read[1][PROBLEM]


def test_an_object_that_is_none_or_without_a_name_is_refused():
    feature = List({"bbox": List(Value("float64")), "label": TEXT})
    good, unnamed = {"bbox": [1, 2, 3, 4], "label": "cup"}, {"bbox": [1, 2, 3, 4], "label": None}
    read = with_objects(made([[good, None], [good, unnamed], [good]], feature))
    assert read[PROBLEM][:] == ["object 2 of 2 is None", "'label' 2, None, is empty or no text", ""]


@pytest.mark.parametrize(
    ("feature", "objects", "reason"),
    [
        (
            {"bbox": PAIRS, "category": List(Value("int64"))},
            {"bbox": [], "category": []},
            "'category' are numbers without names: a",
        ),
        (
            {"bbox": PAIRS},
            {"bbox": []},
            "'objects' has 'bbox': a name for each as 'category_name', or a Class",
        ),
        ({"category": List(TEXT)}, {"category": []}, "'objects' has 'category': 'bbox' is due"),
        (Value("string"), "[]", "neither a list of dicts nor a dict of lists"),
        (List(List(Value("float64"))), [], "neither a list of dicts nor a dict of lists"),
    ],
)
def test_a_column_without_boxes_or_names_ends_in_one_line(feature, objects, reason):
    with pytest.raises(DataError) as error:
        with_objects(made([objects], feature))
    assert reason in str(error.value)


def test_a_missing_column_ends_in_one_line():
    with pytest.raises(DataError, match="there is no column 'objects', only 'id'"):
        with_objects(datasets.Dataset.from_dict({"id": ["a"]}))
