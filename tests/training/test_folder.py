"""A folder belongs to one run: another one is refused before a model is loaded, and so is a folder without room."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
from accelerate import PartialState

from demo.worlds.small import SIZES
from tests.support.left import quick_look
from tests.support.paths import ROOT
from tests.support.processes.launch import in_two_processes
from tests.support.running import fails
from tests.support.worlds import world
from vlm_recipes.training import export, run
from vlm_recipes.training.anew import BeginsAnew, remove_earlier
from vlm_recipes.training.checkpoints import newest_whole, weight_files
from vlm_recipes.training.folder import FolderError, claim_folder, clear, write_once
from vlm_recipes.training.held import let_go
from vlm_recipes.training.launch import RecipeParser, launch
from vlm_recipes.training.runs import RunError, kept_in, model_of, read_run

pytestmark = pytest.mark.usefixtures("figures_are_blank")
OTHER_PARTS = {
    "nutrition_tables": "--tune vision",
    "kvasir_vqa": "--use_peft false",
    "vqa_rad": "--use_peft false",
    "reasonseg": "--tune decoder",
    "ssg_vqa": "--train_gpt2 true",
    "visual_chat": "--use_peft false",
}


def start(recipe: str, *arguments: str, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", [recipe, *arguments])
    runpy.run_path(str(ROOT / "recipes" / f"{recipe}.py"), run_name="__main__")


def claim(recipe: str, *arguments: str) -> None:
    """Only what comes before the recipe's `main`."""
    module = import_module(f"recipes.{recipe}")
    parser = RecipeParser((module.Data, module.Training, module.Model))
    claim_folder(module.__file__, *parser.parse_args_and_config(list(arguments)))


def refused(recipe: str, *arguments: str) -> str:
    with pytest.raises(FolderError) as refusal:
        claim(recipe, *arguments)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_a_training_that_did_not_end_is_not_begun_anew_without_a_line(tmp_path, capsys):
    arguments = ["--output_dir", str(tmp_path), "--use_cpu", "true", "--bf16", "false"]
    claim("nutrition_tables", *arguments)
    assert "replaces it" not in capsys.readouterr().out
    (tmp_path / "checkpoint-7").mkdir()
    claim("nutrition_tables", *arguments)
    line = f"! {tmp_path} has checkpoints of a training that did not end: this run begins anew and replaces it; "
    assert line in capsys.readouterr().out


# --- an earlier run's model does not pass for that of one that was interrupted


class Killed(Exception):
    """Ends a run where SIGKILL would."""


def kill(*arguments, **settings):
    raise Killed


def killed(out: Path, *more: str, monkeypatch) -> list[str]:
    """Begin another training in the folder, with another rate, to be killed; returns how it was started."""
    again = [*quick_look("vqa_rad")[1], "--output_dir", str(out), "--learning_rate", "3e-3", *more]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        start("vqa_rad", *again, monkeypatch=patch)
    return again


def another_s(tmp_path: Path) -> Path:
    """The folder of a run that has ended, with a checkpoint of more steps than the next run gets to."""
    out = Path(shutil.copytree(quick_look("vqa_rad")[0], tmp_path / "out"))
    shutil.copytree(out / "checkpoint-1", out / "checkpoint-8")
    return out


