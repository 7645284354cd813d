"""A run that was killed, interrupted or out of disk goes on as if it had never stopped.

The slow tests took 18 minutes for five of the recipes, and 2 to 4 for each launcher, on two cores shared with others.
"""

import logging
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments

from demo.worlds.small import SIZES
from tests.support.processes.recipe_run import LaunchedRun, RecipeRun
from tests.support.processes.toy import Toy, toy_rows
from tests.support.worlds import world
from vlm_recipes.callbacks import GradNormCallback
from vlm_recipes.callbacks.resume import ResumeCallback
from vlm_recipes.training.checkpoints import (
    FullDiskError,
    ResumeError,
    checkpoint_to_resume,
    fault_of,
    full_disk_in_one_line,
    newest_whole,
)
from vlm_recipes.training.launch import launch


def toy_trainer(folder: Path, *more: TrainerCallback, model: torch.nn.Module | None = None, **settings) -> Trainer:
    """Two steps an epoch, shuffled; saves at each step."""
    arguments = {"per_device_train_batch_size": 4, "max_steps": 5, "logging_steps": 1, "save_steps": 1}
    arguments |= {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "max_grad_norm": 1.5, **settings}
    args, rows = TrainingArguments(str(folder), **arguments), toy_rows()
    trainer = Trainer(model or Toy(), args, train_dataset=rows, eval_dataset=rows[:1])
    for callback in (*more, GradNormCallback(trainer), ResumeCallback(trainer)):
        trainer.add_callback(callback)
    return trainer


def log_of(trainer: Trainer) -> list[dict]:
    times = ("_runtime", "_per_second", "train_loss", "total_flos")
    log = [
        {key: value for key, value in entry.items() if not key.endswith(times)} for entry in trainer.state.log_history
    ]
    return [entry for entry in log if entry.keys() - {"epoch", "step"}]


