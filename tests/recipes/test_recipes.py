"""The recipes as a whole, on small checkpoints: they learn, add up, agree across processes and fail in one line."""

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from datasets import Dataset
from PIL import Image, ImageDraw
from transformers import AutoProcessor

from demo.checkpoints.blip2 import write_blip2
from demo.checkpoints.qwen2_vl import write_qwen2_vl
from demo.worlds.build import spoken
from recipes import kvasir_vqa, nutrition_tables, visual_chat, vqa_rad
from tests.support.paths import DATA, written_and_real
from tests.support.processes.launch import in_two_processes
from tests.support.running import QUIET, fails, read
from tests.support.session import once
from vlm_recipes.callbacks.preflight.callback import PreflightDone
from vlm_recipes.eval.metrics.box_codecs import Qwen2VLBoxes
from vlm_recipes.models.chat import set_pixel_budget
from vlm_recipes.rows.formats.read import Read
from vlm_recipes.rows.pictures import inspect_picture

RECIPES = [nutrition_tables, kvasir_vqa, vqa_rad, visual_chat]
HEADLINES = {
    nutrition_tables: "iou_mean",
    kvasir_vqa: "accuracy",
    vqa_rad: "token_f1",
    visual_chat: "token_f1",
}
COLOURS = ["red", "lime", "blue", "yellow", "cyan", "magenta", "white", "orange"]


pytestmark = pytest.mark.usefixtures("figures_are_blank")


def write_tables(folder: Path) -> None:
    """Eight pictures with one bright table each, on whole thousandths, as training and as test part."""
    for split in ("train", "val"):
        (folder / split).mkdir()
        lines = []
        for i, colour in enumerate(COLOURS):
            box = [0.1 + 0.05 * i, 0.4 - 0.03 * i, 0.5 + 0.05 * i, 0.9 - 0.04 * i]
            image = Image.new("RGB", (112, 112), "black")
            y_min, x_min, y_max, x_max = (112 * side for side in box)
            ImageDraw.Draw(image).rectangle([x_min, y_min, x_max, y_max], fill=colour)
            image.save(folder / split / f"{i}.png")
            objects = {"bbox": [[round(side, 3) for side in box]], "category_id": [0], "category_name": ["table"]}
            row = {"file_name": f"{i}.png", "image_id": f"{split}{i}", "width": 112, "height": 112, "objects": objects}
            lines.append(json.dumps(row))
        (folder / split / "metadata.jsonl").write_text("\n".join(lines))
    configs = "configs:\n- config_name: default\n  data_files:\n" + "".join(
        f"  - split: {split}\n    path: {split}/*\n" for split in ("train", "val")
    )
    (folder / "README.md").write_text(f"---\n{configs}---\n")
    said = spoken(nutrition_tables.prompt())
    write_qwen2_vl(folder / "model", said * 20, phrases=[line for text in said for line in text.split("\n")])


def write_scans(folder: Path) -> None:
    """Eight pictures with one question each in VQA-RAD's original format, as training and as test part."""
    (folder / "images").mkdir()
    rows = []
    for i, colour in enumerate(COLOURS):
        Image.new("RGB", (64, 48), colour).save(folder / "images" / f"{i}.png")
        for phrase in ("freeform", "test_freeform"):
            rows.append(
                {
                    "qid": len(rows),
                    "image_name": f"{i}.png",
                    "question": "What is shown?",
                    "answer": f"{colour} tissue" if i % 2 else colour,
                    "answer_type": "OPEN" if i % 2 else "CLOSED ",
                    "question_type": "COLOR",
                    "phrase_type": phrase,
                }
            )
    (folder / "rows.json").write_text(json.dumps(rows))
    texts = [text for row in rows for text in (vqa_rad.prompt(row["question"]), row["answer"])]
    write_blip2(folder / "model", texts, image_size=32, width=64, layers=1, queries=4)


