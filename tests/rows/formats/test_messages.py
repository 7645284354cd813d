"""JSON of messages: as `datasets` writes TRL's rows, and as OpenAI documents its own; what is broken is refused."""

import json
import os
from functools import partial

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from trl.data_utils import prepare_multimodal_messages

from recipes import visual_chat
from vlm_recipes.collators.conversation import clean_messages
from vlm_recipes.rows import usable_rows
from vlm_recipes.rows.conventions import PROBLEM
from vlm_recipes.rows.errors import BadRow
from vlm_recipes.rows.formats import conversations, messages, tables

IMAGE = {"type": "image"}


def text(words: str) -> dict:
    return {"type": "text", "text": words}


def said(*contents, **more) -> dict:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": c} for i, c in enumerate(contents)]} | more


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        Image.new("RGB", (30 + number, 20), (60 * number, 0, 0)).save(tmp_path / f"{number}.png")
    return tmp_path


def contents(row: dict) -> list:
    """Without the keys that Arrow adds to all parts."""
    told = [message["content"] for message in row["messages"]]
    return [[{key: value for key, value in part.items() if value is not None} for part in parts] for parts in told]


def names(row: dict) -> list:
    return [image and os.path.basename(image["path"]) for image in row["images"]]


def read_line(folder, record) -> dict:
    """The row of a line that stands between two others, which are there as well."""
    good = json.dumps(said("What is 2 + 2?", "4"))
    line = record if isinstance(record, str) else json.dumps(record)
    (folder / "chat.jsonl").write_text(f"{good}\n{line}\n{good}\n")
    [rows] = messages.read_chats(folder).splits.values()
    assert len(rows) == 3 and rows[PROBLEM][::2] == ["", ""]
    return rows[1]


# --- what others write


@pytest.mark.parametrize("name", ["train.jsonl", "train.json"])
def test_rows_that_datasets_wrote_come_back_with_their_parts_and_pictures(folder, name):
    """It gives each part all keys of any, None where it has none, as in HuggingFaceH4/llava-instruct-mix-vsft."""
    parts = [[IMAGE | {"index": 0}, text("What is it?")], [text("A bowl.")], [text("Sure?")], [text("Yes.")]]
    rows = [said(*parts, images=["1.png"]), said([text("So?")], [text("So.")], images=[])]
    rows += [said([text("Is "), IMAGE | {"index": 0}, text(" larger than "), IMAGE | {"index": 1}], [text("No.")])]
    rows[2]["images"] = ["2.png", "0.png"]
    datasets.Dataset.from_list(rows).to_json(folder / name, lines=name.endswith("l"))
    assert "null" in (folder / name).read_text()
    assert messages.recognises(folder) and not conversations.recognises(folder) and not tables.recognises(folder)
    read = messages.read_chats(folder)
    assert list(read.splits) == ["train"] and read.counts == "3 conversations, 3 images"
    without = [
        [[{k: v for k, v in part.items() if k != "index"} for part in m["content"]] for m in row["messages"]]
        for row in rows
    ]
    assert [contents(row) for row in read.splits["train"]] == without
    assert [names(row) for row in read.splits["train"]] == [["1.png"], [], ["2.png", "0.png"]]


def test_openai_s_parts_name_their_pictures_in_order(folder):
    """After platform.openai.com/docs/guides/vision-fine-tuning, with paths where it has URLs."""

    def shown(path: str) -> dict:
        return {"type": "image_url", "image_url": {"url": path, "detail": "low"}}

    row = read_line(folder, said([text("Is"), shown("2.png"), text("or"), shown("./0.png")], "No."))
    assert contents(row) == [[text("Is"), IMAGE, text("or"), IMAGE], [text("No.")]]
    assert names(row) == ["2.png", "0.png"] and row["image_id"] == "2.png 0.png"


@pytest.mark.parametrize("part", [{"image": "1.png"}, {"path": "1.png"}, {"image_url": "1.png"}, {"url": "1.png"}])
def test_a_part_names_its_picture_in_each_spelling(folder, part):
    row = read_line(folder, said([{"type": "image"} | part, text("?")], "No."))
    assert contents(row)[0] == [IMAGE, text("?")] and names(row) == ["1.png"]