# --- which checkpoint


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A whole checkpoint."""
    folder = tmp_path_factory.mktemp("saved")
    toy_trainer(folder, max_steps=1).train()
    return folder / "checkpoint-1"


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def from_processes(checkpoint: Path, *ranks: int) -> None:
    """What these of several processes leave, beside what the first one does."""
    state = (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state")
    for rank in ranks:
        shutil.copy(state, checkpoint / f"rng_state_{rank}.pth")


def deepspeed(checkpoint: Path, *ranks: int) -> None:
    """ZeRO's states of these ranks, of two."""
    from_processes(checkpoint, 0, 1)
    for name in ("optimizer.pt", "scheduler.pt", "model.safetensors"):
        (checkpoint / name).unlink()
    (checkpoint / "latest").write_text("global_step1")
    (checkpoint / "global_step1").mkdir()
    for rank in ranks:
        (checkpoint / "global_step1" / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").touch()


def model_alone(checkpoint: Path) -> None:
    """As `--save_only_model true` leaves one."""
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (checkpoint / name).unlink()


BREAKAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "killed before its last file": (lambda c: (c / "trainer_state.json").unlink(), "no trainer_state.json"),
    "killed in its last file": (lambda c: cut(c / "trainer_state.json"), "JSONDecodeError: .*"),
    "an empty last file": (lambda c: (c / "trainer_state.json").write_text(""), "JSONDecodeError: .*"),
    "another program's state": (lambda c: (c / "trainer_state.json").write_text('{"a": 1}'), "TypeError: .*"),
    "no weights": (lambda c: (c / "model.safetensors").unlink(), "no weights"),
    "no optimizer": (lambda c: (c / "optimizer.pt").unlink(), "no optimizer"),
    "the model alone, as asked": (lambda c: model_alone(c), "it holds the model alone, --save_only_model true"),
    "no scheduler": (lambda c: (c / "scheduler.pt").unlink(), "no scheduler.pt"),
    "no random state": (lambda c: (c / "rng_state.pth").unlink(), "no rng_state"),
    "the second of two processes killed": (lambda c: from_processes(c, 0), "no rng_state_1.pth"),
    "the first of two processes killed": (lambda c: from_processes(c, 1), "no rng_state_0.pth"),
    "one of three processes killed": (lambda c: from_processes(c, 0, 2), "no rng_state_1.pth"),
    "DeepSpeed's states copied in part": (deepspeed, "0 of 2 processes' states in 'global_step1'"),
    "DeepSpeed's second rank killed": (lambda c: deepspeed(c, 0), "1 of 2 processes' states in 'global_step1'"),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_checkpoint_that_was_not_written_to_its_end_is_told_from_a_whole_one(breakage, saved, tmp_path):
    checkpoint = Path(shutil.copytree(saved, tmp_path / "checkpoint-1"))
    assert fault_of(checkpoint) is None
    break_it, fault = BREAKAGES[breakage]
    break_it(checkpoint)
    assert re.fullmatch(fault, fault_of(checkpoint), re.DOTALL)


@pytest.mark.parametrize("several", [lambda c: from_processes(c, 0, 1, 2), lambda c: deepspeed(c, 0, 1)])
def test_a_checkpoint_that_several_processes_wrote_to_its_end_is_whole(several, saved, tmp_path):
    checkpoint = Path(shutil.copytree(saved, tmp_path / "checkpoint-1"))
    several(checkpoint)
    assert fault_of(checkpoint) is None


def test_a_checkpoint_that_holds_the_model_alone_is_no_broken_one_to_begin_anew_beside(saved, tmp_path):
    """Its run may have ended: what it trained would be gone with the first step."""
    toy_trainer(tmp_path, max_steps=1, save_only_model=True).train()
    line = f"^cannot go on from {tmp_path}/checkpoint-1: it holds the model alone, --save_only_model true; train it on"
    for wanted in ("true", str(tmp_path / "checkpoint-1")):
        with pytest.raises(ResumeError, match=line if wanted == "true" else "which is broken .it holds the model"):
            checkpoint_to_resume(tmp_path, wanted)
    assert (tmp_path / "checkpoint-1").is_dir()
    shutil.copytree(saved, tmp_path / "checkpoint-2")  # of a launch without the setting
    assert checkpoint_to_resume(tmp_path, "true") == str(tmp_path / "checkpoint-2")


@pytest.mark.parametrize("there", [True, False])
def test_the_best_checkpoint_of_a_folder_that_was_moved_is_found_again_or_told_of(there, tmp_path, capsys):
    trainer = toy_trainer(
        tmp_path, max_steps=6, load_best_model_at_end=True, eval_strategy="steps", save_strategy="steps"
    )
    state = TrainerState(global_step=4, best_global_step=2, best_metric=0.5, is_world_process_zero=True)
    if there:
        (tmp_path / "checkpoint-2").mkdir()
        state.best_model_checkpoint = "/before/it/was/copied/checkpoint-2"
    ResumeCallback(trainer)._find_best(trainer.args, state)
    said = "! the best checkpoint, checkpoint-2, is gone: the best from here on is kept\n"
    assert capsys.readouterr().out == ("" if there else said)
    best = (state.best_model_checkpoint, state.best_global_step, state.best_metric)
    assert best == ((str(tmp_path / "checkpoint-2"), 2, 0.5) if there else (None, None, None))


def test_true_takes_the_newest_whole_checkpoint_and_names_the_broken_ones(saved, tmp_path, capsys):
    for name in ("checkpoint-9", "checkpoint-20", "checkpoint-100", "checkpoint-200", "checkpoint-best", "300-copy"):
        shutil.copytree(saved, tmp_path / name)
    (tmp_path / "checkpoint-100" / "trainer_state.json").unlink()
    (tmp_path / "checkpoint-200" / "model.safetensors").unlink()
    for wanted in (True, "true", "True"):
        assert checkpoint_to_resume(tmp_path, wanted) == str(tmp_path / "checkpoint-20")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines[:2]] == [f"ignoring {tmp_path}/checkpoint-{i}" for i in (200, 100)]
    assert lines[2:] == [f"going on from {tmp_path}/checkpoint-20"] * 3  # named once, then out of the Trainer's way
    assert (tmp_path / "broken-checkpoint-200" / "optimizer.pt").is_file()  # nothing is deleted
    assert checkpoint_to_resume(tmp_path, None) is checkpoint_to_resume(tmp_path, "false") is None


def test_without_a_whole_checkpoint_true_starts_from_the_beginning_and_says_so(saved, tmp_path, capsys):
    assert checkpoint_to_resume(tmp_path / "none", "true") is None
    shutil.copytree(saved, tmp_path / "checkpoint-1")
    (tmp_path / "checkpoint-1" / "rng_state.pth").unlink()
    assert checkpoint_to_resume(tmp_path, "true") is None
    first, named, second = capsys.readouterr().out.splitlines()
    assert first == f"no whole checkpoint in {tmp_path}/none: starting from the beginning" and "no rng_state" in named
    assert second == f"no whole checkpoint in {tmp_path}: starting from the beginning"


