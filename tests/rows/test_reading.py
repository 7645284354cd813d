"""A dataset named on the command line: recognised, its pictures its folder's, split by image, its ids its files'."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchvision.ops import box_convert

from recipes import kvasir_vqa, nutrition_tables, visual_chat, vqa_rad
from tests.support.annotated import BOXES, SIZE, as_supervision, picture
from vlm_recipes.callbacks.preflight.rows import check_coordinates
from vlm_recipes.eval.metrics.box_tokens import Qwen2VLBoxes
from vlm_recipes.rows import hold_out, parts_of, read_boxes, read_rows, three_parts, usable_rows, with_validation
from vlm_recipes.rows.boxes import PUBLISHED, doubt_of
from vlm_recipes.rows.errors import BadRow, DataError
from vlm_recipes.rows.images import images_of
from vlm_recipes.rows.loading import load_all
from vlm_recipes.rows.parts import VALIDATION

QUESTION = ("image", "question", "answer")
OUTSIDE = "no image, or one outside the dataset's folder"


def asked(name: str, number: int = 1) -> dict:
    return {"image": name, "question": f"What is shown, {number}?", "answer": "a cup"}


def questions(place: Path, **settings):
    return read_rows("questions", vqa_rad.Data(dataset_name=str(place), **settings), QUESTION)


def write_csv(file: Path, rows: list[dict]) -> None:
    file.parent.mkdir(exist_ok=True)
    lines = [",".join(rows[0]), *(",".join(f'"{value}"' for value in row.values()) for row in rows)]
    file.write_text("\n".join(lines), encoding="utf-8")


def write_coco(folder: Path) -> None:
    folder.mkdir()
    as_supervision(folder / "images", BOXES).as_coco(annotations_path=str(folder / "instances.json"))


def write_yolo(folder: Path) -> None:
    (folder / "labels").mkdir(parents=True)
    (folder / "data.yaml").write_text("names: [cup]\ntrain: images\n")
    (folder / "labels" / "a.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    picture(folder / "images" / "a.png")


def write_objects(folder: Path, boxes: list[list[float]]) -> None:
    """An imagefolder with a box a picture."""
    lines = []
    for number, box in enumerate(boxes):
        picture(folder / f"{number}.png")
        objects = {"bbox": [box], "category_name": ["cup"]}
        lines.append(json.dumps({"file_name": f"{number}.png", "image_id": f"p{number}", "objects": objects}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))


# --- Recognised


def test_a_coco_folder_is_read_and_named_in_a_line(tmp_path, capsys):
    write_coco(tmp_path / "shop")
    data = nutrition_tables.Data(dataset_name=str(tmp_path / "shop"), test_fraction=0.34)
    parts, given, categories = read_boxes(data, (), 0, nutrition_tables.Data.dataset_name)
    assert "read as COCO: 2 categories, 3 images\n" in capsys.readouterr().out
    assert (given.order, given.unit, given.declared) == ("xywh", "pixels", True)
    assert set(categories) <= {"bottle", "cup"} and {part: len(rows) for part, rows in parts.items()} == {
        "train": 2,
        "test": 1,
    }
    found = {Path(row["image"]["path"]).name: row["objects"] for rows in parts.values() for row in rows}
    assert found.keys() == BOXES.keys()
    for name, drawn in BOXES.items():
        assert found[name]["category_name"] == [category for category, _ in drawn]
        corners = torch.tensor([box for _, box in drawn]).reshape(-1, 4)
        expected = box_convert(corners, "xyxy", "xywh").tolist()
        assert found[name]["bbox"] == [pytest.approx(box, abs=0.01) for box in expected]


def test_a_csv_of_image_question_and_answer_is_read(tmp_path, capsys):
    picture(tmp_path / "a.png")
    write_csv(tmp_path / "mine.csv", [asked("a.png"), asked("a.png", 2)])
    for place in (tmp_path, tmp_path / "mine.csv"):
        [(split, rows)] = questions(place).splits.items()
        assert "read as a table of questions: 2 questions, 1 images\n" in capsys.readouterr().out
        assert split == "all" and rows["question"][:] == ["What is shown, 1?", "What is shown, 2?"]
        assert rows["id"][:] == ["mine.csv, line 2", "mine.csv, line 3"] and rows["image_id"][:] == ["a.png"] * 2


def test_a_json_list_of_questions_is_no_vqa_rad_and_neither_is_one_of_other_keys(tmp_path, capsys):
    picture(tmp_path / "a.png")
    (tmp_path / "rows.json").write_text(json.dumps([asked("a.png")]))
    assert questions(tmp_path).splits["all"]["answer"][:] == ["a cup"]
    assert "VQA-RAD" not in capsys.readouterr().out
    (tmp_path / "rows.json").write_text(json.dumps([{"picture_no": 1, "q": "What?", "a": "a cup"}]))
    with pytest.raises(DataError, match="rows.json' is none of vqa_rad .*, tables .*: --dataset_format and one of"):
        questions(tmp_path / "rows.json")
    with pytest.raises(DataError, match="has to have one file of VQA-RAD's questions: none$"):
        questions(tmp_path, dataset_format="vqa_rad")
    assert capsys.readouterr().out == ""


def test_vqa_rad_s_own_json_still_is(drawn_vqa_rad, capsys):
    assert sorted(questions(drawn_vqa_rad).splits) == ["test", "train"]
    assert "read as VQA-RAD's original JSON: 2,248 questions, 3" in capsys.readouterr().out


def test_a_folder_that_fits_two_formats_is_asked_about_in_a_line_and_the_flag_decides(tmp_path, capsys):
    write_coco(tmp_path / "both")
    write_yolo(tmp_path / "both")
    with pytest.raises(DataError, match="both' fits COCO and YOLO: name one, --dataset_format coco or yolo$") as asks:
        read_rows("boxes", nutrition_tables.Data(dataset_name=str(tmp_path / "both")), ())
    assert "\n" not in str(asks.value)
    for name, title in (("coco", "COCO"), ("yolo", "YOLO")):
        read_rows("boxes", nutrition_tables.Data(dataset_name=str(tmp_path / "both"), dataset_format=name), ())
        assert capsys.readouterr().out.startswith(f"read as {title}: ")


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ("yolo", "the classes of .* have no names: it has neither a YAML with 'names' nor classes.txt"),
        ("tables", "--dataset_format tables has no boxes: one of coco, yolo, .*datasets$"),
        ("datasets", "has no column 'objects'"),
    ],
)
def test_a_named_format_is_taken_and_refused_where_the_folder_is_none(named, why, tmp_path):
    write_coco(tmp_path / "shop")
    data = nutrition_tables.Data(dataset_name=str(tmp_path / "shop"), dataset_format=named)
    with pytest.raises(DataError, match=why):
        read_rows("boxes", data, ("objects",))


def test_a_format_is_of_what_is_on_disk_and_has_no_configurations(tmp_path):
    with pytest.raises(DataError, match="^there is no folder or file 'somebody/something'$"):
        questions(Path("somebody/something"), dataset_format="tables")
    picture(tmp_path / "a.png")
    write_csv(tmp_path / "mine.csv", [asked("a.png")])
    with pytest.raises(DataError, match="^--dataset_config own has no effect: a table of questions has no"):
        questions(tmp_path, dataset_config="own")


# --- How boxes are given


SHAPES = [[0.125, 0.25, 0.5, 0.75], [0.25, 0.125, 0.75, 0.5]]  # x_min, y_min, x_max, y_max in 0-1


def boxes_as_read(place: Path, output: Path, **settings):
    """The test part's rows as the recipe makes them, and how their boxes were read."""
    data = nutrition_tables.Data(dataset_name=str(place), **settings)
    parts, given, _ = read_boxes(data, ("image", "objects"), 0, nutrition_tables.Data.dataset_name)

    def adapt(row: dict) -> dict:
        return nutrition_tables.to_chat(row, codec=nutrition_tables.codec_of(None, None), given=given)

    (train, _), refused = usable_rows(parts, adapt, str(output), 0)
    assert refused == []
    return train, given