def write_polyps(folder: Path) -> None:
    """Eight colours on four pictures each, in the Hub's schema; every picture asks one of four questions."""
    (folder / "images").mkdir()
    lines, texts = [], []
    for i, colour in enumerate(COLOURS):
        asked = [
            ("Is there text?", ["yes", "no"][i % 2]),
            ("How many polyps are in the image?", str(i)),
            ("What is the size of the polyp?", ["<5mm", "5-10mm", ">20mm"][i % 3]),
            ("What color is the abnormality? If more than one separate with ;", ["pink", "pink; red"][i % 2]),
        ]
        for copy in range(4):
            name, (question, answer) = f"images/{colour}{copy}.png", asked[i % 4]
            Image.new("RGB", (112, 112), colour).save(folder / name)
            row = {"file_name": name, "source": "drawn", "img_id": f"{colour}{copy}"}
            lines.append(json.dumps({**row, "question": question, "answer": answer}))
            texts += [answer, question]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    data_files = "  - split: raw\n    path:\n    - metadata.jsonl\n    - images/*\n"
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{data_files}---\n")
    write_qwen2_vl(folder / "model", texts, phrases=[kvasir_vqa.SYSTEM], layers=1)


def write_chats(folder: Path) -> None:
    """Eight conversations of one or two turns about one or two pictures, as training and as test part."""
    texts = []
    for split in ("train", "test"):
        (folder / split).mkdir()
        lines = []
        for i, colour in enumerate(COLOURS):
            names, turns = [f"{i}.png"], [("What colour is it?", colour)]
            Image.new("RGB", (112, 84), colour).save(folder / split / f"{i}.png")
            if i % 2:
                names.append(f"{i}b.png")
                turns.append(("And the second picture?", f"it is {colour} with a dot"))
                spotted = Image.new("RGB", (84, 112), colour)
                ImageDraw.Draw(spotted).ellipse([20, 20, 60, 60], fill="black")
                spotted.save(folder / split / f"{i}b.png")
            messages, shown = [], [{"type": "image"}] * len(names)
            for question, answer in turns:
                messages.append({"role": "user", "content": [*shown, {"type": "text", "text": question}]})
                messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
                shown, texts = [], [*texts, question, answer]
            row = {"file_names": names, "messages": messages, "kind": ["one picture", "two pictures"][i % 2]}
            lines.append(json.dumps(row))
        (folder / split / "metadata.jsonl").write_text("\n".join(lines))
    configs = "configs:\n- config_name: default\n  data_files:\n" + "".join(
        f"  - split: {split}\n    path: {split}/*\n" for split in ("train", "test")
    )
    (folder / "README.md").write_text(f"---\n{configs}---\n")
    write_qwen2_vl(folder / "model", texts * 5, phrases=["You are a helpful assistant."], layers=1)


@pytest.fixture(scope="session")
def tables() -> Path:
    return once("tables", write_tables)


@pytest.fixture(scope="session")
def scans() -> Path:
    return once("scans", write_scans)


@pytest.fixture(scope="session")
def polyps() -> Path:
    return once("polyps", write_polyps)


@pytest.fixture(scope="session")
def chats() -> Path:
    return once("chats", write_chats)


@pytest.fixture(scope="session")
def datasets(tables, polyps, scans, chats) -> dict:
    return {nutrition_tables: tables, kvasir_vqa: polyps, vqa_rad: scans, visual_chat: chats}


def start(recipe, dataset: Path, output: Path, data: dict | None = None, model: dict | None = None, **training):
    """Run a recipe in this process."""
    settings = {**QUIET, "output_dir": str(output), **training}
    plain = {"tune": "all"} if recipe is nutrition_tables else {"use_peft": False}
    plain |= {"load_in_8bit": False} if recipe is vqa_rad else {}
    data = {"validation_fraction": 0.15 if recipe is kvasir_vqa else 0, **(data or {})}
    if recipe is not vqa_rad:
        settings["gradient_checkpointing"] = False
        data = {"min_pixels": 112 * 112, "max_pixels": 112 * 112, "max_new_tokens": 48, **data}
    recipe.main(
        recipe.Data(dataset_name=str(dataset), **data),
        recipe.Training(**settings),
        recipe.Model(**{"model_name_or_path": str(dataset / "model"), "dtype": "float32", **plain, **(model or {})}),
    )


