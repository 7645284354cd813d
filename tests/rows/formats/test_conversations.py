"""ShareGPT's and LLaVA's conversations, by hand after their documentation; what is broken is refused by name."""

import json
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from recipes import visual_chat
from vlm_recipes.rows import usable_rows
from vlm_recipes.rows.conventions import PROBLEM
from vlm_recipes.rows.errors import DataError
from vlm_recipes.rows.formats import conversations, messages, tables, vqa_rad

IMAGE = {"type": "image"}


def text(words: str) -> dict:
    return {"type": "text", "text": words}


def talk(*values: str, speakers: tuple[str, str] = ("human", "gpt"), **more) -> dict:
    return {"conversations": [{"from": speakers[i % 2], "value": said} for i, said in enumerate(values)]} | more


# After LLaVA's docs/Finetune_Custom_Data.md, the second and the last kind of its llava_v1_5_mix665k.json (a picture
# named at the end of the first turn; none at all), and LLaMA-Factory's data/README.md (sharegpt, several pictures).
LLAVA = [
    talk("<image>\nWrite a prompt for this image.", "a painting", id="997bb945", image="part-000001/0.jpg"),
    talk("What is it?\n<image>", "A bowl.", "And its colour?", "Red.", id="000000033471", image="1.jpg"),
    talk("What is 2 + 2?", "4", id="wgByO4Y_0", model=""),
    talk("<image><image>\nWhich?", "The <first>.", images=["1.jpg", "2.jpg"], system="Be short.", kind="many"),
    talk("See <image> and\n<image>\n!", "Yes.", image=["2.jpg", "1.jpg"], id="000000033471"),
]
PARTS = [
    [[IMAGE, text("Write a prompt for this image.")], [text("a painting")]],
    [[text("What is it?"), IMAGE], [text("A bowl.")], [text("And its colour?")], [text("Red.")]],
    [[text("What is 2 + 2?")], [text("4")]],
    [[text("Be short.")], [IMAGE, IMAGE, text("Which?")], [text("The <first>.")]],
    [[text("See "), IMAGE, text(" and"), IMAGE, text("!")], [text("Yes.")]],
]
SHOWN = [["part-000001/0.jpg"], ["1.jpg"], [], ["1.jpg", "2.jpg"], ["2.jpg", "1.jpg"]]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "part-000001").mkdir()
    for number, path in enumerate(("part-000001/0.jpg", "1.jpg", "2.jpg")):
        Image.new("RGB", (30 + number, 20), (60 * number, 0, 0)).save(tmp_path / path)
    return tmp_path


def contents(rows) -> list:
    """Without the keys that Arrow adds to all parts."""
    plain = [[{key: value for key, value in part.items() if value is not None} for part in parts] for parts in rows]
    return plain


def read_line(folder, line: str) -> dict:
    """The row of a line that stands between two others, which are there as well."""
    good = json.dumps(LLAVA[2] | {"id": None})
    (folder / "chat.jsonl").write_text(f"{good}\n{line}\n{good}\n")
    [rows] = conversations.read_chats(folder).splits.values()
    assert len(rows) == 3 and rows[PROBLEM][::2] == ["", ""]
    return rows[1]


@pytest.mark.parametrize("name", ["llava_v1_5_mix665k.json", "indented.json", "lines.jsonl"])
def test_each_image_comes_where_its_marker_stood_and_nothing_else_changes(folder, name):
    lines = "".join(json.dumps(row) + "\n" for row in LLAVA)
    whole = json.dumps(LLAVA, indent=2 if "indented" in name else None)
    (folder / name).write_text(lines if name.endswith("l") else whole)
    assert conversations.recognises(folder) and conversations.recognises(folder / name)
    assert not any(other.recognises(folder) for other in (messages, tables, vqa_rad))
    read = conversations.read_chats(folder)
    assert read.counts == "5 conversations, 3 images" and list(read.splits) == ["all"]
    rows = read.splits["all"]
    assert [contents(m["content"] for m in row["messages"]) for row in rows] == PARTS
    assert [[m["role"] for m in row["messages"]] for row in rows] == [
        ["user", "assistant"],
        ["user", "assistant"] * 2,
        ["user", "assistant"],
        ["system", "user", "assistant"],
        ["user", "assistant"],
    ]
    assert [[image["path"] for image in row["images"]] for row in rows] == [
        [str((folder / path).resolve()) for path in paths] for paths in SHOWN
    ]
    assert rows["image_id"] == [" ".join(paths) or None for paths in SHOWN] and not any(rows[PROBLEM])
    assert rows["id"][:3] == ["997bb945", "000000033471", "wgByO4Y_0"] and rows["kind"][3] == "many"
    assert len(set(rows["id"])) == 5 and rows["id"][4].startswith("000000033471 (")


