"""`vlm-ask` asks what a run left, as it was trained, refuses what cannot be, and runs no recipe but the run's own."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import TrainerState

from recipes import nutrition_tables, reasonseg, vqa_rad
from tests.support.paths import DATA, ROOT
from tests.support.worlds import world
from vlm_recipes.rows.formats.vqa_rad import domain_of
from vlm_recipes.training import ask, runs

TRAP = "raise SystemExit('this code was run')\n"


def left_by(recipe: object, folder: Path) -> Path:
    """A run, as far as its record says."""
    folder.mkdir(parents=True, exist_ok=True)
    data, model = nutrition_tables.Data(dataset_name="", max_new_tokens=12), nutrition_tables.Model(dtype="float32")
    arguments = {"data": asdict(data), "model": asdict(model)}
    (folder / "run.json").write_text(json.dumps({"recipe": recipe, "arguments": arguments}))
    return folder


@pytest.fixture
def picture(tmp_path) -> Path:
    Image.new("RGB", (112, 84), "white").save(tmp_path / "photograph.png")
    return tmp_path / "photograph.png"


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as ended:
        ask.main([str(argument) for argument in arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_a_copied_recipe_in_another_folder_answers_when_it_is_named(tmp_path, picture, capsys):
    world("nutrition_tables", tmp_path / "world")
    output = (tmp_path / "world" / "model").rename(tmp_path / "output")
    copied = tmp_path / "elsewhere" / "my_tables.py"
    copied.parent.mkdir()
    text = (ROOT / "recipes" / "nutrition_tables.py").read_text()
    copied.write_text(
        text.replace("\n\nSYSTEM =", "\n\nfrom my_words import WORDS as QUESTION\n\nSYSTEM =", 1).replace(
            '\nQUESTION = "', '\nOTHER = "'
        )
    )
    (copied.parent / "my_words.py").write_text("WORDS = 'Detect the bounding box of my table.'\n")
    left_by("my_tables", output)
    line = refused(capsys, output, picture)
    assert line.endswith(
        f"this run's recipe is 'my_tables', and {ROOT / 'recipes'} has none of that name: --recipe FILE"
    )
    ask.main([str(output), str(picture), "--recipe", str(copied)])
    assert capsys.readouterr().out.splitlines()[-2].startswith(f"{picture}: ")
    assert Image.open(output / "answers" / "photograph.png").size == (112, 84)


@pytest.mark.parametrize("named", ["{folder}/trap", "{folder}/trap.py", "../trap", "trap", "json", ["trap"], None])
def test_a_record_that_names_a_path_or_no_recipe_of_the_clone_runs_nothing(
    named, tmp_path, picture, capsys, monkeypatch
):
    for folder in (tmp_path, tmp_path / "output"):
        folder.mkdir(exist_ok=True)
        (folder / "trap.py").write_text(TRAP)
    monkeypatch.chdir(tmp_path / "output")
    named = named.format(folder=tmp_path) if isinstance(named, str) else named
    line = refused(capsys, left_by(named, tmp_path / "output"), picture)
    assert repr(named) in line and line.endswith("--recipe FILE")


def test_a_path_to_a_recipe_of_the_clone_is_no_name_of_one(tmp_path, picture, capsys):
    named = str(ROOT / "recipes" / "nutrition_tables")
    assert repr(named) in refused(capsys, left_by(named, tmp_path / "output"), picture)


def test_where_no_clone_is_the_recipe_has_to_be_named(tmp_path, picture, capsys, monkeypatch):
    monkeypatch.setattr(runs, "RECIPES", tmp_path / "site-packages" / "vlm_recipes" / "recipes")
    line = refused(capsys, left_by("nutrition_tables", tmp_path / "output"), picture)
    assert "'nutrition_tables'" in line and line.endswith("--recipe FILE")
    assert refused(capsys, tmp_path / "output", picture, "--recipe", tmp_path / "none.py").endswith(
        f"no file {tmp_path / 'none.py'}"
    )


# --- what a run left


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    world("nutrition_tables", folder)
    return folder / "model"


@pytest.fixture
def output(model, tmp_path) -> Path:
    """A run that was trained to its end."""
    return left_by("nutrition_tables", Path(shutil.copytree(model, tmp_path / "output")))


def record(folder: Path, **changes) -> None:
    run = json.loads((folder / "run.json").read_text())
    run["arguments"] |= changes.pop("arguments", {})
    (folder / "run.json").write_text(json.dumps(run | changes))


def checkpoint(model: Path, folder: Path, *lacks: str) -> None:
    """A whole checkpoint, but for the files that it lacks."""
    shutil.copytree(model, folder)
    TrainerState().save_to_json(str(folder / "trainer_state.json"))
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({}, folder / name)
    for name in lacks:
        (folder / name).unlink()


def ends(capsys, *arguments) -> str:
    """What it prints before it ends with the exit status 1 and one line."""
    with pytest.raises(SystemExit, match="^error: .+$") as ended:
        ask.main([str(argument) for argument in arguments])
    assert "\n" not in ended.value.code
    return capsys.readouterr().out + ended.value.code


def test_an_interrupted_run_answers_with_its_newest_whole_checkpoint(model, tmp_path, picture, capsys):
    output = left_by("nutrition_tables", tmp_path / "output")
    record(output, finished=False)
    checkpoint(model, output / "checkpoint-2")
    checkpoint(model, output / "checkpoint-4")
    checkpoint(model, output / "checkpoint-6", "trainer_state.json")
    ask.main([str(output), str(picture)])
    lines = capsys.readouterr().out.splitlines()
    assert f"the run in {output} was interrupted: answering with checkpoint-4" in lines
    assert any(line.startswith(f"{picture}: ") for line in lines)
    assert Image.open(output / "answers" / "photograph.png").size == (112, 84)


@pytest.mark.parametrize("later", ["checkpoint", "weights"])
def test_weights_of_an_earlier_run_do_not_answer_for_one_that_was_interrupted(later, output, model):
    """But those that were saved after the last checkpoint do: it was interrupted while it was evaluated."""
    checkpoint(model, output / "checkpoint-2")
    older = {"checkpoint": output, "weights": output / "checkpoint-2"}[later]
    os.utime(older / "model.safetensors", (0, 0))
    record(output, finished=False)
    run = runs.read_run(output)
    assert ask.model_of(output, run) == {"checkpoint": output / "checkpoint-2", "weights": output}[later]
    assert ask.model_of(output, run | {"finished": True}) == output


def test_a_run_without_a_model_says_why_and_what_to_do(model, tmp_path, picture, capsys):
    output = left_by("nutrition_tables", tmp_path / "output")
    assert refused(capsys, output, picture).endswith(
        f"{output} holds no model, for the run was interrupted (no checkpoint was saved): "
        "let it go on to its end with --resume_from_checkpoint true"
    )
    checkpoint(model, output / "checkpoint-2", "optimizer.pt")
    assert "(checkpoint-2 is broken (no optimizer)): let it" in refused(capsys, output, picture)
    checkpoint(model, output / "checkpoint-4", "model.safetensors")
    (output / "checkpoint-4" / "pytorch_model_fsdp_0").mkdir()
    assert "(checkpoint-4 is sharded): let it" in refused(capsys, output, picture)
    shutil.rmtree(output / "checkpoint-4")
    shutil.rmtree(output / "checkpoint-2")
    record(output, arguments={"training": {"do_train": False}, "model": {"model_name_or_path": "outputs/first"}})
    assert refused(capsys, output, picture).endswith(
        f"{output} holds no model, for its run only evaluated 'outputs/first': name a run that trained"
    )


def test_a_run_that_was_interrupted_before_it_left_a_record_says_so(tmp_path, picture, capsys):
    (tmp_path / "output" / "checkpoint-2").mkdir(parents=True)
    assert refused(capsys, tmp_path / "output", picture).endswith(
        "the run was interrupted before its first evaluation, let it go on: --resume_from_checkpoint true"
    )


def test_an_adapter_whose_base_was_moved_is_one_line(output, picture, capsys):
    (output / "model.safetensors").rename(output / "adapter_model.safetensors")
    adapter = {"peft_type": "LORA", "base_model_name_or_path": "/moved/base", "target_modules": ["q_proj"]}
    (output / "adapter_config.json").write_text(json.dumps(adapter))
    assert "an adapter to '/moved/base': there is no such folder" in ends(capsys, output, picture)


@pytest.mark.parametrize(
    "cut",
    ["", "{", '{"recipe": "nutrition_tables"}', '{"recipe": "nutrition_tables", "arguments": null}']
    + ['{"recipe": "nutrition_tables", "arguments": {"data": {}}}']
    + ['{"recipe": "nutrition_tables", "arguments": {"data": [], "model": {}}}'],
)
def test_a_record_that_was_cut_is_one_line(cut, output, picture, capsys):
    (output / "run.json").write_text(cut)
    assert str(output / "run.json") in refused(capsys, output, picture)


def test_a_file_of_its_questions_that_was_cut_is_one_line(output, picture, capsys):
    (output / "prompt.json").write_text('["You find')
    assert "does not say whole how its model was asked" in refused(capsys, output, picture)


# --- pictures


def test_a_picture_that_training_would_refuse_is_named_and_the_others_are_answered(output, tmp_path, capsys):
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    Image.new("I;16", (64, 64), 40_000).save(folder / "deep.png")
    Image.new("RGB", (804, 2), "white").save(folder / "sliver.png")
    (folder / "empty.jpg").touch()
    (folder / "metadata.jsonl").write_text("{}")
    reasons = {
        "deep.png": "image of mode I;16, deeper than 8 bits: convert it, so that you choose what is white",
        "sliver.png": "image of 804×2 pixels is more than 200 times longer than wide",
        "empty.jpg": "image cannot be read: not an image",
        "metadata.jsonl": "image cannot be read: not an image",
    }
    said = ends(capsys, output, folder)
    assert said.endswith(f"error: nothing was answered: {folder} has no picture that can be used")
    assert {f"{folder / name}: not asked ({reason})" for name, reason in reasons.items()} <= set(said.splitlines())
    for name in ("photograph.png", "photograph.jpg"):
        Image.new("RGB", (112, 84), "white").save(folder / name)
    ask.main([str(output), str(folder)])
    lines = capsys.readouterr().out.splitlines()
    assert {f"{folder / name}: not asked ({reason})" for name, reason in reasons.items()} <= set(lines)
    drawn = {output / "answers" / f"{name}.png" for name in ("photograph.png", "photograph.jpg")}
    assert {f"drawn on {file}" for file in drawn} <= set(lines) and set((output / "answers").iterdir()) == drawn


@pytest.mark.parametrize("named", ["pictures", "pictures/none.png"])
def test_where_there_is_no_picture_nothing_is_answered(named, output, tmp_path, capsys):
    (tmp_path / "pictures").mkdir()
    line = ends(capsys, output, tmp_path / named).splitlines()[-1]
    assert line == f"error: nothing was answered: {tmp_path / named} has no picture that can be used"


@pytest.mark.parametrize("background", ["white", "black"])
def test_a_transparent_picture_is_asked_about_and_drawn_on_the_background_of_the_run(background, output, tmp_path):
    data = json.loads((output / "run.json").read_text())["arguments"]["data"]
    record(output, arguments={"data": data | {"background": background}})
    Image.new("RGBA", (112, 84), (255, 0, 0, 0)).save(tmp_path / "nothing.png")
    ask.main([str(output), str(tmp_path / "nothing.png")])
    drawn = Image.open(output / "answers" / "nothing.png")
    assert drawn.getpixel((56, 2)) == drawn.getpixel((2, 42)) == Image.new("RGB", (1, 1), background).getpixel((0, 0))


# --- the prompt


def test_vqa_rad_is_asked_in_the_words_that_it_was_trained_with():
    questions = vqa_rad.read(vqa_rad.Data(dataset_name=str(DATA / "vqa_rad")))
    rows = [row | {"image_size": [1, 1]} for part in questions.values() for row in part]
    for exemplar in (True, False):
        data, same = vqa_rad.Data(exemplar=exemplar), 0
        for row in rows:
            trained = vqa_rad.to_row(row, exemplar)
            asked = vqa_rad.to_question(data, Path(), trained["question"])["prompt"]
            same += asked == trained["prompt"]
            if exemplar:  # where the dataset does not say what is closed, as the Hub's, nor does its answer
                unsaid = vqa_rad.to_row({**row, "answer_type": None}, exemplar)
                assert unsaid["prompt"] == asked and asked.split("Q: ")[2].endswith(" domain)\nA:")
        assert (same, len(rows)) == (2217 if exemplar else 2248, 2248)
    assert domain_of("Is this an X-ray?") == "closed" and domain_of("What is shown?") == domain_of("") == "open"


def test_reasonseg_is_asked_for_a_thing_as_in_evaluation():
    for asked, is_sentence in {"the red thing": False, "What keeps food cold?": True, "Find the lens.": True}.items():
        messages = reasonseg.to_question(reasonseg.Data(), Path(), asked)["messages"]
        assert messages == reasonseg.prompt(asked, is_sentence)
