"""Questions about surgical videos: which lines are read, which clip they are about, and what is refused by name."""

import json
import shutil
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.paths import ROOT, written_and_real
from vlm_recipes.rows.conventions import PROBLEM
from vlm_recipes.rows.errors import BadRow, DataError
from vlm_recipes.rows.formats.real_colon import load_real_colon, read_real_colon
from vlm_recipes.rows.formats.ssg_vqa import (
    HOPS,
    KINDS,
    RELATIONS,
    check_clip,
    clip_of,
    load_question_folder,
    read_line,
)
from vlm_recipes.rows.splits import TEST_VIDEOS, by_video, read_videos
from vlm_recipes.rows.usable import usable_rows

VIDEOS = ROOT / "recipes" / "ssg_vqa_videos.yaml"

# --- a line

PLAIN = {"kind": "untyped", "hops": "untyped", "point": None}
text = st.text(st.characters(blacklist_characters="|\ufffd"), min_size=1).filter(str.strip)
coordinate = st.decimals(min_value=-999, max_value=9999, places=1).map(str) | st.integers(0, 999_999).map(str)
spaces = st.sampled_from(["", " ", "  ", "\t"])


@given(text, text, spaces)
def test_a_question_and_its_answer_are_read_back(question, answer, space):
    read = read_line(f"{space}{question}{space}|{space}{answer}{space}\r")
    assert read == PLAIN | {"question": question.strip(), "answer": answer.strip()}


@given(text, text, coordinate, coordinate, spaces)
def test_a_point_is_read_back(question, answer, x, y, space):
    read = read_line(f"{question}|{answer}|{space}[{space}{x},{space}{y}]{space}")
    assert read == PLAIN | {"question": question.strip(), "answer": answer.strip(), "point": [float(x), float(y)]}


@given(text, text, st.sampled_from(HOPS), st.sampled_from(KINDS), st.sampled_from(RELATIONS), spaces)
def test_types_are_read_back(question, answer, hops, kind, relation, space):
    read = read_line(f"{question}|{answer}|{space}{hops}|{kind}{space}|{space}{relation}")
    assert read["question"] == question.strip() and read["answer"] == answer.strip()
    assert (f"{read['hops']}.json", read["kind"], read["point"]) == (hops, kind, None)


words = [
    *HOPS,
    *KINDS,
    *RELATIONS,
    "|",
    "|",
    "|",
    "[",
    "]",
    ",",
    ", ",
    "1",
    "-2.5",
    "nan",
    "1e999",
    "{",
    "\ufffd",
    " ",
]
pieces = st.lists(st.sampled_from(words) | st.text(max_size=3), max_size=12).map("".join)
fields = st.lists(st.sampled_from(words) | st.text(max_size=5), min_size=1, max_size=6).map("|".join)


@settings(max_examples=500)
@given(st.text() | pieces | fields)
def test_any_line_is_either_refused_in_one_line_or_read_to_a_whole_row(line):
    try:
        row = read_line(line)
    except BadRow as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 700
        return
    assert list(row) == ["question", "answer", "kind", "hops", "point"]
    assert row["question"].strip() == row["question"] != "" and row["answer"].strip() == row["answer"] != ""
    assert "|" not in row["question"] + row["answer"] and "\ufffd" not in line
    typed = row["kind"] in KINDS and f"{row['hops']}.json" in HOPS
    assert typed or (row["kind"], row["hops"]) == ("untyped", "untyped")
    assert line.count("|") == 4 if typed else line.count("|") == (1 if row["point"] is None else 2)
    assert row["point"] is None or np.isfinite(row["point"]).all() and len(row["point"]) == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    {
        "a question": "a line with 1 field: 'a question'",
        "": "a line with 1 field: ''",
        "a|b|zero_hop.json|count": "a line with 4 fields: 'a|b|zero_hop.json|count'",
        "a|b|c|d|e|f|g": "a line with 7 fields: 'a|b|c|d|e|f|g'",
        "|b": "an empty question: '|b'",
        "a|  ": "an empty answer: 'a|  '",
        " |b|[1, 2]": "an empty question: ' |b|[1, 2]'",
        "a||zero_hop.json|count|NA": "an empty answer: 'a||zero_hop.json|count|NA'",
        "a|b|two_hop.json|count|NA": "the type 'two_hop.json' is none of zero_hop.json, one_hop.json, single_and.json",
        "a|b|zero_hop|count|NA": "the type 'zero_hop' is none of zero_hop.json, one_hop.json, single_and.json",
        "a|b|zero_hop.json||NA": "the type '' is none of count, exist, query_color, query_type, query_location",
        "a|b|zero_hop.json|count|same": "the type 'same' is none of NA, relate_spatial",
        "a|b|": "a third field that is no point [x, y]: ''",
        "a|b|[1.0]": "a third field that is no point [x, y]: '[1.0]'",
        "a|b|[1, 2, 3]": "a third field that is no point [x, y]: '[1, 2, 3]'",
        "a|b|[NaN, 2]": "a third field that is no point [x, y]: '[NaN, 2]'",
        "a|b|[true, 2]": "a third field that is no point [x, y]: '[true, 2]'",
        f"a|b|[{'9' * 400}, 2]": "a third field that is no point [x, y]: '[999",
        "a\nb": r"a line with 1 field: 'a\nb'",
        "a?|b\ufffd": "a line that is not in UTF-8: 'a?|b\ufffd'",
    }.items(),
)
def test_a_line_that_cannot_be_read_says_why(line, reason):
    with pytest.raises(BadRow) as refused:
        read_line(line)
    assert str(refused.value).startswith(reason)


