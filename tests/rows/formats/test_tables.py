"""Questions in tables: read from files that pandas and `datasets` wrote; what is broken is refused by name."""

import csv
import hashlib
import io
import json
import os
import sys

import datasets
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vlm_recipes.rows import usable_rows
from vlm_recipes.rows.conventions import PROBLEM
from vlm_recipes.rows.errors import DataError
from vlm_recipes.rows.formats import records, tables, vqa_rad

# Answers and questions that a reader likes to turn into something else.
TEXTS = ["NA", "None", "nan", "01", "1.0", "true", 'a "quoted" word', "a,b;c\td", "two\nlines", " é 漢 ", "", "5'"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(4):
        Image.new("RGB", (30 + number, 20), (60 * number, 0, 0)).save(tmp_path / "images" / f"{number}.png")
    return tmp_path


def table(picture: str = "image", where: str = "images/", n: int = len(TEXTS)) -> pd.DataFrame:
    pictures = [f"{where}{number % 4}.png" for number in range(n)]
    return pd.DataFrame({picture: pictures, "question": TEXTS[:n], "answer": TEXTS[::-1][:n]})


def as_read(rows: datasets.Dataset) -> list[tuple]:
    return list(
        zip(rows["question"], rows["answer"], [image and image["path"] for image in rows["image"]], strict=True)
    )


def expected(folder, n: int = len(TEXTS)) -> list[tuple]:
    paths = [str((folder / "images" / f"{number % 4}.png").resolve()) for number in range(n)]
    return list(zip(TEXTS[:n], TEXTS[::-1][:n], paths, strict=True))


# --- files that others wrote

WRITERS = {
    "csv": lambda frame, file: frame.to_csv(file, index=False),
    "with an index.csv": lambda frame, file: frame.to_csv(file),
    "with a mark.csv": lambda frame, file: frame.to_csv(file, index=False, encoding="utf-8-sig"),
    "semicolons.csv": lambda frame, file: frame.to_csv(file, index=False, sep=";"),
    "all quoted.csv": lambda frame, file: frame.to_csv(file, index=False, quoting=csv.QUOTE_ALL),
    "from windows.csv": lambda frame, file: frame.to_csv(file, index=False, lineterminator="\r\n"),
    "from a spreadsheet.tsv": lambda frame, file: frame.to_csv(file, index=False, sep="\t", encoding="utf-16"),
    "tsv": lambda frame, file: frame.to_csv(file, index=False, sep="\t"),
    "json": lambda frame, file: frame.to_json(file, orient="records"),
    "indented.json": lambda frame, file: frame.to_json(file, orient="records", indent=2, force_ascii=False),
    "jsonl": lambda frame, file: frame.to_json(file, orient="records", lines=True),
    "parquet": lambda frame, file: frame.to_parquet(file),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_text_comes_back_as_it_was_written_with_its_picture(folder, name):
    file = folder / (name if "." in name else f"questions.{name}")
    WRITERS[name](table(), file)
    assert tables.recognises(folder) and tables.recognises(file)
    for place in (folder, file):
        read = tables.read_questions(place)
        assert list(read.splits) == ["all"] and read.counts == "12 questions, 4 images"
        rows = read.splits["all"]
        assert as_read(rows) == expected(folder) and not any(rows[PROBLEM])
        assert rows["image_id"] == [f"images/{number % 4}.png" for number in range(12)]
        assert len(set(rows["id"])) == 12 and all(row_id.startswith(file.name) for row_id in rows["id"])


def test_a_line_is_named_by_where_it_begins_in_the_file(folder):
    table().to_csv(folder / "a.csv", index=False)
    ids = tables.read_questions(folder).splits["all"]["id"]
    begins = [int(row_id.removeprefix("a.csv, line ")) for row_id in ids]
    lines = (folder / "a.csv").read_text().split("\n")
    assert all(lines[line - 1].startswith(f"images/{n % 4}.png,") for n, line in enumerate(begins)) and begins[9] == 13


def test_numbers_and_booleans_of_json_and_parquet_become_the_text_that_json_has(folder):
    answers = [5, True, None, 0.5, "5"]
    rows = [{"img": "0.png", "question": "q", "answer": answer} for answer in answers]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert tables.read_questions(folder).splits["all"]["answer"] == ["5", "true", "", "0.5", "5"]
    (folder / "a.jsonl").unlink()
    datasets.Dataset.from_list(rows[:1]).to_parquet(folder / "a.parquet")
    assert tables.read_questions(folder).splits["all"]["answer"] == ["5"]


@pytest.mark.parametrize("column", tables.PICTURES)
def test_each_name_of_the_picture_s_column_is_known_in_capitals_too(folder, column):
    table(column.capitalize(), "", 3).rename(columns=str.capitalize).to_csv(folder / "a.csv", index=False)
    rows = tables.read_questions(folder).splits["all"]
    assert as_read(rows) == expected(folder, 3)


def test_files_and_folders_are_splits_by_their_names(folder):
    for name in ("train", "val", "test"):
        table(n=3).to_csv(folder / f"{name}.csv", index=False)
    table(n=2).to_csv(folder / "classes.txt")
    assert {split: len(rows) for split, rows in tables.read_questions(folder).splits.items()} == {
        "test": 3,
        "train": 3,
        "val": 3,
    }
    assert list(tables.read_questions(folder / "val.csv").splits) == ["val"]
    (folder / "val.csv").rename(folder / "qa_val.csv")
    assert list(tables.read_questions(folder).splits) == ["val", "test", "train"]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_an_imagefolder_s_metadata_is_read_like_datasets_reads_it(tmp_path, ending):
    """With `file_name` relative to the folder of the metadata, and `datasets` itself as the oracle."""
    for split, n in (("train", 3), ("test", 2)):
        (tmp_path / split / "pictures").mkdir(parents=True)
        frame = table("file_name", "pictures/", n)
        for number in range(n):
            Image.new("RGB", (20, 20 + number)).save(tmp_path / split / "pictures" / f"{number}.png")
        file = tmp_path / split / f"metadata.{ending}"
        frame.to_csv(file, index=False) if ending == "csv" else frame.to_json(file, orient="records", lines=True)
    other = datasets.load_dataset("imagefolder", data_dir=str(tmp_path)).cast_column(
        "image", datasets.Image(decode=False)
    )
    own = tables.read_questions(tmp_path).splits
    assert list(own) == ["test", "train"]
    for split in own:
        assert own[split]["question"] == [text or "" for text in TEXTS[: len(own[split])]]
        assert [os.path.realpath(image["path"]) for image in other[split]["image"]] == [
            image["path"] for image in own[split]["image"]
        ]
        assert own[split]["image_id"] == [f"{split}/pictures/{number}.png" for number in range(len(own[split]))]


@pytest.mark.parametrize("shards", [1, 3])
def test_parquet_with_pictures_in_it_keeps_their_bytes_and_names_them_by_these(folder, shards):
    data = [(folder / "images" / f"{number % 4}.png").read_bytes() for number in range(6)]
    columns = {"image": [{"bytes": picture, "path": "a.png"} for picture in data], "question": TEXTS[:6]}
    columns |= {"answer": TEXTS[:6], "answer_type": [0, 1] * 3}
    text, label = datasets.Value("string"), datasets.ClassLabel(names=["OPEN", "CLOSED"])
    features = {"image": datasets.Image(), "question": text, "answer": text, "answer_type": label}
    written = datasets.Dataset.from_dict(columns, datasets.Features(features))
    place = folder / "published"
    place.mkdir()
    for number in range(shards):
        shard = written.shard(shards, number, contiguous=True)
        shard.to_parquet(place / f"train-{number:05d}-of-{shards:05d}.parquet")
    [(split, rows)] = tables.read_questions(place).splits.items()
    assert split == "train" and rows["question"] == TEXTS[:6] and rows["answer_type"] == ["OPEN", "CLOSED"] * 3
    assert [image["bytes"] for image in rows["image"]] == data
    assert rows["image_id"] == [hashlib.sha256(picture).hexdigest() for picture in data]


def test_parquet_may_have_bytes_alone_or_a_picture_beside(folder):
    data = (folder / "images" / "1.png").read_bytes()
    pd.DataFrame({"image": [data], "question": ["q"], "answer": [7]}).to_parquet(folder / "train.parquet")
    mixed = [{"bytes": data, "path": None}, {"bytes": None, "path": "2.png"}, None]
    pd.DataFrame({"image": mixed, "question": "q", "answer": "a"}).to_parquet(folder / "test.parquet")
    read = tables.read_questions(folder).splits
    assert read["train"]["image"] == [{"bytes": data, "path": None}] and read["train"]["answer"] == ["7"]
    assert read["test"]["image"] == [
        {"bytes": data, "path": None},
        {"bytes": None, "path": str((folder / "images" / "2.png").resolve())},
        {"bytes": None, "path": None},
    ]


def test_a_table_s_own_ids_and_types_are_kept(folder):
    frame = table(n=3).assign(qid=["7", "8", "9"], img_id=["x", "y", "z"], kind="count", question_type=["a", "b", ""])
    frame.to_csv(folder / "a.csv", index=False)
    rows = tables.read_questions(folder).splits["all"]
    assert (rows["id"], rows["image_id"], rows["kind"]) == (["7", "8", "9"], ["x", "y", "z"], ["count"] * 3)
    assert rows["question_type"] == ["a", "b", None]


def test_ids_that_come_again_stay_apart_by_their_places(folder):
    table(n=3).assign(id="7").to_csv(folder / "a.csv", index=False)
    ids = tables.read_questions(folder).splits["all"]["id"]
    assert ids == ["7", "7 (a.csv, line 3)", "7 (a.csv, line 4)"]


def test_rows_about_one_picture_have_one_image_id_whatever_the_table_says(folder):
    """Else a split by image would train on a picture that it tests on."""
    pictures = ["images/0.png", "0.png", "./images/0.png", "images/1.png"]
    frame = pd.DataFrame({"image": pictures, "question": "q", "answer": "a", "image_id": ["1", "2", "", "3"]})
    frame.to_csv(folder / "a.csv", index=False)
    assert tables.read_questions(folder).splits["all"]["image_id"] == ["1", "1", "1", "3"]


def test_the_rows_can_be_checked_and_shown(folder, tmp_path):
    table(n=4).to_csv(folder / "a.csv", index=False)
    [rows], refused = usable_rows(tables.read_questions(folder).splits, lambda row: row, str(tmp_path / "out"), 0)
    assert [image.size for image in rows["image"]] == [(30 + number, 20) for number in range(4)] and not refused


# --- hostile files

GOOD = "0.png,what?,this\n"
HOSTILE = {  # what stands between a good row and another, and the reason for each of the rows refused
    "one cell too many": ("1.png,is it, or not?,no\n", ["4 cells, where the header has 3"]),
    "one cell too few": ("1.png,is it\n", ["2 cells, where the header has 3"]),
    "all rows too long": ("1.png,q,a,\n2.png,q,a,\n", ["4 cells, where the header has 3"] * 2),
    "something after a quote": ('1.png,"q" or,a\n', ["',' expected after '\"': a quote in a text is written twice"]),
    "other bytes": (
        b"1.png,caf\xe9?,a\n",
        ["'question' is 'caf\\udce9?', with bytes that are not UTF-8"],
    ),
    "a null byte in a name": ("1\0.png,q,a\n", ["the picture's name '1\\x00.png' has a null byte"]),
    "a url": ("https://x.org/a.png,q,a\n", ["is a URL, which a row must not fetch"]),
    "data in place of a path": ("data:image/png;base64;AAAA,q,a\n", ["is a URL, which a row must not fetch"]),
    "a path that leaves the folder": ("../outside.png,q,a\n", ["no image, or one outside the dataset's folder"]),
    "another's file": ("/etc/hostname,q,a\n", ["no image, or one outside the dataset's folder"]),
    "a link that leaves the folder": ("link.png,q,a\n", ["no image, or one outside the dataset's folder"]),
    "no picture": (",q,a\n", ["no image, or one outside the dataset's folder"]),
    "a picture that is not there": ("9.png,q,a\n", ["image file is missing: 9.png"]),
    "a field without end": (f"1.png,{'q' * 200_000},a\n", ["field larger than field limit"]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_line_is_refused_with_its_number_and_the_others_are_there(folder, tmp_path_factory, name):
    outside = tmp_path_factory.mktemp("outside") / "a.png"
    Image.new("RGB", (20, 20)).save(outside)
    (folder / "link.png").symlink_to(outside)
    lines, reasons = HOSTILE[name]
    lines = lines if isinstance(lines, bytes) else lines.encode()
    (folder / "a.csv").write_bytes(b"image,question,answer\n" + GOOD.encode() + lines + GOOD.encode())
    rows = tables.read_questions(folder).splits
    [kept], refused = usable_rows(rows, lambda row: row, str(tmp_path_factory.mktemp("out")), 1)
    assert kept["id"] == ["a.csv, line 2", f"a.csv, line {3 + len(reasons)}"]
    assert [row["id"] for row in refused] == [f"a.csv, line {3 + n}" for n in range(len(reasons))]
    for row, reason in zip(refused, reasons, strict=True):
        assert reason.replace("\\", "") in row["reason"].replace("\\", ""), row["reason"]


RECORD = {"image": "0.png", "question": "q", "answer": "a"}
HOSTILE_JSON = {
    "no object": ('["0.png", "q", "a"]', "is no JSON object"),
    "no json": ('{"image": "0.png", "question"', "the line is not JSON"),
    "deep": ("[" * 100_000, "the line is not JSON"),
    "deep in an object": ('{"a":' * 100_000, "the line is not JSON"),
    "nan": (json.dumps(RECORD | {"answer": float("nan")}), "'answer' is nan, and not a text"),
    "infinity": (json.dumps(RECORD | {"question": 1e999}), "'question' is inf, and not a text"),
    "a number of 5000 digits": (json.dumps(RECORD).replace('"a"', "9" * 5000), "the line is not JSON: Exceeds"),
    "half a surrogate pair": (
        json.dumps(RECORD | {"answer": "\ud83d"}),
        "bytes that are not UTF-8 or half a surrogate pair",
    ),
    "half a pair in a name": (
        json.dumps(RECORD | {"image": "\udc80.png"}),
        "bytes that are not UTF-8 or half a surrogate pair",
    ),
    "a list of answers": (json.dumps(RECORD | {"answer": ["a", "b"]}), "'answer' is a list, and not a text"),
    "several pictures": (json.dumps(RECORD | {"image": ["0.png", "1.png"]}), "'image' is a list, and not a text"),
    "no answer": (json.dumps({"image": "0.png", "question": "q"}), "no 'answer'"),
    "two pictures of one name": (
        json.dumps(RECORD | {"image": "1.png", "image_id": "one"}),
        "its image_id 'one' is that of another picture, images/0.png",
    ),
}


@pytest.mark.parametrize("name", HOSTILE_JSON)
def test_a_hostile_line_of_json_is_refused_and_the_others_are_there(folder, name):
    line, reason = HOSTILE_JSON[name]
    good = [RECORD | {"id": row_id, "image_id": "one"} for row_id in ("first", "last")]
    (folder / "a.jsonl").write_text("\n".join([json.dumps(good[0]), line, json.dumps(good[1])]))
    rows = tables.read_questions(folder).splits["all"]
    assert rows["id"] == ["first", "one (a.jsonl, line 2)" if "image_id" in line else "a.jsonl, line 2", "last"]
    assert reason in rows[PROBLEM][1] and rows[PROBLEM][::2] == ["", ""]


def test_a_row_that_is_refused_keeps_its_names_and_picture_so_that_no_other_row_changes_its_part(folder):
    lines = [RECORD, RECORD | {"image": "1.png", "question": ["q"], "id": "mine"}, RECORD | {"image": "1.png"}]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows = tables.read_questions(folder).splits["all"]
    assert rows[PROBLEM] == ["", "'question' is a list, and not a text", ""]
    assert rows["id"] == ["a.jsonl, line 1", "mine", "a.jsonl, line 3"]
    assert rows["image_id"] == ["images/0.png", "images/1.png", "images/1.png"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", 'image,question,answer\n0.png,"q,a\n1.png,q,a\n', "lines 2 to 3: .*is a quote left open"),
        ("a.csv", 'image,question,answer\n0.png,"q,a\n1.png,q,a\n2.png,"q",a\n', "lines 2 to 4: .*a quote left open"),
        ("a.csv", '"image",question,answer,"a"b\n0.png,q,a,b\n', "the names of its columns: ',' expected after"),
        ("a.csv", "image,question,answer,answer\n0.png,q,a,b\n", "two columns are called 'answer'"),
        ("train.csv", "", "train.csv' is called as what holds a split, and cannot be read as one: .*question, answer"),
        (
            "train.csv",
            "image,question,reply\n",
            "train.csv' is called as what holds a split, and cannot be read as one",
        ),
        ("train.parquet", "PAR1", "train.parquet' is called as what"),
        ("a.json", f"[{json.dumps(RECORD)}, {{]", "a.json' cannot be read: number 2 of its list is not JSON"),
        ("a.json", f"[{json.dumps(RECORD)},", "a.json' cannot be read: number 2 of its list is not JSON"),
        ("a.json", f"[{json.dumps(RECORD)}, {'[' * 100_000}", "number 2 of its list is nested too deeply"),
        ("a.json", f"[{json.dumps(RECORD)}] []", "something follows after its list"),
        ("a.csv", "a,b\n1,2\n", "has no rows: the columns question, answer and one of image, .* are due"),
    ],
)
def test_a_broken_file_is_named_with_what_is_due(folder, name, content, reason):
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=reason):
        tables.read_questions(folder)


def test_broken_pages_of_parquet_are_named(folder):
    table().to_parquet(folder / "train.parquet")
    whole = (folder / "train.parquet").read_bytes()
    (folder / "train.parquet").write_bytes(whole[:4] + bytes(400) + whole[404:])
    with pytest.raises(DataError, match="train.parquet' cannot be read as Parquet"):
        tables.read_questions(folder)


def test_pictures_of_another_type_are_named(folder):
    pd.DataFrame({"image": [7], "question": "q", "answer": "a"}).to_parquet(folder / "a.parquet")
    with pytest.raises(DataError, match="pictures are of the type int64: paths, bytes, or both"):
        tables.read_questions(folder)


def test_a_split_of_an_imagefolder_with_other_columns_is_not_left_out(folder):
    for split in ("train", "test"):
        (folder / split).mkdir()
        table("file_name", n=2).to_csv(folder / split / "metadata.csv", index=False)
    (folder / "test" / "metadata.csv").write_text("file_name,question,reply\n")
    with pytest.raises(DataError, match="test/metadata.csv' is called as what holds a split"):
        tables.read_questions(folder)


def test_a_table_is_found_beside_thousands_of_other_files(folder):
    for number in range(50):
        (folder / f"{number}.json").write_text('{"shapes": []}')
    table(n=2).to_csv(folder / "questions.csv", index=False)
    assert tables.recognises(folder) and len(tables.read_questions(folder).splits["all"]) == 2


def test_one_split_in_two_forms_is_asked_about(folder):
    table().to_csv(folder / "train.csv", index=False)
    table().to_json(folder / "train.jsonl", orient="records", lines=True)
    with pytest.raises(DataError, match="'train.csv', 'train.jsonl' are all of the split 'train': leave one"):
        tables.read_questions(folder)


def test_a_table_that_is_a_link_out_of_the_folder_is_not_opened(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "a.csv"
    table().to_csv(elsewhere, index=False)
    (folder / "train.csv").symlink_to(elsewhere)
    assert not tables.recognises(folder)
    with pytest.raises(DataError, match="'train.csv' is a link that leaves"):
        tables.read_questions(folder)


# --- what is a table, and what is not


def test_vqa_rad_s_original_is_recognised_as_itself_and_another_list_is_not(folder):
    row = dict.fromkeys(vqa_rad.TEXTS, "x") | {"qid": 7, "image_name": "0.png"}
    phrases = ["freeform", "test_freeform", "para"]
    (folder / "questions.json").write_text(
        json.dumps([row | {"qid": i, "phrase_type": kind} for i, kind in enumerate(phrases)])
    )
    assert vqa_rad.recognises(folder) and not tables.recognises(folder)
    read = vqa_rad.read_questions(folder)
    assert {split: rows["id"][:] for split, rows in read.splits.items()} == {"train": ["0", "2"], "test": ["1"]}
    assert read.splits["test"]["image_id"] == ["0.png"] and read.counts == "3 questions, 1 images"
    assert read.splits["test"]["image"][0]["path"] == str((folder / "images" / "0.png").resolve())
    (folder / "questions.json").write_text(json.dumps([RECORD]))
    assert tables.recognises(folder) and not vqa_rad.recognises(folder)
    with pytest.raises(DataError, match="has to have one file of VQA-RAD's questions: none"):
        vqa_rad.read_questions(folder)
    (folder / "questions.json").write_text('[{"qid": 7, "image_na')
    assert not vqa_rad.recognises(folder)
    for place in (folder, folder / "questions.json"):
        with pytest.raises(DataError, match="questions.json is not JSON: Unterminated string"):
            vqa_rad.read_questions(place)


def test_a_changed_file_or_picture_is_read_again(folder):
    table(n=2).to_csv(folder / "a.csv", index=False)
    assert len(tables.read_questions(folder).splits["all"]) == 2
    pd.concat([table(n=2), pd.DataFrame([{"image": "new.png", "question": "q", "answer": "a"}])]).to_csv(
        folder / "a.csv", index=False
    )
    assert tables.read_questions(folder).splits["all"]["image_id"][2] == "new.png"
    Image.new("RGB", (20, 20)).save(folder / "images" / "new.png")
    assert tables.read_questions(folder).splits["all"]["image_id"][2] == "images/new.png"


@pytest.mark.parametrize(
    "content",
    [
        b'{"images": [], "annotations": [], "categories": []}',
        b'{"shapes": [], "imagePath": "a.png"}',
        b'[{"conversations": [], "image": "0.png"}]',
        b'{"id": "a", "video_id": "c", "frames": ["1"], "question": "q", "answer": "a"}',
        b"0 0.5 0.5 0.1 0.1\n",
        b"",
        b"[",
        b"[1, 2]",
        b"\xff\xfe",
        b"\xff\xfea",
        b"\0" * 100,
        b"[" * 100_000,
        b'"' * 99,
        b"PAR1" + b"\0" * 40 + b"PAR1",
    ],
)
def test_another_file_is_no_table_of_questions_whatever_its_bytes(folder, content):
    for name in ("a.json", "a.jsonl", "a.csv", "a.tsv", "train.parquet"):
        (folder / name).write_bytes(content)
        assert not tables.recognises(folder / name) and not vqa_rad.recognises(folder / name)
    assert not tables.recognises(folder) and not tables.recognises(folder / "nothing")


# --- anything at all


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(*[st.text(st.characters(blacklist_categories=["Cs"]), max_size=8)] * 2), max_size=5))
def test_a_csv_has_a_row_for_each_that_was_written_into_it(tmp_path_factory, texts):
    """Python's writer is the oracle; a null byte is refused by its reader of before 3.11."""
    folder = tmp_path_factory.mktemp("any")
    with (folder / "a.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "question", "answer"])
        writer.writerows(["a.png", *pair] for pair in texts)
    rows = tables.read_questions(folder).splits["all"]
    assert len(rows) == len(texts)
    for row, pair in zip(rows, texts, strict=True):
        if "\0" in "".join(pair) and sys.version_info < (3, 11):
            assert "NUL" in row[PROBLEM]
        else:
            assert (row["question"], row["answer"], row[PROBLEM]) == (*pair, "")


json_text = st.text(st.sampled_from('[]{},:" \n1ae\\'), max_size=30)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=5,
)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(values, max_size=4).map(lambda value: json.dumps(value, indent=1)) | json_text.map("[{}".format),
    st.integers(1, 9),
)
def test_a_list_is_read_member_by_member_as_json_reads_it_whole(content, block):
    stream = io.BytesIO(content.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "BLOCK", block)  # so that every member lies in several
        try:
            whole = json.loads(content)
        except ValueError:
            with pytest.raises(DataError):
                list(records.json_records(stream))
            return
        assert [value for _, value, _ in records.json_records(stream)] == whole


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=60) | st.sampled_from(["image,question,answer\n", '[{"image": "', '{"']).map(str.encode))
def test_no_bytes_make_a_reader_raise_anything_else_than_its_own_error(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("bytes")
    for name in ("a.csv", "a.json", "a.jsonl"):
        (folder / name).write_bytes(content if name != "a.csv" else b"image,question,answer\n" + content)
        assert tables.recognises(folder / name) in (True, False)
        try:
            tables.read_questions(folder / name)
        except DataError as error:
            assert str(folder) in str(error)
