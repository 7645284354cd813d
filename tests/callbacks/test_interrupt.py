"""SIGTERM and Ctrl-C end a training after its step, with a checkpoint, whoever else got the signal."""

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from tests.support.processes.toy import Toy, toy_rows
from vlm_recipes.callbacks.interrupt import SIGNALS, InterruptCallback, Interrupted
from vlm_recipes.callbacks.resume import ResumeCallback
from vlm_recipes.training.checkpoints import checkpoint_to_resume, newest_whole


class Signal(TrainerCallback):
    """Send this process a signal in the middle of a step, or in `event` after so many steps."""

    def __init__(self, number: int, after: int, event: str = "on_substep_end", times: int = 1):
        self.number, self.after, self.times = number, after, times
        setattr(self, event, self._send)

    def _send(self, args, state, control, **kwargs):
        if state.global_step == self.after:
            for _ in range(self.times):
                signal.raise_signal(self.number)


class Score(TrainerCallback):
    """The first evaluation is the best."""

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        metrics["eval_score"] = -state.global_step


def toy_trainer(folder: Path, *more: TrainerCallback, **settings) -> Trainer:
    """Four steps an epoch, shuffled; evaluates and saves at the second and fourth, and keeps the best alone."""
    arguments = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "max_steps": 6}
    arguments |= {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    arguments |= {"save_total_limit": 1, "load_best_model_at_end": True, "metric_for_best_model": "eval_score"}
    arguments |= {"greater_is_better": True, "logging_steps": 1, "report_to": "none", "disable_tqdm": True}
    args, rows = TrainingArguments(str(folder), use_cpu=True, **(arguments | settings)), toy_rows()
    trainer = Trainer(Toy(), args, train_dataset=rows, eval_dataset=rows[:1])
    for callback in (Score(), *more, InterruptCallback(), ResumeCallback(trainer)):
        trainer.add_callback(callback)
    return trainer


def losses(trainer: Trainer) -> list[tuple]:
    return [
        (entry["step"], entry["loss"], entry["grad_norm"]) for entry in trainer.state.log_history if "loss" in entry
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Trainer:
    trainer = toy_trainer(tmp_path_factory.mktemp("whole"))
    trainer.train()
    return trainer


# Before the first evaluation, after it, and at the end of an epoch.
@pytest.mark.parametrize(("step", "number"), [(1, signal.SIGTERM), (3, signal.SIGINT), (4, signal.SIGTERM)])
def test_a_signal_finishes_the_step_and_saves_and_the_rest_is_as_without_it(step, number, whole, tmp_path, capfd):
    before = [signal.getsignal(each) for each in SIGNALS]
    stopped = toy_trainer(tmp_path, Signal(number, after=step - 1))
    with pytest.raises(Interrupted) as ended:
        stopped.train()
    assert ended.value.code == 128 + number and stopped.state.global_step == step
    assert newest_whole(tmp_path) == (tmp_path / f"checkpoint-{step}", {})
    assert (tmp_path / "checkpoint-2").is_dir() == (step > 2)  # the best one is still there
    said = capfd.readouterr().err
    assert said.startswith(f"{number.name}: finishing this step, then saving a checkpoint")
    assert f"interrupted after step {step}, saved {tmp_path}/checkpoint-{step}: --resume_from_checkpoint true" in said
    assert [signal.getsignal(each) for each in SIGNALS] == before
    resumed = toy_trainer(tmp_path)
    resumed.train(resume_from_checkpoint=checkpoint_to_resume(tmp_path, True))
    assert losses(resumed) == losses(whole)
    for one, other in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_signal_during_an_evaluation_is_obeyed_after_it_also_where_nothing_was_to_be_saved(tmp_path):
    during = Signal(signal.SIGTERM, 2, "on_evaluate")
    stopped = toy_trainer(tmp_path, during, save_strategy="no", load_best_model_at_end=False)
    with pytest.raises(Interrupted):
        stopped.train()
    assert newest_whole(tmp_path) == (tmp_path / "checkpoint-3", {})


def test_signals_do_what_they_did_before_when_the_training_has_ended(tmp_path):
    before = [signal.getsignal(each) for each in SIGNALS]
    toy_trainer(tmp_path, max_steps=1, save_strategy="no", load_best_model_at_end=False).train()
    assert [signal.getsignal(each) for each in SIGNALS] == before


def in_a_process(function, *arguments) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    return process


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    process = in_a_process(toy_trainer(tmp_path, Signal(signal.SIGINT, after=2, times=2)).train)
    process.join(60)
    assert process.exitcode == -signal.SIGINT
    assert not (tmp_path / "checkpoint-3").exists()


def test_a_worker_obeys_its_parent_and_no_one_else(tmp_path):
    interrupt = InterruptCallback()
    interrupt.listen()
    try:
        worker = in_a_process(time.sleep, 60)
    finally:
        interrupt.close()
    time.sleep(0.2)
    for name in ("TERM", "INT", "TERM"):
        subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
    worker.join(0.5)
    assert worker.is_alive()
    worker.terminate()
    worker.join(30)
    assert worker.exitcode == 0
    later = in_a_process(time.sleep, 60)  # when nobody listens any more, a child is as any other
    subprocess.run(["kill", "-TERM", str(later.pid)], check=True)
    later.join(30)
    assert later.exitcode == -signal.SIGTERM


def note_hooks(file: Path) -> None:
    """Write down how many hooks for forks a fresh import of the module has registered, and each time it listens."""
    hooks, register = [], os.register_at_fork
    os.register_at_fork = lambda **named: hooks.extend(named.values()) or register(**named)
    for name in [name for name in sys.modules if name.startswith("vlm_recipes.")]:
        del sys.modules[name]
    fresh = importlib.import_module("vlm_recipes.callbacks.interrupt")
    counts = [len([hook for hook in hooks if hook.__module__ == fresh.__name__])]
    for _ in range(2):
        callback = fresh.InterruptCallback()
        callback.listen()
        callback.close()
        counts.append(len([hook for hook in hooks if hook.__module__ == fresh.__name__]))
    file.write_text(str(counts))


def test_importing_registers_nothing_for_children_and_listening_does_it_once(tmp_path):
    process = in_a_process(note_hooks, tmp_path / "counts")
    process.join(60)
    assert (tmp_path / "counts").read_text() == "[0, 1, 1]"


class Fails(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        raise ValueError("as any error in training")


def train_with_workers(folder: Path) -> None:
    os.setpgid(0, 0)
    toy_trainer(folder, Fails(), dataloader_num_workers=2, dataloader_persistent_workers=True).train()


def test_an_error_with_workers_alive_ends_the_process(tmp_path):
    process = in_a_process(train_with_workers, tmp_path)
    process.join(60)
    assert process.exitcode == 1