# --- a folder of them


@pytest.mark.parametrize(
    ("folder", "frame", "headers", "counts", "points", "first"),
    written_and_real(
        "ssg_vqa",
        (88, 2, {"count": 3, "exist": 2, "untyped": 4}, [[88.0, 41.5], [310.0, 207.5]], ("gallbladder?", "retract")),
        (262, 2, {"count": 5, "exist": 2, "untyped": 4}, [[157.0, 60.0], [203.5, 207.0]], ("duct?", "dissect")),
    ),
)
def test_a_frame_s_file_has_the_questions_that_a_look_at_it_finds(folder, frame, headers, counts, points, first):
    rows = load_question_folder(folder, Path("frames"), ["VID01", "VID04"])
    raw = (folder / "VID01" / f"{frame}.txt").read_text(encoding="utf-8")
    n = len(raw.splitlines()) - headers
    assert len(rows) == n == {88: 13, 262: 19}[frame]
    read = [read_line(line) for line in rows["line"]]
    kinds, hops = Counter(row["kind"] for row in read), Counter(row["hops"] for row in read)
    for kind in KINDS:
        assert kinds[kind] == raw.count(f".json|{kind}|")
    for hop in HOPS:
        assert hops[hop.removesuffix(".json")] == raw.count(f"|{hop}|")
    assert {kind: kinds[kind] for kind in counts} == counts and hops["untyped"] == counts["untyped"]
    assert [row["point"] for row in read if row["point"]] == points
    assert read[0]["question"].endswith(first[0]) and read[0]["answer"] == first[1]
    assert rows["id"] == [f"VID01/{frame}#{number}" for number in range(3, 3 + n)]  # its lines, as an editor counts
    assert rows[0]["image"] == {"bytes": None, "path": str(Path(f"frames/VID01/{frame:06d}.png"))}
    assert set(rows["video"]) == {"VID01"} and set(rows["frame"]) == {frame}


def write(folder: Path, name: str, *lines: str | bytes) -> None:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))


def draw(folder: Path, number: int, width: int = 40, height: int = 30, colour: str = "brown") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), colour).save(folder / f"{number:06d}.png")
    return str(folder / f"{number:06d}.png")


HEADERS = ("Which anatomical structures are present?|liver", "Which tools are present?|hook")


def test_rows_come_by_video_frame_and_line_and_only_of_the_videos_asked_for(tmp_path):
    for name in ("VID18/9.txt", "VID18/10.txt", "VID01/100.txt", "VID02/1.txt"):
        write(tmp_path, name, *HEADERS, "first?|1", "second?|2")
    write(tmp_path, "VID01/notes.txt", *HEADERS, "no frame?|1")
    rows = load_question_folder(tmp_path, tmp_path / "data", ["VID18", "VID01", "VID70"])
    assert rows["id"] == [f"{name}#{line}" for name in ("VID01/100", "VID18/9", "VID18/10") for line in (3, 4)]
    assert rows["frame"] == [100, 100, 9, 9, 10, 10]


