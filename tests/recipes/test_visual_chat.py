"""Conversations about one or several pictures: read as they are, refused by name, trained and shown whole."""

import html
import json
from pathlib import Path

import datasets
import pytest
import torch
from PIL import Image, ImageDraw
from transformers import AutoProcessor
from trl.chat_template_utils import get_training_chat_template
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from demo.worlds.small import build
from recipes import visual_chat
from tests.support.running import QUIET, fails, read
from vlm_recipes.collators import ChatCollator
from vlm_recipes.rows.conventions import IGNORE_INDEX
from vlm_recipes.rows.loading import load_split
from vlm_recipes.rows.splits import hold_out
from vlm_recipes.rows.usable import usable_rows

pytestmark = pytest.mark.usefixtures("figures_are_blank")
CONTROL = ["<|im_end|>", "<|image_pad|>"]
IMAGE, PIXELS = {"type": "image"}, {"min_pixels": 12544, "max_pixels": 12544}
HOSTILE = "<script>alert(1)</script>"


def said(role: str, *parts: dict | str) -> dict:
    return {"role": role, "content": [p if isinstance(p, dict) else {"type": "text", "text": p} for p in parts]}


GOOD = [
    said("user", IMAGE, "What is it?"),
    said("assistant", "a cat"),
    said("user", "Sure?"),
    said("assistant", "yes"),
]