def test_a_named_checkpoint_that_is_missing_or_broken_ends_the_run_in_one_line(saved, tmp_path, monkeypatch):
    broken = Path(shutil.copytree(saved, tmp_path / "checkpoint-1"))
    assert checkpoint_to_resume("elsewhere", str(broken)) == str(broken)
    (broken / "optimizer.pt").unlink()
    monkeypatch.setattr("sys.argv", ["recipe.py"])
    for folder, reason in ((broken, "broken (no optimizer)"), (tmp_path / "none", "there is no such folder")):
        with pytest.raises(SystemExit) as stopped:
            launch(lambda folder=folder: checkpoint_to_resume(tmp_path, str(folder)))
        assert stopped.value.code.startswith(f"error: cannot go on from {folder}") and reason in stopped.value.code
    assert broken.is_dir()
    with pytest.raises(ResumeError):
        checkpoint_to_resume(tmp_path, "tru")


# --- what a run needs beside its weights


def test_logs_and_counts_go_on_also_where_saves_and_logs_do_not_coincide(tmp_path):
    settings = {"max_steps": 9, "logging_steps": 4, "save_steps": 3}
    whole = toy_trainer(tmp_path, **settings)
    whole.train()
    assert 0 < [log["grad_norm/clipped_share"] for log in log_of(whole) if "grad_norm/clipped_share" in log][-1] < 1
    for step in (3, 6):
        resumed = toy_trainer(tmp_path, **settings)
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert log_of(resumed) == log_of(whole)
        assert [entry["step"] for entry in log_of(resumed) if "loss" in entry] == [3, 4, 6, 8, 9]


def test_a_quiet_group_is_warned_of_at_the_same_step(tmp_path, caplog):
    for checkpoint in (None, str(tmp_path / "checkpoint-2")):
        with caplog.at_level(logging.WARNING, "vlm_recipes.callbacks.grad_norm"):
            resumed = toy_trainer(tmp_path, max_steps=4)
            resumed.callback_handler.callbacks[-2].patterns = {"spare": re.compile("spare"), "other": re.compile("")}
            resumed.train(resume_from_checkpoint=checkpoint)
        assert [message for message in caplog.messages if "'spare'" in message] != []
        caplog.clear()


class Constant(TrainerCallback):
    def on_evaluate(self, args, state, control, metrics, **kwargs):
        metrics["eval_score"] = 1.0


def test_patience_goes_on_and_a_run_without_any_left_takes_no_further_step(tmp_path):
    def trainer() -> Trainer:
        watched = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "eval_score"}
        return toy_trainer(tmp_path, Constant(), EarlyStoppingCallback(3), max_steps=9, **watched)

    whole = trainer()
    whole.train()
    assert whole.state.global_step == 4  # the first score is the best
    for step in (1, 3, 4):
        resumed = trainer()
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert log_of(resumed) == log_of(whole)


@pytest.mark.parametrize("steps", [4, 5])  # at the end of an epoch, and within one
def test_a_run_that_was_killed_after_its_last_step_takes_no_further_one(steps, tmp_path):
    whole = toy_trainer(tmp_path, max_steps=steps)
    whole.train()
    resumed = toy_trainer(tmp_path, max_steps=steps)
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{steps}"))
    assert resumed.state.global_step == steps and log_of(resumed) == log_of(whole)
    assert "get_batch_samples" not in vars(resumed)  # the Trainer's own again
    for one, other in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, other)


# --- a full disk


class Large(Toy):
    def __init__(self):
        super().__init__()
        self.language_model = torch.nn.Sequential(torch.nn.Linear(6, 16000), torch.nn.Linear(16000, 1))