def test_rows_of_all_kinds_pass_the_recipe_s_own_checks(folder, tmp_path_factory):
    (folder / "train.json").write_text(json.dumps([*LLAVA, talk("<image>So?", "Yes.", "And?", image="1.jpg")]))
    adapt = partial(visual_chat.to_chat, control=["<|im_end|>"])
    splits = conversations.read_chats(folder).splits
    [rows], [refused] = usable_rows(splits, adapt, str(tmp_path_factory.mktemp("out")), 1)
    assert refused["id"] == "train.json#6" and "the last turn is not the assistant's" in refused["reason"]
    assert [contents(m["content"] for m in row["messages"]) for row in rows] == PARTS
    assert [[image.size for image in images] for images in rows["images"]][3] == [(31, 20), (32, 20)]


@pytest.mark.parametrize("speakers", [("human", "gpt"), ("user", "assistant"), ("Human", "chatgpt")])
def test_who_speaks_is_known_by_each_of_their_names(folder, speakers):
    row = read_line(folder, json.dumps(talk("a", "b", speakers=speakers)))
    assert [message["role"] for message in row["messages"]] == ["user", "assistant"]


word = st.text(st.sampled_from("ab \n<é"), max_size=5)


@settings(deadline=None, max_examples=200)
@given(st.lists(word, min_size=1, max_size=4))
def test_a_text_falls_apart_at_its_markers_and_loses_one_line_break_on_each_side_of_one(words):
    due = []
    for i, word in enumerate(words):
        word = word.removeprefix("\n") if i else word
        word = word.removesuffix("\n") if i < len(words) - 1 else word
        due += [IMAGE] * bool(i) + [text(word)] * bool(word)
    assert conversations._parts("<image>".join(words)) == due


# --- hostile files