def test_blank_lines_are_dropped_before_the_two_headers_and_numbers_stay_those_of_the_file(tmp_path):
    write(tmp_path, "VID01/7.txt", "", HEADERS[0], "  \r", HEADERS[1], "", "first?|1\r", " ", "second?|2", "")
    write(tmp_path, "VID01/8.txt", *HEADERS)
    write(tmp_path, "VID01/9.txt")
    rows = load_question_folder(tmp_path, tmp_path, ["VID01"])
    assert rows["id"] == ["VID01/7#6", "VID01/7#8"]
    assert [read_line(line)["answer"] for line in rows["line"]] == ["1", "2"]


def test_what_looks_like_a_line_break_only_to_python_does_not_break_a_line(tmp_path):
    write(tmp_path, "VID01/7.txt", *HEADERS, "one\u2028question\x0c?|1")
    assert load_question_folder(tmp_path, tmp_path, ["VID01"])["line"] == ["one\u2028question\x0c?|1"]


def test_a_frame_that_is_missing_or_a_line_that_is_not_utf_8_is_refused_by_name(tmp_path):
    write(tmp_path, "VID01/1.txt", *HEADERS, "good?|1", b"caf\xe9?|2", "one|two|three|four", "|empty")
    write(tmp_path, "VID01/2.txt", b"\xff\xfe|liver", HEADERS[1], "without a frame?|1")
    draw(tmp_path / "data" / "VID01", 1)
    rows = {"train": load_question_folder(tmp_path, tmp_path / "data", ["VID01"])}
    (used,), refused = usable_rows(
        rows, lambda row: {"id": row["id"]} | read_line(row["line"]), str(tmp_path / "output"), max_rejected=1.0
    )
    assert used["id"] == ["VID01/1#3"] and used["answer"] == ["1"]
    assert {row["id"]: row["reason"] for row in refused} == {
        "VID01/1#4": "a line that is not in UTF-8: 'caf\ufffd?|2'",
        "VID01/1#5": "a line with 4 fields: 'one|two|three|four'",
        "VID01/1#6": "an empty question: '|empty'",
        "VID01/2#1": "image file is missing: 000002.png",
        "VID01/2#3": "image file is missing: 000002.png",
    }


def test_a_folder_that_is_missing_or_has_none_of_the_videos_ends_in_one_line(tmp_path):
    with pytest.raises(DataError, match=r"^there is no folder '.*nowhere'$"):
        load_question_folder(tmp_path / "nowhere", tmp_path, ["VID01"])
    write(tmp_path, "VID02/1.txt", *HEADERS, "why?|1")
    with pytest.raises(DataError, match=r"has no questions on VID01, VID04, like VID01/262\.txt$"):
        load_question_folder(tmp_path, tmp_path, ["VID01", "VID04"])


# --- the split


def test_ssg_vqas_videos_are_the_45_of_cholect45_split_as_its_authors_do():
    splits = read_videos(VIDEOS)
    assert [len(splits[split]) for split in ("train", "validation", "test")] == [35, 5, 5]
    assert splits["test"] == list(TEST_VIDEOS) == ["VID02", "VID22", "VID43", "VID60", "VID74"]
    assert splits["validation"] == ["VID01", "VID18", "VID31", "VID35", "VID48"]
    # The five folds of CholecT45, from dataloader_pth.py in github.com/CAMMA-public/cholect45.
    folds = """79 2 51 6 25 14 66 23 50  80 32 5 15 40 47 26 48 70  31 57 36 18 52 68 10 8 73
    42 29 60 27 65 75 22 49 12  78 43 62 35 74 1 56 4 13"""
    all_of_them = [video for videos in splits.values() for video in videos]
    assert sorted(all_of_them) == sorted(f"VID{int(number):02d}" for number in folds.split())
    assert splits["train"] == sorted(splits["train"])