def types_in(dataset: Path, **settings) -> kvasir_vqa.QuestionTypes:
    """Those of the rows to train on; an evaluation leaves no file of them."""
    return kvasir_vqa.types_of(kvasir_vqa.read(kvasir_vqa.Data(dataset_name=str(dataset), **settings))["train"])


def run(recipe: ModuleType, dataset: Path, output: Path, *arguments: dict, **settings) -> dict:
    start(recipe, dataset, output, *arguments, **settings)
    return read(output)


LEARNING = {
    nutrition_tables: {"max_steps": 60, "learning_rate": 3e-3, "warmup_steps": 10},
    kvasir_vqa: {"max_steps": 28, "learning_rate": 5e-3, "warmup_steps": 5},
    vqa_rad: {"max_steps": 80, "learning_rate": 6e-3, "warmup_steps": 8},
    visual_chat: {"max_steps": 28, "learning_rate": 5e-3, "warmup_steps": 5},
}


@pytest.fixture(scope="session")
def learnt_by_heart(datasets) -> Callable[[ModuleType], dict]:
    """What a recipe's run left that has learnt its eight rows by heart."""
    batch = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}

    def learnt(recipe: ModuleType) -> dict:
        train = partial(start, recipe, datasets[recipe], **batch, **LEARNING[recipe])
        return read(once(f"{recipe.__name__}_learnt_by_heart", train))

    return learnt


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_eight_rows_are_learnt_by_heart(recipe, learnt_by_heart):
    learnt = learnt_by_heart(recipe)
    assert [log["loss"] for log in learnt["log"] if "loss" in log][-1] < 0.05
    assert learnt["results"]["test"][HEADLINES[recipe]] == pytest.approx(1.0)
    assert all(row["prediction"] == row["reference"] for row in learnt["predictions"])
    assert learnt["results"]["test"]["n"] == (5 if recipe is kvasir_vqa else 8)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_the_preflight_alone_finds_nothing_wrong_and_takes_no_step(recipe, datasets, tmp_path):
    declared = {"box_format": "yxyx", "box_unit": "relative"} if recipe is nutrition_tables else {}
    with pytest.raises(PreflightDone):
        run(recipe, datasets[recipe], tmp_path, data={"validation_fraction": 0.3} | declared, max_steps=0)
    lines = {line["name"]: line for line in json.loads((tmp_path / "preflight.json").read_text())}
    assert lines.pop("images kept apart")["status"] == "warn"  # the same drawings in both parts
    if recipe in (vqa_rad, visual_chat):  # eight rows: an answer held out is not known
        assert lines.pop("answers known from training")["status"] == "warn"
    assert {line["status"] for line in lines.values()} == {"pass"}, lines
    assert {"baselines on test", "labels", "longest batch", "frozen parts", "gradients"} <= set(lines)
    assert ("coordinates" in lines) == (recipe is nutrition_tables)
    assert {file.name for file in tmp_path.iterdir()} == {
        "preflight.json",
        "rejected.jsonl",
        "data.html",
    }


@pytest.mark.usefixtures("preflight_is_left_out")
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_loss_and_gradient_do_not_depend_on_how_a_batch_is_split(recipe, datasets, tmp_path):
    seen = []
    for size, accumulation in [(8, 1), (4, 2), (2, 4), (1, 8)]:
        log = run(
            recipe,
            datasets[recipe],
            tmp_path / f"{size}x{accumulation}",
            {"max_new_tokens": 4},
            do_predict=False,
            max_steps=1,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
        )["log"]
        seen.append([log[0]["loss"], log[0]["grad_norm"]])
    torch.testing.assert_close(torch.tensor(seen), torch.tensor(seen[:1] * 4), rtol=1e-4, atol=0)