ONE = {"image": "1.jpg"}
HOSTILE = {
    "one marker too many": (talk("<image><image>?", "a", **ONE), "2 markers <image> for 1 images"),
    "a marker and no picture": (talk("<image>?", "a"), "1 markers <image> for 0 images"),
    "a picture and no marker": (talk("?", "a", **ONE), "0 markers <image> for 1 images: write <image> in the text"),
    "two pictures and one marker": (talk("<image>", "a", image=["1.jpg", "2.jpg"]), "1 markers <image> for 2 images"),
    "a tool's answer": (talk("?", "a", speakers=("observation", "gpt")), "a turn is from 'observation', and not from"),
    "a call": (talk("?", "{}", speakers=("human", "function_call")), "a turn is from 'function_call', and not from"),
    "tools": (talk("?", "a", tools="[]"), "'tools' is not read"),
    "two systems": (
        {"conversations": [{"from": "system", "value": "b"}, *talk("?", "a")["conversations"]], "system": "c"},
        "a 'system' beside the messages, and a message of that role: keep one of them",
    ),
    "a video": (talk("<image>?", "a", video="a.mp4"), "'video' is not read"),
    "a turn that weighs nothing": (
        {"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "a", "weight": 0}]},
        "a turn has 'weight', which is not read: only from, value are",
    ),
    "nobody": ({"conversations": [{"from": None, "value": "?"}]}, "a turn is from 'None'"),
    "no value": ({"conversations": [{"from": "human"}]}, "a turn without 'from' and 'value'"),
    "a number said": (talk("?", 7), "the value of a turn is '7', and not a text"),
    "turns that are texts": ({"conversations": ["?", "a"]}, "a turn without 'from' and 'value': '?'"),
    "no list": ({"conversations": {"from": "human", "value": "?"}}, "and not a list of turns"),
    "no turn": ({"conversations": []}, "'conversations' is '[]', and not a list of turns"),
    "no conversation": ({"image": "1.jpg"}, "'conversations' is 'None'"),
    "half a surrogate pair": (talk("\ud83d", "a"), "bytes that are not UTF-8 or half a surrogate pair"),
    "a url": (talk("<image>", "a", image="https://x.org/a.png"), "is a URL, which a row must not fetch"),
    "a picture that is a number": (talk("<image>", "a", image=7), "'image' has '7', where a path is due"),
    "two kinds of pictures": (talk("<image>", "a", image="1.jpg", images=["2.jpg"]), "name different pictures"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_row_is_refused_with_its_line_and_the_others_are_there(folder, name):
    record, reason = HOSTILE[name]
    row = read_line(folder, json.dumps(record))
    assert row["id"] == "chat.jsonl, line 2" and reason in row[PROBLEM]


def test_a_row_that_is_refused_keeps_its_name_and_pictures_so_that_no_other_row_changes_its_part(folder):
    row = read_line(folder, json.dumps(talk("?", "a", image="1.jpg", id="mine")))
    assert row[PROBLEM] and row["id"] == "mine" and row["image_id"] == "1.jpg" and row["messages"] is None
    assert [image["path"] for image in row["images"]] == [str((folder / "1.jpg").resolve())]


@pytest.mark.parametrize("line", ["[" * 100_000, '{"conversations": ' * 100_000, "{]", '{"conversations": NaN}', "7"])
def test_a_line_that_is_no_object_is_refused(folder, line):
    assert read_line(folder, line)[PROBLEM]


@pytest.mark.parametrize("path", ["../a.jpg", "/etc/hostname", "link.jpg", "a\0.jpg", "9.jpg", "part-000001"])
def test_a_picture_outside_or_missing_is_refused_and_never_opened(folder, tmp_path_factory, path):
    outside = tmp_path_factory.mktemp("outside") / "a.jpg"
    Image.new("RGB", (20, 20)).save(outside)
    (folder / "link.jpg").symlink_to(outside)
    bad = talk("<image><image>?", "a", image=["1.jpg", path])
    (folder / "a.json").write_text(json.dumps([LLAVA[0], bad, LLAVA[2]]))
    splits = conversations.read_chats(folder).splits
    adapt = partial(visual_chat.to_chat, control=[])
    [rows], [refused] = usable_rows(splits, adapt, str(tmp_path_factory.mktemp("out")), 1)
    assert rows["id"] == ["997bb945", "wgByO4Y_0"] and refused["id"] == "a.json#2"
    reasons = ("no image, or one outside the dataset's folder (picture 2 of 2)", "image file is missing", "null byte")
    assert any(reason in refused["reason"] for reason in reasons), refused["reason"]


def test_a_list_that_ends_early_is_named_with_the_place(folder):
    (folder / "a.json").write_text(json.dumps(LLAVA)[:-30])
    with pytest.raises(DataError, match="a.json' cannot be read: number 5 of its list is not JSON"):
        conversations.read_chats(folder)


value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["from", "value"]), inner),
    max_leaves=4,
)
record = st.fixed_dictionaries({}, optional={key: value for key in ("conversations", "image", "images", "id", "kind")})


@settings(deadline=None, max_examples=100)
@given(st.lists(record.map(lambda changed: LLAVA[1] | changed) | value, max_size=4))
def test_every_member_of_a_list_is_a_row_or_a_row_refused(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("any")
    (folder / "a.json").write_text(json.dumps([LLAVA[1], *rows]))
    [read] = conversations.read_chats(folder).splits.values()
    assert len(read) == len(set(read["id"])) == len(rows) + 1
    for row in read:
        markers = sum(part["type"] == "image" for message in row["messages"] or () for part in message["content"])
        assert row[PROBLEM] or (row["messages"] and markers == len(row["images"]))