def test_undeclared_boxes_that_fit_another_convention_are_a_warning_that_names_it(tmp_path):
    write_objects(tmp_path / "data", SHAPES * 3)
    train, given = boxes_as_read(tmp_path / "data", tmp_path)
    assert (given.order, given.declared) == (PUBLISHED.order, False)
    warned = check_coordinates({"train": train}, doubt_of(train, given))
    assert warned.status == "warn" and "[x_min, y_min, x_max, y_max] in 0-1" in warned.found
    assert "--box_format" in warned.found and "nothing says that they are [y_min, x_min" in warned.found


def test_declared_as_xyxy_they_come_out_right_and_there_is_no_doubt(tmp_path):
    write_objects(tmp_path / "data", SHAPES * 3)
    declared = {"box_format": "xyxy", "box_unit": "relative"}
    train, given = boxes_as_read(tmp_path / "data", tmp_path, **declared)
    in_pixels = [[side * size for side, size in zip(box, SIZE * 2, strict=True)] for box in SHAPES]
    assert train["boxes"][:] == [[in_pixels[int(name[1:]) % 2]] for name in train["image_id"]]
    assert doubt_of(train, given) == ""
    assert check_coordinates({"train": train}, doubt_of(train, given)).status == "pass"


@pytest.mark.parametrize(
    ("shapes", "fit"),
    [
        (SHAPES, "[x_min, y_min, x_max, y_max] in 0-1 or [x_min, y_min, width, height] in 0-1"),
        ([*SHAPES, [0.5, 0.5, 0.75, 0.75]], "[x_min, y_min, x_max, y_max] in 0-1"),
    ],
)
def test_a_doubt_names_the_conventions_that_fit_every_box_and_no_other(shapes, fit, tmp_path):
    """Numbers in 0-1 are no boxes in pixels, and what is 0.75 wide from 0.5 on leaves the picture."""
    write_objects(tmp_path / "data", shapes * 3)
    train, given = boxes_as_read(tmp_path / "data", tmp_path)
    assert f"they were read; all fit as {fit}, too: look" in doubt_of(train, given)