# The first recipe's two processes are those of test_many_processes.py, which train, too.
@pytest.mark.parametrize("recipe", RECIPES[1:], ids=lambda recipe: recipe.__name__)
def test_two_processes_evaluate_to_the_same_numbers_as_one(recipe, datasets, learnt_by_heart, tmp_path):
    learnt = learnt_by_heart(recipe)
    model = {"model_name_or_path": str(learnt["output"])}
    data = {"validation_fraction": 0.15 if recipe is kvasir_vqa else 0.3}
    settings = {"do_train": False, "predict_validation": True, "per_device_eval_batch_size": 2}
    in_two_processes(partial(start, recipe, datasets[recipe], tmp_path, data, model, **settings))
    ended = read(tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["processes"] == 2
    assert ended["results"]["test"] == pytest.approx(learnt["results"]["test"])
    assert ended["results"]["validation"]["n"] == (5 if recipe is kvasir_vqa else 2)
    answered = [[row for row in one["predictions"] if row["split"] == "test"] for one in (ended, learnt)]
    assert answered[0] == answered[1]


@pytest.mark.usefixtures("preflight_is_left_out")
@pytest.mark.parametrize("tune", ["language", "vision", "joint"])
def test_only_what_tune_names_is_trained(tune, tables, tmp_path):
    learning = dict(max_steps=12, per_device_train_batch_size=8, gradient_accumulation_steps=1, learning_rate=3e-3)
    model = {"tune": tune} | ({} if tune == "vision" else {"lora_r": 8, "lora_dropout": 0.0})
    log = run(nutrition_tables, tables, tmp_path, model=model, warmup_steps=0, do_predict=False, **learning)["log"]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert losses[-1] < losses[0]
    groups = {key for entry in log for key in entry if key.startswith("grad_norm/")} - {"grad_norm/clipped_share"}
    expected = {"vision": {"vision", "projector"}}.get(tune, {"lora_a", "lora_b"})
    assert groups == {f"grad_norm/{group}" for group in expected}
    if tune == "vision":
        assert (tmp_path / "model.safetensors").is_file()
    else:
        adapted = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
        assert ("visual" in adapted) == (tune == "joint")


@pytest.mark.usefixtures("preflight_is_left_out")
def test_an_adapter_is_evaluated_again_to_the_same_answers(tables, tmp_path):
    model = {"tune": "joint", "lora_r": 8}
    first = run(nutrition_tables, tables, tmp_path / "a", model=model, max_steps=3, learning_rate=1e-2)
    again = run(
        nutrition_tables,
        tables,
        tmp_path / "b",
        model={**model, "model_name_or_path": str(tmp_path / "a")},
        do_train=False,
    )
    assert again["predictions"] == first["predictions"]
    assert again["results"] == first["results"]


def test_ask_draws_the_box_that_evaluation_found(tables, learnt_by_heart, capsys, tmp_path):
    from vlm_recipes.training.ask import main as ask

    output = tmp_path / "run"
    shutil.copytree(learnt_by_heart(nutrition_tables)["output"], output)
    ask([str(output), str(tables / "val" / "0.png")])
    assert learnt_by_heart(nutrition_tables)["predictions"][0]["prediction"] in capsys.readouterr().out
    assert Image.open(output / "answers" / "0.png").size == (112, 112)


def test_ask_answers_every_picture_of_a_folder(scans, learnt_by_heart, capsys):
    from vlm_recipes.training.ask import main as ask

    ask([str(learnt_by_heart(vqa_rad)["output"]), str(scans / "images"), "What is shown?"])
    out = capsys.readouterr().out
    assert f"{scans / 'images' / '1.png'}: lime tissue" in out and out.count(".png:") == 8


def test_ask_goes_on_from_a_picture_of_one_s_own(chats, learnt_by_heart, capsys):
    from vlm_recipes.training.ask import main as ask

    ask([str(learnt_by_heart(visual_chat)["output"]), str(chats / "test" / "0.png"), "What colour is it?"])
    assert capsys.readouterr().out.splitlines()[-1] == f"{chats / 'test' / '0.png'}: red"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_what_cannot_work_ends_in_one_clear_line(recipe, datasets, tmp_path, monkeypatch):
    dataset, recipe = datasets[recipe], recipe.__name__.split(".")[-1]
    common = ["--output_dir", str(tmp_path / "out"), "--use_cpu", "true", "--load_in_8bit", "false"]
    good_data, good_model = ["--dataset_name", str(dataset)], ["--model_name_or_path", str(dataset / "model")]

    line = fails(recipe, *common, *good_data, "--model_name_or_path", "no/such/model", monkeypatch=monkeypatch)
    assert "no/such/model" in line and "model" in line

    line = fails(recipe, *common, *good_model, "--dataset_name", "no/such/dataset", monkeypatch=monkeypatch)
    assert "no/such/dataset" in line

    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "train.csv").write_text("a,b\n1,2\n")
    (plain / "test.csv").write_text("a,b\n1,2\n")
    splits = ["--dataset_train_split", "train", "--dataset_test_split", "test"]
    line = fails(recipe, *common, *good_model, "--dataset_name", str(plain), *splits, monkeypatch=monkeypatch)
    assert "no column" in line and "'a'" in line

    (tmp_path / "typo.yaml").write_text("learning_rat: 1.0\n")
    line = fails(recipe, *good_data, *good_model, "--config", str(tmp_path / "typo.yaml"), monkeypatch=monkeypatch)
    assert "learning_rat" in line


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_a_dataset_without_a_usable_row_is_refused(recipe, datasets, tmp_path, monkeypatch):
    source, name = datasets[recipe], recipe.__name__.split(".")[-1]
    broken = tmp_path / "broken"
    shutil.copytree(source, broken, ignore=shutil.ignore_patterns("model"))
    for image in broken.rglob("*.png"):
        image.write_bytes(b"")
    arguments = ["--dataset_name", str(broken), "--model_name_or_path", str(source / "model"), "--use_cpu", "true"]
    arguments += ["--output_dir", str(tmp_path / "out"), "--load_in_8bit", "false"]
    line = fails(name, *arguments, monkeypatch=monkeypatch)
    assert line.startswith(f"error: no row of 'train' can be used ({22 if recipe is kvasir_vqa else 8} refused)")
    refused = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    assert len(refused) == (32 if recipe is kvasir_vqa else 16)