def write(folder: Path, rows: list[dict]) -> visual_chat.Data:
    """Rows as training and as test part; a file that a row names and that is not there is drawn."""
    configs = "configs:\n- config_name: default\n  data_files:\n"
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True, exist_ok=True)
        for name in {name for row in rows for name in row["file_names"] if not name.startswith("gone")}:
            picture = Image.new("RGB", (112, 84), "navy")
            ImageDraw.Draw(picture).text((9, 9), f"{split} {name}", "white")
            picture.save(folder / split / name)
        (folder / split / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        configs += f"  - split: {split}\n    path: {split}/**\n"
    (folder / "README.md").write_text(f"---\n{configs}---\n")
    return visual_chat.Data(dataset_name=str(folder), **PIXELS)


def usable(data: visual_chat.Data, output: Path) -> tuple[datasets.Dataset, list[dict]]:
    """The training rows as the recipe reads them, and those refused."""
    raw = {"train": load_split(data.dataset_name, None, "train", ("messages", "images"))}
    (rows,), refused = usable_rows(raw, lambda row: visual_chat.to_chat(row, CONTROL), str(output), max_rejected=1)
    return rows, refused


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> Path:
    """A small drawn world; `folder`/arguments.json has what starts the recipe on it."""
    folder = tmp_path_factory.mktemp("album")
    (folder / "arguments.json").write_text(json.dumps(build("visual_chat", folder)))
    return folder


def run(album: Path, output: Path, data: dict | None = None, **training) -> dict:
    data = {"dataset_name": str(album / "data"), "validation_fraction": 0.1, "max_new_tokens": 8, **(data or {})}
    visual_chat.main(
        visual_chat.Data(**PIXELS, **data),
        visual_chat.Training(**{**QUIET, "output_dir": str(output), "gradient_checkpointing": False, **training}),
        visual_chat.Model(model_name_or_path=str(album / "model"), dtype="float32", use_peft=False),
    )
    return read(output)


# --- rows


def test_a_row_is_read_with_all_its_turns_and_pictures(tmp_path):
    two = [
        said("system", "Be short."),
        said("user", IMAGE, IMAGE, "Which is ", "older?"),
        said("assistant", "the first"),
    ]
    rows = [{"file_names": ["a.png", "b.png"], "messages": two, "kind": "age"}]
    rows += [{"file_names": ["a.png"], "messages": GOOD, "kind": None}]
    read, refused = usable(write(tmp_path / "data", rows), tmp_path)
    first, second = read
    assert refused == [] and [image.size for image in first["images"]] == [(112, 84)] * 2 == [
        *map(tuple, first["image_sizes"])
    ]
    assert (first["question"], first["answer"], first["question_type"]) == ("Which is older?", "the first", "age")
    assert (second["question"], second["answer"], second["question_type"]) == ("Sure?", "yes", "")
    spoken = [(m["role"], [(p["type"], p.get("text")) for p in m["content"]]) for m in first["messages"]]
    assert spoken[1] == ("user", [("image", None), ("image", None), ("text", "Which is "), ("text", "older?")])
    assert second["image_ids"] == first["image_ids"][:1] and second["image_id"] != first["image_id"]
    assert [first["id"], second["id"]] == ["row 0", "row 1"] and len(set(first["image_hashes"])) == 2


def test_rows_as_the_hub_s_example_has_them_and_texts_that_are_no_lists_say_the_same(tmp_path):
    """llava-instruct-mix-vsft numbers pictures within the content; TRL puts those that no content names first."""
    image = {"bytes": None, "path": str(tmp_path / "pictures" / "train" / "a.png")}
    write(tmp_path / "pictures", [{"file_names": ["a.png"], "messages": GOOD}])
    numbered = [
        {"role": m["role"], "content": [{"index": None, "text": None, **p} for p in m["content"]]} for m in GOOD
    ]
    numbered[0]["content"][0]["index"] = 0
    plain = [{"role": m["role"], "content": m["content"][-1]["text"]} for m in GOOD]
    read = []
    for messages in (numbered, plain):
        rows = datasets.Dataset.from_dict({"messages": [messages], "images": [[image]]})
        rows = rows.cast_column("images", datasets.List(datasets.Image(decode=False)))
        (own,), refused = usable_rows({"x": rows}, lambda row: visual_chat.to_chat(row, CONTROL), str(tmp_path), 0)
        read.append(own[0])
    assert refused == [] and read[0]["messages"] == read[1]["messages"]
    assert read[0]["messages"][0]["content"][0]["type"] == "image"


REFUSED = {
    "one picture too few": (
        {"file_names": ["a.png"], "messages": [said("user", IMAGE, IMAGE, "?"), GOOD[1]]},
        "mention 2 images",
    ),
    "one too many": ({"file_names": ["a.png", "b.png"], "messages": GOOD}, "mention 1 images, the row has 2"),
    "no answer last": ({"file_names": ["a.png"], "messages": GOOD[:3]}, "last turn is not the assistant's"),
    "nobody asks": ({"file_names": ["a.png"], "messages": GOOD[1:2]}, "have to start with a system or user message"),
    "an empty answer": (
        {"file_names": ["a.png"], "messages": [*GOOD[:3], said("assistant", " \n")]},
        "an empty answer",
    ),
    "an earlier answer is empty": (
        {"file_names": ["a.png"], "messages": [GOOD[0], said("assistant"), *GOOD[2:]]},
        "an empty answer",
    ),
    "a control token": (
        {"file_names": ["a.png"], "messages": [*GOOD[:3], said("assistant", "no<|im_end|>")]},
        "spells a control token",
    ),
    "a picture in an answer": (
        {"file_names": ["a.png"], "messages": [said("user", "Draw!"), said("assistant", IMAGE, "so")]},
        "a picture in an answer",
    ),
    "a missing file": (
        {"file_names": ["a.png", "gone.png"], "messages": [said("user", IMAGE, IMAGE), GOOD[1]]},
        "missing: gone.png (picture 2 of 2)",
    ),
    "a sound": (
        {"file_names": ["a.png"], "messages": [said("user", IMAGE, {"type": "audio"}), GOOD[1]]},
        "only text and image are known",
    ),
    "no messages": ({"file_names": ["a.png"], "messages": []}, "have to start with a system or user message"),
}


def test_what_cannot_be_trained_is_refused_by_name_and_nothing_else_is(tmp_path):
    rows = [{"file_names": ["a.png"], "messages": GOOD}, *(row for row, _ in REFUSED.values())]
    read, refused = usable(write(tmp_path / "data", rows), tmp_path)
    assert read["id"][:] == ["row 0"] and [row["id"] for row in refused] == [f"row {i}" for i in range(1, len(rows))]
    for row, (fault, (_, reason)) in zip(refused, REFUSED.items(), strict=True):
        assert reason in row["reason"], fault


def test_a_text_alone_is_a_row_without_a_picture_and_by_itself(tmp_path):
    write(tmp_path / "pictures", [{"file_names": ["a.png"], "messages": GOOD}])
    image = {"bytes": None, "path": str(tmp_path / "pictures" / "train" / "a.png")}
    texts = [[said("user", f"{i}?"), said("assistant", "yes")] for i in range(2)]
    rows = datasets.Dataset.from_dict({"messages": [GOOD, *texts], "images": [[image], [], None]})
    rows = rows.cast_column("images", datasets.List(datasets.Image(decode=False)))
    (read,), refused = usable_rows({"x": rows}, lambda row: visual_chat.to_chat(row, CONTROL), str(tmp_path), 0)
    assert refused == [] and [len(row["images"] or ()) for row in read] == [1, 0, 0]
    assert len(set(read["image_id"][:])) == 3 and read["image_ids"][1:] == [[], []]


def test_rows_that_share_a_picture_directly_or_through_others_are_held_out_together():
    pictures = [["a"], ["a", "b"], ["b", "c"], ["d"], ["d", "e"], ["f"], [], []]
    rows = datasets.Dataset.from_dict(
        {"image_ids": pictures}, datasets.Features({"image_ids": datasets.List(datasets.Value("string"))})
    )
    groups = [{0, 1, 2}, {3, 4}, {5}, {6}, {7}]
    rows, seen = rows.add_column("n", list(range(8))), set()
    for seed in range(20):
        rest, held = hold_out(rows, 0.4, by="image_ids", seed=seed)
        assert sorted(rest["n"][:] + held["n"][:]) == list(range(8))
        assert sum(group <= set(held["n"][:]) for group in groups) == 2
        assert all(group <= set(held["n"][:]) or not group & set(held["n"][:]) for group in groups)
        seen.add(tuple(held["n"][:]))
    assert len(seen) > 5


def test_pictures_that_are_all_outside_of_the_folder_end_in_one_line(tmp_path, monkeypatch):
    for split in ("train", "test"):
        file = tmp_path / "data" / f"{split}.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"messages": GOOD, "images": ["/etc/passwd"]}) + "\n")
    build("visual_chat", tmp_path / "world")
    arguments = ["--dataset_name", str(tmp_path / "data"), "--model_name_or_path", str(tmp_path / "world" / "model")]
    line = fails(
        "visual_chat", *arguments, "--output_dir", str(tmp_path / "out"), "--use_cpu", "true", monkeypatch=monkeypatch
    )
    assert line == (
        "error: no row of 'train' can be used (1 refused), for example 'train.jsonl, line 1': "
        "no image, or one outside the dataset's folder (picture 1 of 1)"
    )


# --- training


def test_labels_are_those_of_trl_for_several_pictures_and_turns(album, tmp_path):
    """But for the new line after each end of turn, which TRL trains, too."""
    data = visual_chat.Data(dataset_name=str(album / "data"), **PIXELS)
    rows, _ = usable(data, tmp_path)
    chosen = [row for row in rows if len(row["images"]) == 2 and len(row["messages"]) > 2][:3]
    chosen += [row for row in rows if len(row["images"]) == 1 and len(row["messages"]) > 4][:3]
    processor = AutoProcessor.from_pretrained(album / "model")
    template = get_training_chat_template(processor)
    trl = DataCollatorForVisionLanguageModeling(processor, assistant_only_loss=True, chat_template=template)
    stripped = [
        {
            "images": row["images"],
            "messages": [
                said(m["role"], *({k: v for k, v in p.items() if v} for p in m["content"])) for m in row["messages"]
            ],
        }
        for row in chosen
    ]
    batch, expected = ChatCollator(processor)(chosen), trl(stripped)
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    labels = expected["labels"].clone()
    labels[:, 1:][expected["input_ids"][:, :-1] == end] = IGNORE_INDEX
    assert torch.equal(batch["input_ids"], expected["input_ids"]) and torch.equal(batch["labels"], labels)
    assert torch.equal(batch["pixel_values"], expected["pixel_values"])
    answers = [sum(m["role"] == "assistant" for m in row["messages"]) for row in chosen]
    assert (batch["labels"] == end).sum(dim=1).tolist() == answers and len(chosen) == 6


@pytest.mark.usefixtures("preflight_is_left_out")
def test_conversations_that_share_their_pictures_have_the_loss_gradient_and_answers_of_each_by_itself(album, tmp_path):
    steps, predictions = [], []
    for questions_per_row in (1, 4):
        output = tmp_path / str(questions_per_row)
        one = {"per_device_train_batch_size": 30, "gradient_accumulation_steps": 4, "max_steps": 1}
        one |= {"predict_validation": True}
        ended = run(album, output, {"questions_per_row": questions_per_row}, learning_rate=1e-9, **one)
        assert ended["log"][0]["epoch"] == 1  # all of them
        steps.append([ended["log"][0]["loss"], ended["log"][0]["grad_norm"]])
        predictions.append([row["prediction"] for row in ended["predictions"]])
        steps[-1].append(
            json.loads((output / "run.json").read_text())["trained_with"].get("per_device_train_batch_size")
        )
    assert steps[0][:2] == pytest.approx(steps[1][:2], rel=1e-4) and steps[0][2] is None and steps[1][2] < 30
    assert predictions[0] == predictions[1] and len(predictions[0]) > 5


# --- what a run leaves


def test_numbers_by_kind_stand_beside_the_kind_s_most_frequent_answer(album, tmp_path):
    ended = run(album, tmp_path, do_train=False)
    test = ended["results"]["test"]
    kinds = {row["question_type"] for row in ended["predictions"] if row["split"] == "test"}
    assert sum(test[f"token_f1_{kind}_n"] for kind in kinds) == test["n"] == 5
    assert {"rouge_l", "rouge_l_low", "baseline_rouge_l", "exact_match", "baseline_exact_match"} <= test.keys()
    assert all(f"baseline_token_f1_{kind}" in test for kind in kinds)


def test_the_report_and_the_data_page_show_every_turn_and_picture_escaped(tmp_path, album):
    turns = [
        said("user", IMAGE, f"first {HOSTILE}"),
        said("assistant", "one"),
        said("user", IMAGE, "second"),
        said("assistant", HOSTILE),
    ]
    rows = [{"file_names": [f"{i}.png", f"{i}b.png"], "messages": turns} for i in range(3)]
    write(tmp_path / "data", rows)
    data = {"dataset_name": str(tmp_path / "data"), "validation_fraction": 0.4, "max_new_tokens": 3}
    run(album, tmp_path / "out", data, max_steps=1)
    page = (tmp_path / "out" / "report.html").read_text()
    rows = [row for row in page.split('<article class="card row">')[1:]]
    assert len(rows) == 3
    for row in rows:
        row = row.partition("</article>")[0]
        assert row.count("<img ") == 2
        shown = html.unescape(row)
        assert f"[picture 1]\nfirst {HOSTILE}" in shown and "[picture 2]\nsecond" in shown and ">one<" in shown
        places = [shown.index(text) for text in ("first <", ">one<", "second", "answer", "prediction")]
        assert places == sorted(places)
    assert HOSTILE not in page
    seen = (tmp_path / "out" / "data.html").read_text()
    assert seen.count("<img ") >= 4 and HOSTILE not in seen
    checks = {check["name"]: check for check in json.loads((tmp_path / "out" / "preflight.json").read_text())}
    assert checks["rows"]["found"].startswith("train 2 on 4 images, validation 1 on 2 images, test 3 on 6 images")
    assert checks["blank images"]["numbers"]["n"] == 3


def test_a_picture_of_training_among_two_of_the_test_is_named(tmp_path, album):
    rows = [{"file_names": [f"{i}.png"], "messages": GOOD} for i in range(4)]
    write(tmp_path / "data", rows)
    two = [
        {
            "file_names": ["new.png", "0.png"],
            "messages": [said("user", IMAGE, IMAGE, "Alike?"), said("assistant", "no")],
        }
    ]
    write(tmp_path / "data", two)
    (tmp_path / "data" / "train" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "data" / "test" / "0.png").write_bytes((tmp_path / "data" / "train" / "0.png").read_bytes())
    data = {"dataset_name": str(tmp_path / "data"), "validation_fraction": 0.25, "max_new_tokens": 3}
    run(album, tmp_path / "out", data, max_steps=1, do_predict=False)
    checks = {check["name"]: check for check in json.loads((tmp_path / "out" / "preflight.json").read_text())}
    found = checks["images kept apart"]
    assert found["status"] == "warn" and found["numbers"]["test_images"] == 2 and found["numbers"]["test_shared"] == 1


def test_another_family_goes_on_with_conversations_too_and_says_that_it_has_no_pixel_budget(llava, album, capsys):
    ended = visual_chat.Model(model_name_or_path=str(llava.folder), dtype="float32")
    network, processor = visual_chat.load(visual_chat.Data(**PIXELS), ended, output_dir="out")
    assert type(network).__name__ == "LlavaForConditionalGeneration"
    assert "LlavaProcessor resizes pictures in its own way: --min_pixels and --max" in capsys.readouterr().out
    batch = ChatCollator(processor)([{"images": [Image.new("RGB", (40, 40))], "messages": GOOD}])
    assert (batch["labels"] != IGNORE_INDEX).any()


def test_a_mixed_file_is_read_as_one_with_lists_alone(album, tmp_path):
    """A row's one picture under `image`, which makes Arrow give every row both keys: none is lost."""
    picture = datasets.Image(decode=False)
    rows = load_split(str(album / "data"), None, "train", ("messages", "images"))
    own = rows.cast_column("images", datasets.List(picture))["images"]
    own = [[{"bytes": Path(one["path"]).read_bytes(), "path": None} for one in images] for images in own]
    one = [images[0] if len(images) == 1 else None for images in own]
    several = [None if first else images for first, images in zip(one, own, strict=True)]
    assert any(one) and any(several), "a mixed file"
    processor, batches = AutoProcessor.from_pretrained(album / "model"), []
    for name, columns in {"lists": {"images": own}, "mixed": {"image": one, "images": several}}.items():
        kinds = {key: picture if key == "image" else datasets.List(picture) for key in columns}
        pictures = datasets.Dataset.from_dict(columns, datasets.Features(kinds))
        for split in ("train", "test"):
            file = tmp_path / name / f"{split}.parquet"
            file.parent.mkdir(exist_ok=True)
            datasets.concatenate_datasets([rows.remove_columns("images"), pictures], axis=1).to_parquet(file)
        data = visual_chat.Data(dataset_name=str(tmp_path / name), **PIXELS)
        read_rows, refused = usable(data, tmp_path / f"out_{name}")
        batches.append(
            (read_rows["image_ids"][:], refused, ChatCollator(processor)(list(read_rows.select(range(12)))))
        )
    (lists, refused, expected), (mixed, again, batch) = batches
    assert mixed == lists and again == refused
    assert all(torch.equal(batch[key], expected[key]) for key in expected.keys() | batch.keys())