def test_a_format_that_says_how_boxes_are_given_refuses_the_flags(tmp_path):
    write_coco(tmp_path / "shop")
    with pytest.raises(DataError, match=r"--box_format xyxy has no effect: the format says it: \[x_min, y_min, width"):
        boxes_as_read(tmp_path / "shop", tmp_path, box_format="xyxy")


# --- Whose pictures


def folder_elsewhere(tmp_path: Path, monkeypatch) -> tuple[Path, Path]:
    """The dataset's folder with a.png, and a picture outside of it; the process is in another folder with an a.png."""
    data = tmp_path / "data"
    picture(data / "a.png")
    picture(tmp_path / "here" / "a.png", (8, 8))
    monkeypatch.chdir(tmp_path / "here")
    return data, picture(tmp_path / "outside.png")


def test_a_relative_path_in_a_jsonl_is_the_folder_s_wherever_the_run_began(tmp_path, monkeypatch):
    data, _ = folder_elsewhere(tmp_path, monkeypatch)
    (data / "rows.jsonl").write_text(json.dumps(asked("a.png")))
    assert questions(data).splits["all"][0]["image"]["path"] == str(data / "a.png")
    said = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "a cup"}]
    (data / "rows.jsonl").write_text(json.dumps({"images": ["a.png"], "messages": said}))
    chats = read_rows("chats", visual_chat.Data(dataset_name=str(data)), ())
    assert chats.splits["all"][0]["images"][0]["path"] == str(data / "a.png")
    (data / "rows.jsonl").write_text(json.dumps({"image": "a.png", "text": "another table"}))
    assert load_all(str(data), None)["train"][0]["image"].size == SIZE  # as `datasets` reads any other


TEXT, STORED = pa.string(), pa.struct([("bytes", pa.binary()), ("path", pa.string())])
COLUMNS = {  # how a table may name a picture: the column, its type, and a path as it is in there
    "texts": ("image", TEXT, str),
    "large texts, as polars and pandas write them": ("image", pa.large_string(), str),
    "views of texts": ("image", pa.string_view(), str),
    "texts by number": ("image", pa.dictionary(pa.int32(), TEXT), str),
    "bytes and path": ("image", STORED, lambda path: {"bytes": None, "path": path}),
    "a path alone": ("image", pa.struct([("path", TEXT)]), lambda path: {"path": path}),
    "lists of texts": ("images", pa.list_(TEXT), lambda path: [path]),
    "large lists": ("images", pa.large_list(pa.large_string()), lambda path: [path]),
    "lists of one": ("images", pa.list_(TEXT, 1), lambda path: [path]),
    "lists of bytes and path": ("images", pa.list_(STORED), lambda path: [{"bytes": None, "path": path}]),
}


TYPED = [name for name in COLUMNS if name.endswith("bytes and path")]  # which can say that they are pictures