@pytest.mark.parametrize("key", messages.PICTURES)
def test_pictures_are_named_beside_the_messages_one_or_several(folder, key):
    assert names(read_line(folder, said("What?", "That.", **{key: "1.png"}))) == ["1.png"]
    assert names(read_line(folder, said("What?", "That.", **{key: ["2.png", "1.png"]}))) == ["2.png", "1.png"]


def test_texts_with_pictures_are_left_as_trl_takes_them_images_first(folder):
    told = said("What is it?", "A bowl.", images=["1.png", "2.png"])
    row = read_line(folder, told)
    assert contents(row) == [[text("What is it?")], [text("A bowl.")]]
    oracle = prepare_multimodal_messages(told["messages"], images=[Image.new("RGB", (8, 8))] * 2)
    due = [[{k: v for k, v in part.items() if k != "image"} for part in message["content"]] for message in oracle]
    assert [message["content"] for message in clean_messages(row["messages"], 2, ())] == due


def test_an_imagefolder_s_metadata_is_read_by_split_with_its_kinds(tmp_path, tmp_path_factory):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for side in ("front", "back"):
            Image.new("RGB", (40, 30 + len(side))).save(tmp_path / split / f"{side}.jpg")
        row = said([IMAGE, IMAGE, text("Same?")], "Yes.", file_names=["front.jpg", "back.jpg"], kind="sides")
        (tmp_path / split / "metadata.jsonl").write_text(json.dumps(row))
    splits = messages.read_chats(tmp_path).splits
    assert splits["train"]["image_id"] == ["train/front.jpg train/back.jpg"] and list(splits) == ["test", "train"]
    adapt = partial(visual_chat.to_chat, control=["<|im_end|>"])
    (test, _), refused = usable_rows(splits, adapt, str(tmp_path_factory.mktemp("out")), 0)
    assert test["question_type"] == ["sides"] and [image.size for image in test["images"][0]] == [(40, 35), (40, 34)]


def test_a_system_beside_the_messages_comes_first_and_empty_lists_of_other_media_are_none(folder):
    """As LLaMA-Factory has them; Arrow gives all rows of a file the keys of any."""
    row = read_line(folder, said("?", "Oui.", system="Answer in French.", videos=[], audios=None, tools=""))
    assert contents(row) == [[text("Answer in French.")], [text("?")], [text("Oui.")]] and not row[PROBLEM]
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]


@pytest.mark.parametrize(("key", "value"), [("videos", ["a.mp4"]), ("tools", "[{}]"), ("system", "Be short.")])
def test_what_stands_beside_the_messages_of_rows_that_datasets_reads_is_refused_too(key, value):
    row = said([text("?")], [text("a")], image_sizes=[], image_ids=[], id="1")
    assert visual_chat.to_chat(row | {key: None}, [])["answer"] == "a"
    with pytest.raises(BadRow, match=f"^'{key}' is not read: only pictures and what is said are$"):
        visual_chat.to_chat(row | {key: value}, [])


# --- hostile files