GOOD = {"train": ["VID04", "VID05"], "validation": ["VID01"], "test": ["VID02"]}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"validation": ["VID01", "VID05"]}, "lists VID05 for 'train' and again for 'validation': keep one"),
        ({"test": ["VID02", "VID01"]}, "lists VID01 for 'validation' and again for 'test': keep one"),
        ({"train": ["VID04", "VID04"]}, "lists VID04 for 'train' and again for 'train': keep one"),
        ({"train": None}, "needs a list of videos for 'train', like train: [VID01, VID04]"),
        ({"validation": []}, "needs a list of videos for 'validation', like validation: [VID01, VID04]"),
        ({"test": "VID02"}, "needs a list of videos for 'test', like test: [VID01, VID04]"),
        ({"train": [4]}, "lists 4 for 'train', which is no name of a video like VID01"),
        ({"train": ["../VID04"]}, "lists '../VID04' for 'train', which is no name of a video like VID01"),
        ({"train": [".."]}, "lists '..' for 'train', which is no name of a video like VID01"),
        *[
            (
                {"train": [video], "test": ["VID80"]},
                f"lists {video} for 'train', one of SSG-VQA's test videos: move it",
            )
            for video in TEST_VIDEOS
        ],
        (
            {"validation": ["VID74"]},
            "lists VID74 for 'validation', one of SSG-VQA's test videos: move it",
        ),
    ],
)
def test_a_split_that_would_leak_or_lacks_something_ends_in_one_line(tmp_path, change, reason):
    file = tmp_path / "videos.yaml"
    file.write_text(yaml.safe_dump(GOOD))
    assert read_videos(file) == GOOD
    file.write_text(yaml.safe_dump(GOOD | change))
    with pytest.raises(DataError) as refused:
        read_videos(file)
    assert str(refused.value) == f"{str(file)!r} {reason}"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"train: [VID01", "cannot read .* as YAML: while parsing a flow sequence"),
        (b"train: 2026-05-45", "cannot read .* as YAML: day "),
        (b"\xff\xfe\xff", "cannot read .* as YAML: "),
        (b"", "needs a list of videos for 'train'"),
        (b"- VID01", "needs a list of videos for 'train'"),
        (b"train: [VID04]\nvalidation: [VID01]", "needs a list of videos for 'test'"),
        (None, "cannot read .* as YAML: .*No such file"),
    ],
)
def test_a_split_that_is_no_yaml_ends_in_one_line(tmp_path, content, reason):
    if content is not None:
        (tmp_path / "videos.yaml").write_bytes(content)
    with pytest.raises(DataError, match=reason) as refused:
        read_videos(tmp_path / "videos.yaml")
    assert "\n" not in str(refused.value)


# --- clips


def test_a_clip_ends_at_the_frame_asked_about_and_repeats_the_first_before_the_beginning():
    image = str(Path("frames", "VID01", "000262.png"))
    names = [f"{number:06d}.png" for number in (220, 226, 232, 238, 244, 250, 256, 262)]
    assert clip_of(image, 262, 8, 6) == [str(Path("frames", "VID01", name)) for name in names]
    assert [Path(path).name[4:6] for path in clip_of("f/VID01/000005.png", 5, 4, 2)] == ["00", "01", "03", "05"]
    assert clip_of("f/000000.png", 0, 3, 1) == [str(Path("f/000000.png"))] * 3
    assert clip_of(image, 262, 1, 9) == [image]


@given(st.integers(0, 999_999), st.integers(1, 32), st.integers(1, 60))
def test_any_clip_has_its_length_and_steps_and_ends_at_its_frame(frame, length, stride):
    image = str(Path("frames", f"{frame:06d}.png"))
    clip = clip_of(image, frame, length, stride)
    numbers = np.array([int(Path(path).stem) for path in clip])
    assert clip[-1] == image and len(clip) == length and {len(Path(path).name) for path in clip} == {10}
    steps = np.diff(numbers)
    assert (steps[numbers[:-1] > 0] == stride).all() and ((0 <= steps) & (steps <= stride)).all()


def test_a_whole_clip_gives_the_size_of_its_frames(tmp_path):
    paths = [draw(tmp_path, number) for number in range(4)]
    assert check_clip(paths, 4, tmp_path) == [40, 30] == check_clip([paths[0]] * 3, 3, tmp_path)


@pytest.mark.parametrize("count", [0, 1, 7, 9])
def test_a_clip_of_another_length_than_the_models_is_refused(tmp_path, count):
    with pytest.raises(BadRow, match=rf"^a clip of {count} frames, where the model reads 8$"):
        check_clip([draw(tmp_path, 0)] * count, 8, tmp_path)