@pytest.mark.parametrize(("column", "typed"), [(name, False) for name in COLUMNS] + [(name, True) for name in TYPED])
def test_a_path_that_leaves_the_folder_is_refused_whatever_the_column_s_type(column, typed, tmp_path, monkeypatch):
    name, kind, as_stored = COLUMNS[column]
    data, outside = folder_elsewhere(tmp_path, monkeypatch)
    (data / "link.png").symlink_to(outside)
    paths = ["a.png", str(data / "a.png"), str(outside), "../outside.png", "link.png"]
    table = pa.table({name: pa.array([as_stored(path) for path in paths], kind), "id": ["0", "1", "2", "3", "4"]})
    if typed:
        feature = {"_type": "Image"}
        feature = feature if name == "image" else {"feature": feature, "_type": "List"}
        features = {name: feature, "id": {"dtype": "string", "_type": "Value"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, data / "train.parquet")
    rows = load_all(str(data), None)["train"]
    (usable,), refused = usable_rows({"train": rows}, lambda row: {"id": row["id"]}, str(tmp_path / "out"), 1.0)
    assert usable["id"][:] == ["0", "1"] and all(images_of(row)[0].size == SIZE for row in usable)
    assert {row["id"]: row["reason"].removesuffix(" (picture 1 of 1)") for row in refused} == {
        "2": OUTSIDE,
        "3": OUTSIDE,
        "4": OUTSIDE,
    }


def test_bytes_in_a_table_are_the_picture_whatever_path_is_beside_them(tmp_path, monkeypatch):
    data, outside = folder_elsewhere(tmp_path, monkeypatch)
    stored = [{"bytes": (data / "a.png").read_bytes(), "path": str(outside)}]
    pq.write_table(pa.table({"image": pa.array(stored, STORED)}), data / "train.parquet")
    [row] = load_all(str(data), None)["train"]
    assert row["image"].tobytes() == Image.open(data / "a.png").tobytes()


def test_a_path_that_leaves_the_folder_is_refused_in_tables_and_chats_too(tmp_path, monkeypatch):
    data, outside = folder_elsewhere(tmp_path, monkeypatch)
    write_csv(data / "rows.csv", [asked(name) for name in ("a.png", str(outside), "../outside.png")])
    said = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "a cup"}]
    chats = [{"image": name, "conversations": said} for name in ("a.png", str(outside), "../outside.png")]
    (data / "chats.json").write_text(json.dumps(chats))
    found = [questions(data), read_rows("chats", visual_chat.Data(dataset_name=str(data)), ())]
    for number, read in enumerate(found):
        rows = read.splits["all"]
        (usable,), refused = usable_rows({"all": rows}, lambda row: {"id": row["id"]}, str(tmp_path / f"{number}"), 1)
        assert len(usable) == 1 and [OUTSIDE in row["reason"] for row in refused] == [True, True]


# --- Splits


def splits_of(tmp_path: Path, *names: str):
    """A folder with a CSV for each of these names, of one question about its own picture."""
    for name in names:
        picture(tmp_path / "splits" / f"{name}.png")
        write_csv(tmp_path / "splits" / f"{name}.csv", [asked(f"{name}.png")])
    return questions(tmp_path / "splits").splits


def chosen(parts) -> dict[str, list[str]]:
    return {part: sorted(rows["image_id"]) for part, rows in parts.items()}


@pytest.mark.parametrize("test", ["test", "testing", *VALIDATION])
@pytest.mark.parametrize("train", ["train", "training"])
def test_a_split_is_found_by_any_of_its_names(train, test, tmp_path, capsys):
    parts = parts_of(splits_of(tmp_path, train, test), vqa_rad.Data(), 0)
    assert chosen(parts) == {"train": [f"{train}.png"], "test": [f"{test}.png"]}
    said = f"no split 'test': '{test}' is tested on"
    assert (said in capsys.readouterr().out) == (test in VALIDATION)


@pytest.mark.parametrize("recipe", [nutrition_tables, vqa_rad, visual_chat, kvasir_vqa])
@pytest.mark.parametrize("asked_for", [{}, {"dataset_test_split": "testing"}])
@pytest.mark.parametrize("validation", VALIDATION)
def test_of_three_splits_each_is_the_part_of_its_name(recipe, asked_for, validation, tmp_path, capsys):
    splits = splits_of(tmp_path, "train", validation, "test")
    capsys.readouterr()
    parts = parts_of(splits, recipe.Data(**asked_for), 0)
    assert list(parts) == ["train", "validation", "test"] and capsys.readouterr().out == ""
    assert chosen(parts) == {"train": ["train.png"], "validation": [f"{validation}.png"], "test": ["test.png"]}
    with pytest.raises(DataError, match=f"^--validation_fraction 0.3 has no effect: '{validation}' is validated on$"):
        parts_of(splits, recipe.Data(validation_fraction=0.3), 0)