@pytest.mark.parametrize("kilobytes", [1900, 2400, 3100], ids=["in the weights", "in the optimizer", "at the third"])
def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint_whole(kilobytes, disk, tmp_path, monkeypatch):
    """A checkpoint has about 1.5 MB: 0.5 of weights and 1 of the optimizer's moments."""
    folder = disk(kilobytes)
    trainer = toy_trainer(folder, model=Large(), save_total_limit=2)
    last = 2 if kilobytes > 3000 else 1

    def main():
        with full_disk_in_one_line(trainer):
            trainer.train()

    monkeypatch.setattr("sys.argv", ["recipe.py"])
    with pytest.raises(SystemExit) as stopped:
        launch(main)
    line = stopped.value.code
    assert line.startswith(f"error: the disk is full, cannot write to {folder}, 0.00 GB free (") and "\n" not in line
    assert f"checkpoint-{last + 1} was half-written and is removed; checkpoint-{last} is whole and has 0.00 GB" in line
    assert newest_whole(folder) == (folder / f"checkpoint-{last}", {})
    assert isinstance(stopped.value.__context__, FullDiskError)
    resumed = toy_trainer(tmp_path / "elsewhere", model=Large())
    resumed.train(resume_from_checkpoint=checkpoint_to_resume(folder, True))
    assert resumed.state.global_step == 5


def test_another_error_is_not_taken_for_a_full_disk(tmp_path):
    for error in (OSError(2, "no such file"), RuntimeError("shapes differ")):
        with pytest.raises(type(error), match=str(error).split()[-1]), full_disk_in_one_line(toy_trainer(tmp_path)):
            raise error


# --- the recipes

pytestmark = pytest.mark.usefixtures("figures_are_blank", "preflight_is_left_out")
STEPS = 6
LEARNING = f"""--use_cpu true --per_device_train_batch_size 4 --gradient_accumulation_steps 2 --max_steps {STEPS}
    --warmup_steps 2 --logging_steps 1 --save_strategy steps --save_steps 2
    --dataloader_num_workers 1 --dataloader_pin_memory false --lora_dropout 0.2 --disable_tqdm true --do_predict false
    --eval_rows 2 --max_new_tokens 2 --learning_rate 1e-3""".split()
WATCHED = ["--eval_strategy", "steps", "--eval_steps", "2"]
UNWATCHED = ["--eval_strategy", "no", "--load_best_model_at_end", "false"]  # each report takes a second or two


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """recipe -> how to start it, and the run that nothing stopped."""

    @cache
    def trained(recipe: str, watched: bool = True) -> tuple[list[str], RecipeRun]:
        folder = tmp_path_factory.mktemp(recipe)
        arguments = [*world(recipe), *LEARNING, *(WATCHED if watched else UNWATCHED)]
        whole = RecipeRun(recipe, folder / "whole", *arguments)
        assert whole.end() == 0, whole.text
        return arguments, whole

    return trained


def assert_goes_on(recipe: str, output_dir, arguments: list[str], whole: RecipeRun) -> RecipeRun:
    resumed = RecipeRun(recipe, output_dir, *arguments, "--resume_from_checkpoint", "true")
    assert resumed.end() == 0, resumed.text
    assert resumed.log == whole.log
    assert resumed.weights == whole.weights
    return resumed


def kill_at_a_random_moment(recipe: str, worlds, output_dir, watched: bool = True) -> None:
    arguments, whole = worlds(recipe, watched)
    drawn = random.Random(recipe)
    killed = RecipeRun(recipe, output_dir, *arguments)
    killed.wait_for_step(drawn.randint(3, STEPS - 1))
    time.sleep(drawn.uniform(0, 0.2))
    killed.signal(signal.SIGKILL)
    assert killed.end() == -signal.SIGKILL
    resumed = assert_goes_on(recipe, output_dir, arguments, whole)
    assert f"going on from {output_dir}/checkpoint-" in resumed.text


def kill_while_a_checkpoint_is_written(recipe: str, worlds, output_dir) -> None:
    arguments, whole = worlds(recipe)
    killed = RecipeRun(recipe, output_dir, *arguments)
    killed.wait_until((output_dir / "checkpoint-4").exists)
    killed.signal(signal.SIGKILL)
    killed.end()
    kept, broken = newest_whole(output_dir)
    assert kept == output_dir / "checkpoint-2" and list(broken) == [output_dir / "checkpoint-4"]
    resumed = assert_goes_on(recipe, output_dir, arguments, whole)
    assert f"ignoring {output_dir}/checkpoint-4, which is broken (no " in resumed.text
    assert f"going on from {kept}\n" in resumed.text


def interrupt(recipe: str, worlds, output_dir, number: int) -> None:
    arguments, whole = worlds(recipe)
    stopped = RecipeRun(recipe, output_dir, *arguments)
    stopped.wait_for_step(3)
    stopped.signal(number)
    assert stopped.end() == 128 + number, stopped.text
    kept, broken = newest_whole(output_dir)
    assert kept.name in ("checkpoint-3", "checkpoint-4", "checkpoint-5") and not broken
    assert f"saved {kept}: --resume_from_checkpoint true" in stopped.text
    assert "Traceback" not in stopped.text and "report:" not in stopped.text
    assert '"finished": true' not in (output_dir / "run.json").read_text()
    assert_goes_on(recipe, output_dir, arguments, whole)