def test_a_clip_with_a_frame_missing_broken_or_of_another_size_is_refused_with_its_name(tmp_path):
    good, small = draw(tmp_path, 262, 854, 480), draw(tmp_path, 261, 640, 360)
    with pytest.raises(BadRow, match=r"^frame 000261\.png is 640×360, and 000262\.png is 854×480$"):
        check_clip([good, small, good], 3, tmp_path)
    with pytest.raises(BadRow, match=r"^frame 000260\.png: image file is missing$"):
        check_clip([str(tmp_path / "000260.png"), good], 2, tmp_path)
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "000258.png").symlink_to(good)
    with pytest.raises(BadRow, match=r"^frame 000258\.png is outside the dataset's folder$"):
        check_clip([str(tmp_path / "frames" / "000258.png")], 1, tmp_path / "frames")
    for content in (b"", b"no picture", Path(good).read_bytes()[:900]):
        (tmp_path / "000259.png").write_bytes(content)
        with pytest.raises(BadRow, match=r"^frame 000259\.png: image cannot be read: "):
            check_clip([str(tmp_path / "000259.png"), good], 2, tmp_path)


# --- REAL-Colon-VQA


@pytest.mark.parametrize(
    ("file", "kinds"),
    written_and_real("real_colon_vqa/in_template.jsonl", ([3, 3, 3, 3, 8, 8],), ([12] * 20,)),
)
def test_the_rows_of_real_colon_vqa_are_all_there(file, kinds):
    rows = load_real_colon(file, Path("frames"))
    raw = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == len(raw) == sum(kinds) and set(rows[PROBLEM]) == {""}
    for key, name in {"id": "id", "video_id": "video", "question_type": "kind"}.items():
        assert [row[key] for row in raw] == rows[name]
    for key in ("question", "answer", "short_answer"):
        assert [row[key] for row in raw] == rows[key]
    assert sorted(Counter(rows["kind"]).values()) == kinds
    for row, given_row in zip(rows, raw, strict=True):
        assert len(row["frames"]) == 8 and row["image"] == {"bytes": None, "path": row["frames"][-1]}
        numbers = [f"{row['video']}_frames/{row['video']}_{number}.jpg" for number in given_row["frame_numbers"]]
        assert [Path(path).relative_to(Path("frames").resolve()).as_posix() for path in row["frames"]] == numbers


ROW = {
    "id": "qa_1",
    "video_id": "002-001",
    "frames": ["002-001_4", "002-001_8"],
    "question": "Is a tool visible?",
    "question_type": "tool_catheter_check",
    "answer": "No tool is visible.",
    "short_answer": "no",
}
REFUSED = {
    "no JSON": (b'{"id": "qa_2", "video_id', "Unterminated string"),
    "no UTF-8": (b'{"id": "caf\xe9"}', "'utf-8' codec can't decode byte 0xe9"),
    "a list": (b"[1, 2]", "its JSON is no object"),
    "no answer": ({**ROW, "answer": None}, "'answer' is 'None' and not a text"),
    "a number": ({**ROW, "question": 7}, "'question' is '7' and not a text"),
    "no frames": ({**ROW, "frames": []}, "'frames' is '[]' and not a list of names"),
    "one frame": ({**ROW, "frames": "002-001_4"}, "'frames' is '002-001_4' and not a list of names"),
    "numbers": ({**ROW, "frames": [4, 8]}, "'frames' is '[4, 8]' and not a list of names"),
    "half a pair": (json.dumps({**ROW, "answer": "\ud83d"}).encode(), "surrogates not allowed"),
    "too deep": (b"[" * 100_000, "recursion"),
}


def to_row(row: dict) -> dict:
    return read_real_colon(row) | {"id": row["id"], "size": check_clip(row["frames"], 2, "/")}