@pytest.mark.parametrize("asked_for", ["val", "validation"])
def test_where_validation_is_named_to_test_on_the_test_part_is_said_not_to_be_read(asked_for, tmp_path, capsys):
    splits = splits_of(tmp_path, "train", "valid", "test")
    capsys.readouterr()
    parts = parts_of(splits, vqa_rad.Data(dataset_test_split=asked_for, validation_fraction=0.3), 0)
    assert chosen(parts) == {"train": ["train.png"], "test": ["valid.png"]}
    assert capsys.readouterr().out == "not read: 'test'\n"


def test_the_validation_split_may_be_trained_on(tmp_path, capsys):
    parts = parts_of(splits_of(tmp_path, "train", "val", "test"), vqa_rad.Data(dataset_train_split="val"), 0)
    assert chosen(parts) == {"train": ["val.png"], "test": ["test.png"]}
    assert "not read: 'train'\n" in capsys.readouterr().out


def test_a_dataset_s_own_validation_rows_stay_as_they_are_and_else_a_share_of_the_groups_is_held_out():
    train, own, test = (datasets.Dataset.from_dict({"group": list(names)}) for names in ("aabbcd", "xy", "z"))
    assert [rows["group"][:] for rows in with_validation([train, own, test], 0.5, "group", 0)] == [
        ["a", "a", "b", "b", "c", "d"],
        ["x", "y"],
        ["z"],
    ]
    rest, held_out, same = with_validation([train, test], 0.5, "group", 0)
    assert same is test and [rest["group"][:], held_out["group"][:]] == [
        rows["group"][:] for rows in hold_out(train, 0.5, "group", 0)
    ]
    assert not {*rest["group"]} & {*held_out["group"]} and len(rest) + len(held_out) == len(train)


def test_a_split_in_which_no_picture_has_a_box_is_not_read_and_the_line_says_so(tmp_path, capsys):
    """As COCO's and many a challenge's test part comes: its labels are kept back."""
    folder = tmp_path / "shop"
    for split in ("train", "val", "test"):
        for number in range(2):
            picture(folder / f"images/{split}/{number}.png")
            label = folder / f"labels/{split}/{number}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            if split != "test":
                label.write_text("0 0.5 0.5 0.5 0.5\n" * number)
    (folder / "data.yaml").write_text("names: [cup]\ntrain: images/train\nval: images/val\ntest: images/test\n")
    data = nutrition_tables.Data(dataset_name=str(folder))
    parts, *_ = read_boxes(data, (), 0, "")
    assert {part: rows["image_id"][:] for part, rows in parts.items()} == {
        "train": ["images/train/0.png", "images/train/1.png"],
        "test": ["images/val/0.png", "images/val/1.png"],
    }
    unread = "not read, as no picture there has a box: 'test'"
    assert capsys.readouterr().out.splitlines()[1:] == [unread, "no split 'test': 'val' is tested on"]
    with pytest.raises(DataError, match="^no split 'test', only 'train', 'val': --dataset_test_split names it$"):
        read_boxes(replace(data, dataset_test_split="test"), (), 0, "")
    assert unread in capsys.readouterr().out
    for label in folder.rglob("labels/*/1.txt"):
        label.unlink()
    with pytest.raises(DataError, match="shop' has no box in any picture: are its labels where they are due\\?$"):
        read_boxes(data, (), 0, "")


@pytest.mark.parametrize(("asked_for", "has"), [("test", "val"), ("testing", "dev"), ("val", "test"), ("dev", "test")])
@pytest.mark.parametrize("recipe", [nutrition_tables, visual_chat, vqa_rad, kvasir_vqa])
def test_a_part_named_to_test_on_is_never_replaced_by_another(recipe, asked_for, has, tmp_path):
    splits, divide = splits_of(tmp_path, "train", has), three_parts if recipe is kvasir_vqa else parts_of
    names = ", ".join(map(repr, sorted(splits)))
    with pytest.raises(DataError, match=f"^no split '{asked_for}', only {names}: --dataset_test_split names it$"):
        divide(splits, recipe.Data(dataset_test_split=asked_for), 0)