@pytest.mark.parametrize("recipe", [nutrition_tables, kvasir_vqa, visual_chat], ids=lambda recipe: recipe.__name__)
def test_a_row_longer_than_max_length_is_refused_at_load_with_its_numbers(recipe, datasets, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(datasets[recipe], folder, ignore=shutil.ignore_patterns("model"))
    file = folder / ("metadata.jsonl" if recipe is kvasir_vqa else "train/metadata.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    if recipe is kvasir_vqa:
        rows[3]["question"] = "Is there text? " * 100
    elif recipe is visual_chat:
        rows[3]["messages"][2]["content"][0]["text"] = "And the second picture? " * 100
    else:
        rows[3]["objects"]["category_name"] = ["table " * 600]
    file.write_text("\n".join(map(json.dumps, rows)))
    model, data = {"model_name_or_path": str(datasets[recipe] / "model")}, {"max_rejected": 0.1}
    limit = 500 if recipe is kvasir_vqa else 300
    ended = run(recipe, folder, tmp_path / "out", data, model, do_train=False, do_predict=False, max_length=limit)
    assert ended["results"] == {}
    (refused,) = map(json.loads, (tmp_path / "out" / "rejected.jsonl").read_text().splitlines())
    place = f"{file.relative_to(folder)}, line 4"
    named = {nutrition_tables: "train3", kvasir_vqa: f"{rows[3].get('img_id')} ({place})", visual_chat: place}
    assert refused["id"] == named[recipe]
    said = re.fullmatch(r"(\d+) tokens, more than max_length=(\d+): raise it, .*", refused["reason"])
    processor = AutoProcessor.from_pretrained(datasets[recipe] / "model")
    set_pixel_budget(processor, 112 * 112, 112 * 112)
    images = [Image.new("RGB", (112, 112))]
    if recipe is visual_chat:
        *asked, answered = rows[3]["messages"]
        images, answer = [Image.new("RGB", size) for size in ((112, 84), (84, 112))], answered["content"][0]["text"]
    elif recipe is kvasir_vqa:
        kind = types_in(folder)[rows[3]["question"].strip()]
        asked, answer = kvasir_vqa.prompt(rows[3]["question"].strip(), kind), rows[3]["answer"]
    else:
        row = rows[3] | {"image_size": [112, 112]}
        asked, answer = nutrition_tables.prompt(), nutrition_tables.to_chat(row, Qwen2VLBoxes())["answer"]
    messages = [*asked, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]
    text = processor.apply_chat_template(messages, tokenize=False)
    tokens = processor(text=[text], images=images)["input_ids"][0]
    assert [int(number) for number in said.groups()] == [len(tokens), limit]


@pytest.mark.parametrize(
    ("file", "size", "corners"),
    written_and_real(
        "nutrition_tables/metadata.jsonl",
        ([1600, 1200], "(120,251),(890,751)"),
        ([2592, 1944], "(14,57),(991,603)"),
    ),
)
def test_a_photograph_s_row_gives_the_golden_row(tables, tmp_path, file, size, corners):
    row = json.loads(file.read_text().splitlines()[0])
    path = file.parent / row["file_name"]
    if not path.exists():
        path = tmp_path / row["file_name"]
        Image.new("RGB", size, "grey").save(path)
    row["image_size"] = inspect_picture({"path": str(path), "bytes": None})[0]
    assert row["image_size"] == [row["width"], row["height"]] == size
    chat = nutrition_tables.to_chat(row, Qwen2VLBoxes())
    golden = f"<|box_start|>{corners}<|box_end|>"
    assert chat["answer"] == f"<|object_ref_start|>nutrition-table<|object_ref_end|>{golden}"
    processor = AutoProcessor.from_pretrained(tables / "model")
    set_pixel_budget(processor, 256 * 28 * 28, 1280 * 28 * 28)
    batch = nutrition_tables.ChatCollator(processor)([{**chat, "images": [str(path)]}])
    trained = batch["labels"][0][batch["labels"][0] != -100]
    assert processor.tokenizer.decode(trained) == chat["answer"] + "<|im_end|>"
    assert 256 <= int(batch["image_grid_thw"].prod()) // 4 <= 1280


def test_vqa_rad_s_own_file_is_read_with_its_quirks():
    splits = vqa_rad.read(vqa_rad.Data(dataset_name=str(DATA / "vqa_rad")))
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 1797, "test": 451}
    rows = [vqa_rad.to_row({**row, "image_size": [1, 1]}, exemplar=False) for row in splits["test"]]
    closed = [row for row in rows if row["closed"]]
    assert len(closed) == 272 and sum(row["answer"].lower() in ("yes", "no") for row in closed) == 251
    assert sum(row["answer"].lower() == "yes" for row in rows) == 118
    in_train = set(splits["train"]["image_name"])
    assert len({row["image_id"] for row in rows} & in_train) == 202 and len({row["image_id"] for row in rows}) == 203


@pytest.mark.usefixtures("preflight_is_left_out")
def test_vqa_rad_trains_on_the_real_questions_and_ends_beside_the_majority(drawn_vqa_rad, tmp_path):
    rows = json.loads(next(drawn_vqa_rad.glob("*.json")).read_text())
    texts = [text for row in rows for text in (vqa_rad.prompt(str(row["question"])), str(row["answer"]))]
    write_blip2(tmp_path / "model", texts, image_size=32, width=32, layers=1, queries=4)
    learning = {"max_steps": 6, "per_device_train_batch_size": 32, "per_device_eval_batch_size": 100}
    model = {"model_name_or_path": str(tmp_path / "model")}
    ended = run(vqa_rad, drawn_vqa_rad, tmp_path / "run", model=model, learning_rate=1e-2, **learning)
    losses = [entry["loss"] for entry in ended["log"] if "loss" in entry]
    assert losses[-1] < losses[0]
    test = ended["results"]["test"]
    assert test["n"] == 451 and test["closed_accuracy_n"] == 272
    assert test["baseline_exact_match"] == pytest.approx(133 / 451)  # "no", the training majority


@pytest.mark.usefixtures("preflight_is_left_out")
def test_a_split_by_image_asks_about_no_image_of_training_and_the_exemplar_is_shown(scans, tmp_path):
    data = {"image_disjoint": True, "test_fraction": 0.25, "exemplar": True}
    ended = run(vqa_rad, scans, tmp_path, data=data, max_steps=1, per_device_train_batch_size=4)
    # Each picture has one question of the official training part (even qid) and one of the test part (odd).
    asked = sorted(int(row["id"]) for row in ended["predictions"])
    assert len(asked) == 4 and all(
        even % 2 == 0 and odd == even + 1 for even, odd in zip(asked[::2], asked[1::2], strict=True)
    )
    shown = vqa_rad.prompt("Why?", exemplar=True, domain="open")
    assert shown.endswith("A: No.\nGiven <img>. Q: Why? (open domain)\nA:") and shown.startswith("Instructions: ")


def test_kvasir_vqa_is_split_by_image_into_the_published_sizes(monkeypatch):
    """Of 6,500 images 4,550, 975 and 975, whatever the number of questions about each."""
    images = [f"image{i}" for i in range(6500) for _ in range(1 + i % 3)]
    texts = ["?"] * len(images)
    rows = Dataset.from_dict({"image": texts, "question": texts, "answer": texts, "img_id": images})
    monkeypatch.setattr(kvasir_vqa, "read_rows", lambda *arguments: Read({"raw": rows}, ""))
    parts = kvasir_vqa.read(kvasir_vqa.Data())
    of_part = {name: set(part["img_id"]) for name, part in parts.items()}
    assert {name: len(ids) for name, ids in of_part.items()} == {"train": 4550, "validation": 975, "test": 975}
    assert len(set.union(*of_part.values())) == 6500 and sum(map(len, parts.values())) == len(images)
    assert of_part == {name: set(part["img_id"]) for name, part in kvasir_vqa.read(kvasir_vqa.Data()).items()}
    assert of_part != {n: set(p["img_id"]) for n, p in kvasir_vqa.read(kvasir_vqa.Data(split_seed=1)).items()}


def test_kvasir_vqa_s_prompt_says_type_and_valid_answers_unless_told_not_to(learnt_by_heart, polyps):
    question = "What color is the abnormality? If more than one separate with ;"
    types = kvasir_vqa.QuestionTypes.load(learnt_by_heart(kvasir_vqa)["output"] / "question_types.json")
    row = {"question": question, "answer": " red; pink", "img_id": "a", "id": "a#7", "image_size": [9, 9]}
    typed, untyped = (kvasir_vqa.to_chat(row, types, typed_prompt=typed) for typed in (True, False))
    assert [message["role"] for message in typed["messages"]] == ["system", "user", "assistant"]
    asked = typed["messages"][1]["content"][1]["text"]
    assert asked == f"Question type: color\nQuestion: {question}\nValid answers: pink, red"
    assert untyped["messages"][1]["content"][1]["text"] == f"Question: {question}"
    assert typed["messages"][2] == untyped["messages"][2] and typed["answer"] == "red; pink" and typed["id"] == "a#7"
    with pytest.raises(kvasir_vqa.BadRow, match="placeholder"):
        kvasir_vqa.to_chat(row | {"question": "none", "answer": "nan"}, types, typed_prompt=True)


def test_kvasir_vqa_stands_free_beside_constrained_and_a_type_without_rows_is_n_0(learnt_by_heart):
    learnt = learnt_by_heart(kvasir_vqa)
    test = learnt["results"]["test"]
    assert test["free_accuracy"] == test["accuracy"] == 1 and test["constrained_gain"] == 0
    assert test["accuracy_open_ended_n"] == 0 and "accuracy_open_ended" not in test
    assert sum(test[f"accuracy_{kind}_n"] for kind in ("yes_no", "color", "size_numeric", "count_numeric")) == 5
    assert test["baseline_accuracy"] < 1
    assert {"free_prediction", "free_score", "question_type"} <= set(learnt["predictions"][0])


def test_an_untrained_kvasir_vqa_says_nothing_but_what_is_allowed(polyps, tmp_path):
    ended = run(kvasir_vqa, polyps, tmp_path, data={"test_fraction": 0.5, "max_new_tokens": 3}, do_train=False)
    types, free = types_in(polyps, test_fraction=0.5), 0
    for row in ended["predictions"]:
        kind = types[row["question"]]
        if kind.name != "open_ended":
            allowed = set(kind.choices) | ({str(i) for i in range(1000)} if kind.units else set())
            assert set(row["prediction"].split("; ")) <= allowed
            free += not set(row["free_prediction"].split("; ")) <= allowed
    assert free > 0
    gains = [row["score"] - row["free_score"] for row in ended["predictions"] if row["split"] == "test"]
    assert ended["results"]["test"]["constrained_gain"] == pytest.approx(sum(gains) / len(gains))


def test_ask_types_a_question_as_the_run_did(polyps, learnt_by_heart, capsys):
    from vlm_recipes.training.ask import main as ask

    ask([str(learnt_by_heart(kvasir_vqa)["output"]), str(polyps / "images" / "blue0.png"), "Is there text?"])
    assert capsys.readouterr().out.splitlines()[-1].endswith(("blue0.png: yes", "blue0.png: no"))


def test_a_question_whose_answers_have_the_same_tokens_is_left_free_and_named_and_the_run_goes_on(
    polyps, tmp_path, capsys
):
    hostile = tmp_path / "hostile"
    shutil.copytree(polyps, hostile)
    file = hostile / "metadata.jsonl"
    file.write_text(file.read_text().replace("pink; red", "pink\uff1b red", 4))  # which NFKC makes a semicolon
    changes = {"tokenizer.json": {"normalizer": {"type": "NFKC"}}}  # Qwen's own has NFC, and then it is no Qwen's
    changes["tokenizer_config.json"] = {"tokenizer_class": "TokenizersBackend"}
    for name, change in changes.items():
        file = hostile / "model" / name
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
    ended = run(
        kvasir_vqa, hostile, tmp_path / "out", data={"max_new_tokens": 3}, max_steps=1, predict_validation=True
    )
    said = capsys.readouterr().out
    assert "are left free: the answers 'pink' and 'pink\uff1b red' have the same tokens in a list" in said
    lines = {line["name"]: line for line in json.loads((tmp_path / "out" / "preflight.json").read_text())}
    colour = "What color is the abnormality? If more than one separate with ;"
    assert lines["constraints"]["status"] == "warn" and lines["constraints"]["numbers"]["free"] == 1
    assert lines["constraints"]["found"].startswith(
        "1 of 4 questions with a closed set of answers are answered freely"
    )
    assert lines["constraints"]["found"].endswith(f"in 8 rows: {colour!r}")
    types = kvasir_vqa.QuestionTypes.load(tmp_path / "out" / "question_types.json")
    kept = {True: 0, False: 0}
    for row in ended["predictions"]:
        kind = types[row["question"]]
        allowed = set(kind.choices) | ({str(i) for i in range(1000)} if kind.units else set())
        if row["question"] == colour:
            assert row["prediction"] == row["free_prediction"]
        else:
            assert row["prediction"] in allowed
        kept[row["question"] == colour] += 1
    assert kept[True] and kept[False]


def test_fractions_that_leave_nothing_to_train_on_are_one_line(polyps, tmp_path, monkeypatch):
    arguments = ["--dataset_name", str(polyps), "--model_name_or_path", str(polyps / "model"), "--use_cpu", "true"]
    arguments += ["--output_dir", str(tmp_path / "out"), "--test_fraction", "0.9"]
    line = fails("kvasir_vqa", *arguments, monkeypatch=monkeypatch)
    assert line == "error: validation_fraction and test_fraction leave no image to train on: their sum must be below 1"