def test_lines_and_clips_that_cannot_be_used_are_refused_by_name(tmp_path):
    outside = [
        {**ROW, "id": "out 0", "frames": ["002-001_4", "../../x"]},
        {**ROW, "id": "out 1", "frames": ["../../x", "002-001_4"]},
        {**ROW, "id": "out 2", "frames": ["002-001_4", "\0"]},
        {**ROW, "id": "out 3", "video_id": "../secret"},
        {**ROW, "id": "out 4", "video_id": str(tmp_path / "secret")},
    ]
    others = [
        {**ROW, "id": "lost", "frames": ["002-001_6", "002-001_8"]},
        {**ROW, "id": "long", "frames": ["002-001_4", "002-001_4", "002-001_8"]},
        {**ROW, "id": "mute", "short_answer": " "},
    ]
    lines = [json.dumps(ROW).encode(), b"  ", *[line for line, _ in REFUSED.values()], *others, *outside]
    write(tmp_path, "rows.jsonl", *[json.dumps(line) if isinstance(line, dict) else line for line in lines], "")
    folder = tmp_path / "frames" / "002-001_frames"
    folder.mkdir(parents=True)
    for number in (4, 8):
        Image.new("RGB", (40, 30)).save(folder / f"002-001_{number}.jpg")
    shutil.copytree(folder, tmp_path / "secret_frames")
    (tmp_path / "x.jpg").write_bytes((folder / "002-001_4.jpg").read_bytes())

    rows = load_real_colon(tmp_path / "rows.jsonl", tmp_path / "frames")
    assert [row["video"] for row in rows if row["id"].startswith("out")] == [
        *["002-001"] * 3,
        "../secret",
        str(tmp_path / "secret"),
    ]
    (used,), refused = usable_rows({"train": rows}, to_row, str(tmp_path / "output"), max_rejected=1.0)
    assert used["id"] == ["qa_1"] and used["size"] == [[40, 30]]
    assert {key: used[0][key] for key in ("question", "answer", "short_answer", "kind")} == {
        "question": "Is a tool visible?",
        "answer": "No tool is visible.",
        "short_answer": "no",
        "kind": "tool_catheter_check",
    }
    reasons = {row["id"]: row["reason"] for row in refused}
    assert len(reasons) == len(rows) - 1
    for number, (_, reason) in enumerate(REFUSED.values(), start=3):
        assert reason in reasons.pop(f"rows.jsonl#{number}")
    assert reasons.pop("lost") == "frame 002-001_6.jpg: image file is missing"
    assert reasons.pop("long") == "a clip of 3 frames, where the model reads 2"
    assert reasons.pop("mute") == "an empty short_answer"
    assert set(reasons) == {f"out {i}" for i in range(5)}
    assert set(reasons.values()) == {"a frame outside the dataset's folder"}


def test_a_file_of_real_colon_vqa_that_is_missing_ends_in_one_line_and_an_empty_one_has_no_rows(tmp_path):
    with pytest.raises(DataError, match=r"^there is no file '.*nowhere\.jsonl'$"):
        load_real_colon(tmp_path / "nowhere.jsonl", tmp_path)
    write(tmp_path, "empty.jsonl", "", "")
    rows = load_real_colon(tmp_path / "empty.jsonl", tmp_path)
    assert len(rows) == 0 and rows.features["image"] == datasets.Image(decode=False)


def test_real_colon_rows_are_split_by_video_and_no_video_is_left_out():
    rows = datasets.Dataset.from_dict({"id": list("abcd"), "video": ["1", "2", "", "3"], PROBLEM: ["", "", "cut", ""]})
    parts = by_video(rows, {"train": ["1"], "validation": ["2"], "test": ["3", "4"]})
    assert {split: part["id"] for split, part in parts.items()} == {
        "train": ["a", "c"],
        "validation": ["b"],
        "test": ["d"],
    }
    with pytest.raises(DataError, match="the video '3' is in no split: name it for train, validation, test"):
        by_video(rows, {"train": ["1"], "validation": ["2"], "test": ["4"]})
    with pytest.raises(DataError, match="no row is about 4, the videos of 'test'"):
        by_video(rows.select(range(3)), {"train": ["1"], "validation": ["2"], "test": ["4"]})


def test_questions_of_one_s_own_have_no_lists_before_them_and_all_are_read(tmp_path, capsys):
    write(tmp_path, "VID01/1.txt", "Which tool?|hook", "Is there blood?|no", "How many?|1")
    write(tmp_path, "VID01/2.txt", HEADERS[1], "How many?|2", HEADERS[0].replace("liver", "gallbladder"))
    for name in ("frame_3.txt", "notes.txt"):
        write(tmp_path, f"VID01/{name}", "How many?|3")
    rows = load_question_folder(tmp_path, tmp_path, ["VID01"])
    assert rows["id"] == [f"VID01/{name}" for name in ("1#1", "1#2", "1#3", "2#2", "2#3")]
    said = "not read, as its name is no frame's number: VID01/frame_3.txt and 1 more\n"
    assert capsys.readouterr().out.startswith(said)