def test_three_parts_are_the_dataset_s_own_where_it_has_three(tmp_path):
    parts = three_parts(splits_of(tmp_path, "train", "dev", "test"), kvasir_vqa.Data(), 0)
    assert chosen(parts) == {"train": ["train.png"], "validation": ["dev.png"], "test": ["test.png"]}


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"dataset_train_split": "first"}, "no split 'first', only 'test', 'train': --dataset_train_split names it"),
        ({"dataset_test_split": "last"}, "no split 'last', only 'test', 'train': --dataset_test_split names it"),
        ({"dataset_test_split": "training"}, "the split 'train' is to be trained on and to be judged by"),
        ({"test_fraction": 0.4}, "--test_fraction 0.4 has no effect: there are the splits test, train"),
    ],
)
def test_what_a_dataset_has_not_is_refused_in_a_line(settings, why, tmp_path):
    with pytest.raises(DataError, match=why):
        parts_of(splits_of(tmp_path, "train", "test"), vqa_rad.Data(**settings), 0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("q,a,pic\nx,y,1.png\n", "has no column 'image', only 'q', 'a', 'pic'; "),
        (None, "cannot load the dataset .*doesn't contain any data files; "),
    ],
)
def test_a_folder_that_fits_no_format_is_refused_with_the_formats_that_there_are(text, why, tmp_path):
    if text:
        (tmp_path / "rows.csv").write_text(text)
    formats = "--dataset_format vqa_rad or tables says what a dataset here has to have"
    with pytest.raises(DataError, match=f"{why}{formats}$"):
        read_rows("questions", vqa_rad.Data(dataset_name=str(tmp_path)), ("image", "question", "answer"))
    due = "the columns question, answer and one of image, image_path"
    with pytest.raises(DataError, match=due):
        asked = vqa_rad.Data(dataset_name=str(tmp_path), dataset_format="tables")
        read_rows("questions", asked, ("image", "question", "answer"))


def test_one_split_is_split_by_image_and_no_image_is_in_two_parts(tmp_path, capsys):
    rows = [asked(f"{number}.png", question) for question in range(3) for number in range(10)]
    for number in range(10):
        picture(tmp_path / "data" / f"{number}.png")
    write_csv(tmp_path / "data" / "rows.csv", rows)
    splits = questions(tmp_path / "data").splits
    for share, expected in ((0.2, 2), (0.5, 5), (0.01, 1)):
        parts = parts_of(splits, vqa_rad.Data(test_fraction=share), 0)
        images = {part: set(rows["image_id"]) for part, rows in parts.items()}
        assert not images["train"] & images["test"] and len(images["test"]) == expected
        assert len(parts["train"]) + len(parts["test"]) == 30 and len(parts["test"]) == 3 * expected
    assert "one split, 'all': 6 of its 30 rows are held out to test on\n" in capsys.readouterr().out
    parts = three_parts(splits, kvasir_vqa.Data(validation_fraction=0.2, test_fraction=0.3), 0)
    assert [len(set(rows["image_id"])) for rows in parts.values()] == [5, 2, 3]
    assert len({image for rows in parts.values() for image in set(rows["image_id"])}) == 10


@pytest.mark.parametrize(
    "settings", [{"dataset_test_split": "val"}, {"dataset_train_split": "first"}, {"dataset_train_split": "val"}]
)
def test_names_of_splits_are_refused_where_there_is_one_without_a_name(settings, tmp_path):
    splits = splits_of(tmp_path, "mine")
    [(name, value)] = settings.items()
    for recipe, divide in ((vqa_rad, parts_of), (kvasir_vqa, three_parts)):
        with pytest.raises(DataError, match=f"^--{name} {value} has no effect: there is one split, 'all'$"):
            divide(splits, recipe.Data(**settings), 0)