@pytest.mark.slow
def test_two_processes_killed_while_they_save_go_on_from_the_checkpoint_before(tmp_path):
    arguments = ["ddp", *world("kvasir_vqa"), *LEARNING, *UNWATCHED, "--dtype", "float32"]
    arguments += ["--save_total_limit", "3"]
    whole = LaunchedRun("kvasir_vqa", tmp_path / "whole", *arguments)
    assert whole.end() == 0, whole.text
    killed = LaunchedRun("kvasir_vqa", tmp_path / "run", *arguments)
    killed.wait_for_step(1)
    ranks = [killed.rank(0), killed.rank(1)]
    killed.wait_until((tmp_path / "run" / "checkpoint-4").exists)
    for rank in ranks:
        os.kill(rank, signal.SIGKILL)
    assert killed.end() != 0
    kept, broken = newest_whole(tmp_path / "run")
    assert kept == tmp_path / "run" / "checkpoint-2" and list(broken) == [tmp_path / "run" / "checkpoint-4"]
    resumed = LaunchedRun("kvasir_vqa", tmp_path / "run", *arguments, "--resume_from_checkpoint", "true")
    assert resumed.end() == 0, resumed.text
    assert f"going on from {kept}" in resumed.text
    assert resumed.log == whole.log and resumed.weights == whole.weights


def test_a_recipe_killed_at_a_random_moment_goes_on_to_the_same_losses_and_weights(worlds, tmp_path):
    kill_at_a_random_moment("kvasir_vqa", worlds, tmp_path / "run", watched=False)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", SIZES)
class TestEveryRecipe:
    def test_killed_at_a_random_moment(self, recipe, worlds, tmp_path):
        kill_at_a_random_moment(recipe, worlds, tmp_path / "run")

    def test_killed_while_a_checkpoint_is_written(self, recipe, worlds, tmp_path):
        kill_while_a_checkpoint_is_written(recipe, worlds, tmp_path / "run")

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_interrupted(self, recipe, number, worlds, tmp_path):
        interrupt(recipe, worlds, tmp_path / "run", number)


CPU = ("--use_cpu", "true")
LAUNCHES = {
    "one process, its group": ("cpu", CPU, lambda run: run.signal(signal.SIGTERM)),
    "two processes, one of them": ("ddp", CPU, lambda run: os.kill(run.rank(1), signal.SIGTERM)),
    "two processes, their launcher": ("ddp", CPU, lambda run: run.process.send_signal(signal.SIGTERM)),
    "ZeRO-3, its launcher": ("zero3", ("--ddp_backend", "gloo"), lambda run: run.process.send_signal(signal.SIGTERM)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LAUNCHES)
def test_a_launched_run_is_interrupted_in_all_its_processes_together(kind, tmp_path):
    config, own, stop = LAUNCHES[kind]
    arguments = [config, *world("kvasir_vqa"), *LEARNING, *UNWATCHED, "--dtype", "float32"]
    place = arguments.index("--use_cpu")
    arguments[place : place + 2] = own
    whole = LaunchedRun("kvasir_vqa", tmp_path / "whole", *arguments)
    assert whole.end() == 0, whole.text
    stopped = LaunchedRun("kvasir_vqa", tmp_path / "run", *arguments)
    stopped.wait_for_step(3)
    stop(stopped)
    assert stopped.end() != 0
    end = time.monotonic() + 60  # for one process, the launcher ends at once and leaves the recipe to save
    while "interrupted after step" not in stopped.text:
        assert time.monotonic() < end, stopped.text
        time.sleep(0.1)
    kept, broken = newest_whole(tmp_path / "run")
    assert f"saved {kept}: --resume_from_checkpoint true" in stopped.text and not broken
    resumed = LaunchedRun("kvasir_vqa", tmp_path / "run", *arguments, "--resume_from_checkpoint", "true")
    assert resumed.end() == 0, resumed.text
    assert f"going on from {kept}" in resumed.text and resumed.text.count("going on from") == 1
    assert resumed.log == whole.log and resumed.weights == whole.weights