def test_killed_after_a_checkpoint_a_run_has_that_one_and_nothing_of_the_run_before(tmp_path, monkeypatch, capsys):
    out = another_s(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(run, "save", kill)
        again = killed(out, monkeypatch=patch)
    checkpoint = out / "checkpoint-1"
    assert newest_whole(out)[0] == checkpoint and not (out / "checkpoint-8").exists()
    assert kept_in(checkpoint / "trainer_state.json")["settings"]["learning_rate"] == 3e-3
    assert weight_files(out) == [] and model_of(out, read_run(out)) == checkpoint
    capsys.readouterr()
    export.main([str(out), "--to", str(tmp_path / "to")])
    line = f"! {out}: the run has not finished, checkpoint-1 is the model that it has saved last"
    assert line in capsys.readouterr().out.splitlines() and not (tmp_path / "to" / "README.md").exists()
    evaluate = [*again, "--do_train", "false", "--output_dir", str(tmp_path / "evaluated"), "--model_name_or_path"]
    line = fails("vqa_rad", *evaluate, str(out), monkeypatch=monkeypatch)
    why = f"{out} holds no model of its run, which was interrupted: name {checkpoint}"
    assert line == f"error: --model_name_or_path {why}"
    claim("vqa_rad", *evaluate, str(checkpoint))
    start("vqa_rad", *again, "--resume_from_checkpoint", "true", "--max_steps", "2", monkeypatch=monkeypatch)
    assert model_of(out, read_run(out)) == out and newest_whole(out)[0] == out / "checkpoint-2"
    claim("vqa_rad", *evaluate, str(out))


def test_killed_before_its_first_checkpoint_a_run_has_no_model(tmp_path, monkeypatch):
    out = another_s(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(run.InterruptCallback, "on_step_end", kill)
        again = killed(out, monkeypatch=patch)
    with pytest.raises(RunError, match="run.json does not exist; the run was interrupted before it saved anything"):
        read_run(out)
    assert weight_files(out) == [] and newest_whole(out)[0] is None
    other = ["--do_train", "false", "--output_dir", str(tmp_path / "other"), "--model_name_or_path", str(out)]
    line = fails("vqa_rad", *again, *other, monkeypatch=monkeypatch)
    assert line == f"error: --model_name_or_path {out} holds no model, for its run was interrupted: launch it again"


def test_a_launch_that_is_refused_before_its_first_step_leaves_the_model_that_was_there(tmp_path, monkeypatch):
    out = another_s(tmp_path)
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    again = [*quick_look("vqa_rad")[1], "--output_dir", str(out)]
    fails("vqa_rad", *again, "--max_length", "3", monkeypatch=monkeypatch)
    start("vqa_rad", *again, "--max_steps", "0", monkeypatch=monkeypatch)
    there = {*weight_files(out), out / "run.json", *(out / "checkpoint-8").iterdir()}
    assert all(file.read_bytes() == before[file] for file in there)


def test_what_the_run_itself_reads_and_what_no_run_left_is_not_removed(tmp_path):
    out = another_s(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (out / "checkpoint-9").symlink_to(tmp_path / "elsewhere")
    (out / "checkpoint-best").mkdir()
    remove_earlier(out, [out / "checkpoint-8", Path("Qwen/Qwen2-VL-2B-Instruct")])
    left = {path.name for path in out.glob("checkpoint-*")}
    assert left == {"checkpoint-8", "checkpoint-best"} and (tmp_path / "elsewhere").is_dir()
    assert (out / "checkpoint-8" / "trainer_state.json").is_file() and (out / "preflight.json").is_file()
    base = Path(shutil.copytree(quick_look("vqa_rad")[0], tmp_path / "base"))
    remove_earlier(base, [base])
    assert weight_files(base) and not (base / "checkpoint-1").exists()
    world = Path(shutil.copytree(out.parent / "base", tmp_path / "world"))
    for sign in ("run.json", "trainer_state.json"):
        (world / sign).unlink(missing_ok=True)
    remove_earlier(world)
    assert weight_files(world)


def test_a_checkpoint_of_another_folder_replaces_too_what_is_in_this_one(tmp_path, capsys):
    out, arguments = quick_look("vqa_rad")
    again = [*arguments, "--output_dir", str(out), "--resume_from_checkpoint"]
    claim("vqa_rad", *again, str(tmp_path / "checkpoint-1"))
    line = f"! {out} has a trained model: this run begins anew and replaces it; "
    assert line in capsys.readouterr().out
    claim("vqa_rad", *again, str(out / "checkpoint-1"))
    assert "replaces it" not in capsys.readouterr().out


def begun(out: Path) -> bool:
    trainer = SimpleNamespace(args=SimpleNamespace(output_dir=str(out)), model=None)
    begins = BeginsAnew(trainer, None, SimpleNamespace(model_name_or_path="a/base"), {"asked.json": "é"})
    begins.on_train_begin(None, None, None)
    told = (out / "asked.json").read_text(encoding="utf-8")
    return weight_files(out) == [] == list(out.glob("checkpoint-*")) and told == "é"


def test_of_two_processes_neither_begins_before_the_earlier_run_s_things_are_gone(tmp_path):
    assert in_two_processes(begun, another_s(tmp_path)) == [True, True]


@pytest.mark.parametrize("recipe", SIZES)
class TestEveryRecipe:
    def test_the_same_run_again_and_another_rate_or_length_go_on(self, recipe, monkeypatch, capsys):
        out, arguments = quick_look(recipe)
        again = [*arguments, "--output_dir", str(out)]
        claim(recipe, *again)
        line = f"! {out} has a trained model: this run begins anew and replaces it; --resume_from_checkpoint true"
        assert line in capsys.readouterr().out
        claim(recipe, *again, "--learning_rate", "3e-3", "--max_steps", "7", "--max_train_rows", "5", "--seed", "4")
        capsys.readouterr()
        claim(recipe, *again, "--resume_from_checkpoint", "true")
        claim(recipe, *again, "--max_steps", "0")
        claim(recipe, *again, "--do_train", "false", "--model_name_or_path", str(out))
        assert "replaces it" not in capsys.readouterr().out
        monkeypatch.chdir(out.parent)
        claim(recipe, *again, "--dataset_name", "data", "--model_name_or_path", "model", "--output_dir", "out")

    def test_other_data_another_base_and_other_parts_are_refused_with_both_values(self, recipe, tmp_path):
        out, arguments = quick_look(recipe)
        again = [*arguments, "--output_dir", str(out)]
        advice = ": name another --output_dir, or clear it by --overwrite_output_dir true"
        line = refused(recipe, *again, "--dataset_name", "nowhere")
        data = f"dataset_name {out.parent}/data and not nowhere"
        assert line == f"--output_dir {out} is another run's ({data}){advice}"
        shutil.copytree(out.parent / "model", tmp_path / "model")
        line = refused(recipe, *again, "--model_name_or_path", str(tmp_path / "model"))
        assert f"(model_name_or_path {out.parent}/model and not {tmp_path}/model){advice}" in line
        flag, value = OTHER_PARTS[recipe].split()
        line = refused(recipe, *again, flag, value)
        assert f" and not {value.capitalize() if value in ('true', 'false') else value})" in line
        assert f"({flag.removeprefix('--')} " in line
        line = refused(recipe, *again, "--do_train", "false")  # of a model that the folder's run did not leave
        assert "(do_train True and not False)" in line

    def test_another_recipe_is_refused(self, recipe):
        out, _ = quick_look(recipe)
        other = "vqa_rad" if recipe != "vqa_rad" else "kvasir_vqa"
        line = refused(other, "--use_cpu", "true", "--output_dir", str(out))
        assert f"(recipe {recipe} and not {other})" in line

    def test_what_a_run_left_is_evaluated_in_its_own_folder_but_on_its_own_data(self, recipe):
        out, arguments = quick_look(recipe)
        evaluate = [*arguments, "--do_train", "false", "--output_dir", str(out), "--model_name_or_path"]
        claim(recipe, *evaluate, str(out))
        claim(recipe, *evaluate, str(out / "checkpoint-1"))
        assert "dataset_name" in refused(recipe, *evaluate, str(out), "--dataset_name", "nowhere")

    def test_overwriting_clears_what_a_run_leaves_and_nothing_else(self, recipe, tmp_path):
        out = Path(shutil.copytree(quick_look(recipe)[0], tmp_path / "out"))
        ours = ["notes.txt", "answers/a.png", "dataset/run.json", "figures/mine.svg", "untrained/model.safetensors"]
        ours += ["checkpoint-best/model.safetensors", "model.safetensors.bak", "runs/events.out.tfevents.1"]
        for name in ours:
            (out / name).parent.mkdir(exist_ok=True)
            (out / name).touch()
        (out / "broken-checkpoint-7").mkdir()
        (out / "checkpoint-8").symlink_to(out / "dataset")
        clear(out)
        assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == sorted(ours)


def test_a_recipe_s_file_refuses_before_it_reads_rows_or_a_model(tmp_path, monkeypatch):
    out, arguments = quick_look("vqa_rad")
    nowhere = ["--dataset_name", "nowhere", "--model_name_or_path", "nowhere", "--output_dir", str(out)]
    line = fails("vqa_rad", *arguments, *nowhere, monkeypatch=monkeypatch)
    assert line.startswith(f"error: --output_dir {out} is another run's (")


def test_started_twice_evaluated_in_its_folder_and_overwritten_a_recipe_runs_to_its_end(tmp_path, monkeypatch):
    source, arguments = quick_look("vqa_rad")
    out = Path(shutil.copytree(source, tmp_path / "out"))
    again = [*arguments, "--output_dir", str(out)]
    start("vqa_rad", *again, monkeypatch=monkeypatch)
    evaluate = ["--do_train", "false", "--model_name_or_path", str(out)]
    start("vqa_rad", *again, *evaluate, monkeypatch=monkeypatch)
    start("vqa_rad", *again, *evaluate, monkeypatch=monkeypatch)
    line = fails("vqa_rad", *again, "--image_disjoint", "true", monkeypatch=monkeypatch)
    assert "image_disjoint False and not True" in line
    disjoint = ["--image_disjoint", "true", "--overwrite_output_dir", "true", "--save_strategy", "no"]
    start("vqa_rad", *again, *disjoint, monkeypatch=monkeypatch)
    run = json.loads((out / "run.json").read_text())
    assert run["arguments"]["data"]["image_disjoint"] and not (out / "checkpoint-1").exists()
    # What was said of this folder is not said of the next one.
    (tmp_path / "next").mkdir()
    for name in ("run.json", "README.md"):
        shutil.copy(out / name, tmp_path / "next" / name)
    claim("vqa_rad", "--config", str(out / "run.json"), "--output_dir", str(tmp_path / "next"))
    assert (tmp_path / "next" / "README.md").exists()


def test_overwriting_does_not_clear_what_the_run_itself_needs():
    out, arguments = quick_look("vqa_rad")
    clear_it = [*arguments, "--output_dir", str(out), "--overwrite_output_dir", "true"]
    there = sorted(out.rglob("*"))
    line = refused("vqa_rad", *clear_it, "--resume_from_checkpoint", "true")
    assert line.endswith("clears what --resume_from_checkpoint goes on from: leave one of them out")
    for name in (out, out / "checkpoint-1"):
        line = refused("vqa_rad", *clear_it, "--model_name_or_path", str(name))
        assert line == f"--overwrite_output_dir clears --model_name_or_path {name}: name another --output_dir"
    assert sorted(out.rglob("*")) == there


def test_nothing_is_cleared_where_no_run_was(tmp_path):
    for name in ("model.safetensors", "config.json", "README.md"):
        (tmp_path / name).touch()
    clear(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("record", ["{", "[]", '{"recipe": "vqa_rad", "arguments": {}}'])
def test_a_record_that_cannot_be_read_is_one_line(record, tmp_path):
    (tmp_path / "run.json").write_text(record)
    line = refused("vqa_rad", "--use_cpu", "true", "--output_dir", str(tmp_path))
    assert line.startswith(f"--output_dir {tmp_path} is a run's whose record cannot be read (")


# --- where nothing can be written


@pytest.mark.parametrize("recipe", SIZES)
def test_a_file_in_the_folder_s_place_is_one_line(recipe, tmp_path, monkeypatch):
    (tmp_path / "out").touch()
    nowhere = ["--dataset_name", "nowhere", "--model_name_or_path", "nowhere", "--use_cpu", "true"]
    line = fails(recipe, *nowhere, "--output_dir", str(tmp_path / "out"), monkeypatch=monkeypatch)
    assert line == f"error: --output_dir {tmp_path}/out is a file: name a folder"
    line = fails(recipe, *nowhere, "--output_dir", str(tmp_path / "out" / "in"), monkeypatch=monkeypatch)
    assert line == f"error: cannot write to {tmp_path}/out/in (Not a directory): name another --output_dir"


@pytest.mark.parametrize("recipe", SIZES)
def test_a_disk_that_is_full_is_one_line(recipe, disk, monkeypatch):
    folder = disk(200)
    nowhere = ["--dataset_name", "nowhere", "--model_name_or_path", "nowhere", "--use_cpu", "true"]
    line = fails(recipe, *nowhere, "--output_dir", str(folder / "out"), monkeypatch=monkeypatch)
    assert line.startswith(f"error: the disk is full, cannot write to {folder}/out: make room")
    assert list((folder / "out").iterdir()) == []


@pytest.mark.parametrize("recipe", SIZES)
def test_a_disk_that_can_only_be_read_is_one_line(recipe, disk, monkeypatch):
    folder = disk(200, "ro")
    nowhere = ["--dataset_name", "nowhere", "--model_name_or_path", "nowhere", "--use_cpu", "true"]
    for out in (folder, folder / "out"):
        line = fails(recipe, *nowhere, "--output_dir", str(out), monkeypatch=monkeypatch)
        assert line == f"error: cannot write to {out} (Read-only file system): name another --output_dir"


# --- several processes


def claimed(out: Path, *arguments: str) -> str | None:
    try:
        claim("vqa_rad", "--use_cpu", "true", "--output_dir", str(out), *arguments)
    except FolderError as error:
        return str(error)


def test_of_several_processes_the_first_looks_and_all_refuse(tmp_path):
    assert in_two_processes(claimed, tmp_path / "out") == [None, None]
    (tmp_path / "out" / "run.json").write_text("{")
    first, second = in_two_processes(claimed, tmp_path / "out")
    assert first == second and "cannot be read" in first
    assert in_two_processes(claimed, tmp_path / "out", "--overwrite_output_dir", "true") == [None, None]
    assert list((tmp_path / "out").iterdir()) == []


def test_a_main_without_a_training_has_no_folder(monkeypatch):
    monkeypatch.setattr("sys.argv", ["mine.py"])
    launch(lambda: None)


def load(path: str) -> str:
    """Of somebody's own script: no recipe's."""
    raise AssertionError(path)


def test_a_script_s_own_load_is_no_recipe_s(tmp_path, monkeypatch):
    recipe, ran = import_module("recipes.visual_chat"), []
    monkeypatch.setattr("sys.argv", ["mine.py", *world("visual_chat"), "--output_dir", str(tmp_path), "--use_cpu"])
    launch(lambda *parsed: ran.append(parsed), recipe.Data, recipe.Training, recipe.Model)
    assert len(ran) == 1


# --- one writer


def write_own(folder: Path) -> None:
    write_once(folder / f"{PartialState().process_index}.json", "é")
    PartialState().wait_for_everyone()


def test_of_two_processes_one_writes(tmp_path):
    in_two_processes(write_own, tmp_path)
    assert [(file.name, file.read_text(encoding="utf-8")) for file in tmp_path.iterdir()] == [("0.json", "é")]


def test_a_run_that_is_killed_while_it_writes_a_file_leaves_that_of_before(tmp_path, monkeypatch):
    file = tmp_path / "types.json"
    write_once(file, "of before")

    def killed(unfinished, path):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_once(file, "new")
    assert file.read_text() == "of before"


@pytest.mark.parametrize("recipe", ["nutrition_tables", "kvasir_vqa"])
def test_a_look_at_a_finished_run_s_folder_leaves_how_its_model_is_asked(recipe, tmp_path, monkeypatch):
    """`vlm-ask` would put the new question to the model that was trained on the old one."""
    out = Path(shutil.copytree(quick_look(recipe)[0], tmp_path / "out"))
    file = out / {"nutrition_tables": "prompt.json", "kvasir_vqa": "question_types.json"}[recipe]
    file.write_text(before := f"{file.read_text()}\n")
    other = {"nutrition_tables": ["--prompt", "Find the red logo."]}.get(recipe, [])
    again = [*quick_look(recipe)[1], "--output_dir", str(out), *other]
    start(recipe, *again, "--max_steps", "0", monkeypatch=monkeypatch)
    assert file.read_text() == before
    start(recipe, *again, monkeypatch=monkeypatch)
    assert file.read_text() != before and ("logo" in file.read_text()) == bool(other)


def test_a_copy_without_times_of_a_run_that_went_on_and_was_killed_has_the_newest_checkpoint(tmp_path):
    """`cp -r` keeps no times; the folder's own weights are of before it went on."""
    out = another_s(tmp_path)
    state = json.loads((out / "trainer_state.json").read_text())
    record = json.loads((out / "run.json").read_text()) | {"finished": False}
    (out / "run.json").write_text(json.dumps(record))
    for file in weight_files(out):
        os.utime(file)
    assert state["global_step"] == 1 and model_of(out, record) == out / "checkpoint-8"
    (out / "trainer_state.json").write_text(json.dumps(state | {"global_step": 8}))
    for file in weight_files(out / "checkpoint-8"):
        os.utime(file)
    assert model_of(out, record) == out
    (out / "trainer_state.json").unlink()  # then times tell
    assert model_of(out, record) == out / "checkpoint-8"


def test_a_folder_in_which_another_launch_is_at_work_is_refused_and_free_when_that_is_gone(tmp_path):
    """Also where it was killed, and its workers live on: forked ones do not hold the folder."""
    script = "import os, sys, time; from pathlib import Path; from vlm_recipes.training.held import hold\n"
    script += "assert hold(Path(sys.argv[1]))\nif not os.fork():\n  time.sleep(60)\n"
    script += "print('held', flush=True)\ntime.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        training = import_module("recipes.vqa_rad").Training(str(tmp_path), use_cpu=True, bf16=False)
        with pytest.raises(FolderError, match=f"^another launch is at work in --output_dir {tmp_path}: wait"):
            claim_folder("vqa_rad.py", training)
    finally:
        other.kill()
        other.wait()
    claim_folder("vqa_rad.py", training)
    let_go()