@pytest.mark.parametrize("splits", [["train"], ["train", "test"]])
def test_images_that_are_numbered_from_zero_are_split_and_trained_as_others(splits, tmp_path):
    """As COCO's conversions count them: a 0 is a name, and not none."""
    for split in splits:
        rows = []
        for number in range(10):
            picture(tmp_path / split / f"{number}.png")
            objects = {"bbox": [[0, 0, 5, 5]], "category_name": ["cup"]}
            rows.append({"file_name": f"{number}.png", "image_id": number, "objects": objects})
        (tmp_path / split / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = nutrition_tables.Data(dataset_name=str(tmp_path), box_format="xyxy", box_unit="pixels")
    parts, given, _ = read_boxes(data, (), 0, "")
    adapt = partial(nutrition_tables.to_chat, codec=Qwen2VLBoxes(), given=given)
    (train, test), refused = usable_rows(parts, adapt, str(tmp_path / "out"), 0.0)
    assert not refused and len(train) == (8 if len(splits) == 1 else 10)
    names = {*train["image_id"][:]} | {*test["image_id"][:]}
    assert names == {str(number) for number in range(10)}


def test_chats_that_share_one_of_their_pictures_are_in_one_part(tmp_path):
    """a with b and b with c: all three belong together, whatever else the conversations show."""
    shown = [["a", "b"], ["b", "c"], ["c"], ["d"], ["e", "f"], ["f"], []]
    said = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "a cup"}]
    rows = [{"images": [f"{name}.png" for name in names], "messages": said} for names in shown]
    for name in "abcdef":
        picture(tmp_path / "data" / f"{name}.png")
    (tmp_path / "data" / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    splits = read_rows("chats", visual_chat.Data(dataset_name=str(tmp_path / "data")), ()).splits
    for seed in range(8):
        parts = parts_of(splits, visual_chat.Data(test_fraction=0.5), seed)
        pictures = [{Path(image["path"]).name for row in part for image in row["images"]} for part in parts.values()]
        assert not pictures[0] & pictures[1] and sum(map(len, parts.values())) == len(rows)
        assert all(map(len, parts.values()))


def test_rows_without_an_image_s_name_are_split_by_the_pictures_themselves(tmp_path):
    """The same picture under two names is one, in rows that `datasets` reads."""
    for number in range(4):
        file = picture(tmp_path / "data" / f"{number}.png")
        (tmp_path / "data" / f"{number}_again.png").write_bytes(file.read_bytes())
    rows = [{"file_name": file.name, "objects": None} for file in sorted((tmp_path / "data").glob("*.png"))]
    (tmp_path / "data" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    splits = load_all(str(tmp_path / "data"), None)
    for seed in range(4):
        parts = parts_of(splits, vqa_rad.Data(test_fraction=0.5), seed)
        pictures = [{row["image"].tobytes() for row in part} for part in parts.values()]
        assert not pictures[0] & pictures[1] and [len(part) for part in parts.values()] == [4, 4]


OWN_WORDS = ["train", "Train ", "train", "valid", "TEST", "test"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "chats", "datasets"])
def test_a_column_split_says_which_part_a_row_is_of(kind, tmp_path, capsys):
    """Rows that their owner has kept to test on were once drawn like all others, and trained."""
    folder, rows = tmp_path / "data", []
    for number, word in enumerate(OWN_WORDS):
        picture(folder / f"{number}.png")
        rows.append({"id": f"q{number}", "question": "What?", "answer": "a cup", "split": word})
        rows[-1] |= {("file_name" if kind == "datasets" else "image"): f"{number}.png"}
    if kind == "chats":
        said = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "a cup"}]
        rows = [{"id": row["id"], "image": row["image"], "messages": said, "split": row["split"]} for row in rows]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    elif kind == "csv":
        write_csv(folder / "rows.csv", [{"Split" if key == "split" else key: row[key] for key in row} for row in rows])
    else:
        name = "metadata.jsonl" if kind == "datasets" else "rows.jsonl"
        (folder / name).write_text("\n".join(map(json.dumps, rows)))
    settings = {"dataset_format": "datasets"} if kind == "datasets" else {}
    if kind == "chats":
        splits = read_rows("chats", visual_chat.Data(dataset_name=str(folder)), ()).splits
    else:
        splits = questions(folder, **settings).splits
    assert {part: rows["id"][:] for part, rows in parts_of(splits, vqa_rad.Data(), 0).items()} == {
        "train": ["q0", "q1", "q2"],
        "validation": ["q3"],
        "test": ["q4", "q5"],
    }
    assert not any("split" in rows.column_names for rows in splits.values())
    assert "held out" not in capsys.readouterr().out