URL = "https://x.org/a.png"
HOSTILE = {
    "a url in a part": (said([{"type": "image_url", "image_url": {"url": URL}}], "a"), "is a URL"),
    "data in a part": (said([{"type": "image_url", "image_url": "data:image/png;base64,AA"}], "a"), "is a URL"),
    "a url beside": (said("?", "a", images=[URL]), "is a URL, which a row must not fetch"),
    "a video": (
        said([{"type": "video", "video": "a.mp4"}], "a"),
        "is no part of a content: a text or an image is due",
    ),
    "videos beside": (said("<video>?", "a", videos=["a.mp4"]), "'videos' is not read"),
    "an audio beside": (said("?", "a", audio="a.wav"), "'audio' is not read"),
    "tools beside": (said("?", "a", tools='[{"name": "look"}]'), "'tools' is not read"),
    "two systems": (
        {"messages": [{"role": "system", "content": "b"}, *said("?", "a")["messages"]], "system": "c"},
        "a 'system' beside the messages, and a message of that role: keep one of them",
    ),
    "a part that is a text": (said(["?"], "a"), "'?' is no part of a content"),
    "a text that is none": (said([{"type": "text", "text": 7}], "a"), "is no part of a content"),
    "a content that is a number": (said(7, "a"), "a content is '7', and neither a text nor a list of parts"),
    "an image's part without": (said([{"type": "image_url"}], "a"), "the picture of a part is 'None', and not a path"),
    "some parts with names": (
        said([IMAGE, IMAGE | {"path": "1.png"}], "a"),
        "of 2 parts with an image only 1 name it",
    ),
    "pictures named twice": (
        said([IMAGE | {"path": "1.png"}], "a", images=["2.png"]),
        "'images' and 'the parts of its messages' name different pictures",
    ),
    "another order": (said([IMAGE | {"index": 1}, IMAGE | {"index": 0}], "a"), "with the index 1 comes in place 0"),
    "a call": (
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}]},
        "a message has 'tool_calls', which is not read",
    ),
    "a weight": (
        {"messages": [{"role": "assistant", "content": "a", "weight": 0}]},
        "a message has 'weight', which is not read",
    ),
    "no content": ({"messages": [{"role": "user"}]}, "a message without 'role' and 'content'"),
    "a role that is a number": ({"messages": [{"role": 7, "content": "?"}]}, "a message has the role '7'"),
    "messages that are a text": ({"messages": "?"}, "'messages' is '?', and not a list of messages"),
    "none": ({"messages": []}, "'messages' is '[]', and not a list of messages"),
    "without": ({"image": "1.png"}, "'messages' is 'None', and not a list of messages"),
    "half a surrogate pair": (said("\ud83d", "a"), "bytes that are not UTF-8 or half a surrogate pair"),
    "deep": ("[" * 100_000, "the line is not JSON"),
    "no object": ("[7]", "'[7]' is no JSON object"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_row_is_refused_with_its_line_and_the_others_are_there(folder, name):
    record, reason = HOSTILE[name]
    row = read_line(folder, record)
    assert row["id"] == "chat.jsonl, line 2" and reason in row[PROBLEM]


def test_a_row_that_is_refused_keeps_its_name_and_pictures_so_that_no_other_row_changes_its_part(folder):
    row = read_line(folder, {"id": "mine", "messages": 7, "images": ["2.png", "1.png"]})
    assert row[PROBLEM] and row["id"] == "mine" and names(row) == ["2.png", "1.png"]
    assert row["image_id"] == "2.png 1.png" and row["messages"] is None


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (said([IMAGE, IMAGE], "a", images=["1.png"]), "the messages mention 2 images, the row has 1"),
        (said("<image>?", "a", images=["1.png"]), "<image> in a text of the role 'user' marks the place of an image"),
        (said("?", "a", images=["../1.png"]), "no image, or one outside the dataset's folder"),
        (said("?", "a", images=["9.png"]), "image file is missing: 9.png"),
        (said("?", "a", "?"), "the last turn is not the assistant's"),
    ],
)
def test_what_the_recipe_refuses_is_refused_by_it(folder, tmp_path_factory, record, reason):
    read_line(folder, record)
    adapt = partial(visual_chat.to_chat, control=[])
    out = str(tmp_path_factory.mktemp("out"))
    [rows], [refused] = usable_rows(messages.read_chats(folder).splits, adapt, out, 1)
    assert refused["id"] == "chat.jsonl, line 2" and reason in refused["reason"] and len(rows) == 2


value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "image", "index"]), inner, max_size=3)
    ),
    max_leaves=5,
)
kinds = st.sampled_from(["text", "image", "image_url"])
part = st.fixed_dictionaries({"type": kinds}, optional={"text": value, "image": value})
contents_of_any_kind = value | st.lists(part | value, max_size=3)
message = st.fixed_dictionaries({"role": value | st.just("user"), "content": contents_of_any_kind})
record = st.fixed_dictionaries(
    {}, optional={"messages": value | st.lists(message | value, max_size=3), "images": value, "id": value}
)


@settings(deadline=None, max_examples=150)
@given(st.lists(record | value, max_size=4))
def test_every_member_of_a_list_is_a_row_or_a_row_refused(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("any")
    (folder / "a.json").write_text(json.dumps([said("?", "a"), *rows]))
    [read] = messages.read_chats(folder).splits.values()
    assert len(read) == len(set(read["id"])) == len(rows) + 1
    assert all(row[PROBLEM] or row["messages"] for row in read)