@pytest.mark.parametrize("words", [["train", "fold 2"], ["train", ""]])
def test_a_column_split_of_other_words_is_refused(words, tmp_path):
    for number in range(len(words)):
        picture(tmp_path / f"{number}.png")
    write_csv(tmp_path / "rows.csv", [{**asked(f"{i}.png"), "split": word} for i, word in enumerate(words)])
    with pytest.raises(
        DataError, match=f"^the column 'split' says {words[1]!r}, and elsewhere 'train': use train, tr"
    ):
        questions(tmp_path)


def test_a_column_split_that_names_no_part_is_something_else_and_said_not_to_be_read(tmp_path, capsys):
    for number in range(4):
        picture(tmp_path / f"{number}.png")
    write_csv(tmp_path / "rows.csv", [{**asked(f"{i}.png"), "split": f"fold {i % 2}"} for i in range(4)])
    assert list(questions(tmp_path).splits) == ["all"]
    assert "the column 'split' is not read: it says 'fold 0', and names no part\n" in capsys.readouterr().out


def test_rows_that_all_share_a_picture_are_not_divided_and_the_line_says_why(tmp_path):
    """Each conversation shows the template and its own picture."""
    said = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "a cup"}]
    rows = [{"images": ["template.png", f"{number}.png"], "messages": said} for number in range(5)]
    for name in ("template", *range(5)):
        picture(tmp_path / f"{name}.png")
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    splits = read_rows("chats", visual_chat.Data(dataset_name=str(tmp_path)), ()).splits
    with pytest.raises(DataError, match="^no part can be held out: each of the 5 rows shares a picture with another"):
        parts_of(splits, visual_chat.Data(), 0)


# --- What a question is


@pytest.mark.parametrize("words", [("CLOSED", "OPEN"), ("closed ", "open"), ("Yes/No", "other"), ("yes/no", "number")])
def test_a_question_is_closed_by_any_of_the_words_that_datasets_have_for_it(words):
    """VQA-RAD's and SLAKE's, and VQA v2's; once, all but "CLOSED" were open."""
    row = {"id": "1", "image_id": "a", "question": "Is it big?", "answer": "no"}
    read = [vqa_rad.to_row(row | {"answer_type": word}, exemplar=True) for word in (*words, None, "")]
    assert [one["closed"] for one in read] == [True, False, True, True]
    assert [one["prompt"].endswith("(closed domain)\nA:") for one in read][:2] == [True, False]
    with pytest.raises(BadRow, match="^the answer_type 'multiple choice' is none of closed, open, yes/no"):
        vqa_rad.to_row(row | {"answer_type": "multiple choice"}, exemplar=False)


# --- Ids


def test_ids_that_a_file_lacks_are_made_of_its_images_names_and_the_place(tmp_path):
    picture(tmp_path / "images" / "a.png")
    rows = [{**asked("a.png", number), "img_id": "scope 7"} for number in (1, 2)]
    write_csv(tmp_path / "rows.csv", rows)
    read = questions(tmp_path).splits["all"]
    assert read["id"][:] == ["scope 7 (rows.csv, line 2)", "scope 7 (rows.csv, line 3)"]
    assert read["image_id"][:] == ["scope 7"] * 2
    rows = [{**row, "file_name": "a.png"} for row in rows] + [{**asked("a.png"), "file_name": "a.png"}]
    (tmp_path / "images" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    read = questions(tmp_path / "images", dataset_format="datasets").splits["train"]
    assert read["id"][:] == ["scope 7#0", "scope 7#1", "no image#2"] and read["img_id"][:] == ["scope 7"] * 2 + [None]


def test_both_recipes_for_questions_take_the_same_csv_and_give_the_same_ids(tmp_path):
    picture(tmp_path / "a.png")
    write_csv(tmp_path / "rows.csv", [asked("a.png"), {**asked("a.png", 2), "answer": " "}])
    rows = questions(tmp_path).splits["all"].add_column("image_size", [[64, 48]] * 2)
    types = kvasir_vqa.types_of(rows)
    found = []
    for adapt in (
        lambda row: vqa_rad.to_row(row, exemplar=False),
        lambda row: kvasir_vqa.to_chat(row, types, typed_prompt=True),
    ):
        made = adapt(rows[0])
        found.append((made["id"], made["image_id"], made["question"], made["answer"]))
        with pytest.raises(BadRow, match="^empty answer$"):
            adapt(rows[1])
    assert found == [("rows.csv, line 2", "a.png", "What is shown, 1?", "a cup")] * 2
