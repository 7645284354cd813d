"""What people read while a model trains: a line a log and a line an evaluation."""

import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from vlm_recipes.callbacks import GradNormCallback, LogLinesCallback
from vlm_recipes.callbacks.log_lines import decimals, digits, rate
from vlm_recipes.eval.metrics.number import Number, Scores


class Line(nn.Module):
    """y = w x, with a part of the loss logged by itself."""

    def __init__(self):
        super().__init__()
        self.w, self.bias = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x, labels):
        error = self.w * x + self.bias - labels
        return {"loss": error.square().mean(), "logits": error}


class Measured(TrainerCallback):
    """Stands for a `GenerationEvalCallback` that has measured the same each time."""

    def __init__(self, number: Number | None, also: tuple[str, ...] = ()):
        self.evaluation = SimpleNamespace(headline="iou_mean", also=also, baseline="the constant box's")
        self.metrics = Scores(9, {"iou_mean": number, "ciou": Number(0.5, 9)} if number else {})

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        metrics["eval_iou_mean"] = 0.782


def train(folder, watch=None, grouped=True, **settings) -> Trainer:
    rows = [{"x": torch.tensor([i / 8]), "labels": torch.tensor([2.0])} for i in range(8)]
    given = {"max_steps": 4, "logging_steps": 2, "eval_strategy": "steps", "eval_steps": 2, "learning_rate": 1e-3}
    given |= {"report_to": "none", "use_cpu": True, "per_device_train_batch_size": 4, "dataloader_pin_memory": False}
    args = TrainingArguments(str(folder), save_strategy="no", lr_scheduler_type="constant", **given | settings)
    trainer = Trainer(Line(), args, train_dataset=rows, eval_dataset=rows)
    groups = [GradNormCallback(trainer, {"weight": "w", "rest": "bias"})] if grouped else []
    for callback in (*groups, *([watch] if watch else []), LogLinesCallback(trainer, watch)):
        trainer.add_callback(callback)
    trainer.train()
    return trainer


NUMBER = r"-?\d*\.?\d+"
LOG = rf"loss {NUMBER}, rate 1\.0e-3, gradient norm {NUMBER} \(weight {NUMBER}, rest {NUMBER}\), "


@pytest.mark.parametrize("disable_tqdm", [False, True])
def test_a_log_is_a_line_with_the_time_left_and_an_evaluation_one_with_interval_and_baseline(
    disable_tqdm, tmp_path, capsys
):
    watch = Measured(Number(0.782, 9, 0.739, 0.822, 0.475), also=("ciou",))
    trainer = train(tmp_path, watch, disable_tqdm=disable_tqdm)
    printed = capsys.readouterr()
    lines = [line for line in printed.out.splitlines() if "real_accelerator" not in line]  # DeepSpeed is loaded once
    losses = [log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log]
    assert printed.err == "" and len(lines) == 5, "no bar in a file, no dictionary"
    assert re.fullmatch(rf"step 2/4: {LOG}0 s left and 2 evaluations", lines[0])
    measured = "iou_mean .782 (.739 to .822), constant box .475, ciou .500, loss "
    assert lines[1] == f"step 2: {measured}{decimals(losses[0])}"
    assert re.fullmatch(rf"step 4/4: {LOG}0 s left", lines[2]) and lines[3].startswith(f"step 4: {measured}")
    assert re.fullmatch(r"step 4/4: trained in 0 s, [\d,.e+]+ rows a second, evaluations included", lines[4])


def test_what_rounds_to_nothing_has_no_sign():
    assert decimals(-0.0001) == decimals(0.0001) == ".000" and decimals(-0.25) == "-.250"


def test_the_numbers_of_a_line_are_those_of_the_log_history(tmp_path, capsys):
    trainer = train(tmp_path, eval_strategy="no")
    [last] = [log for log in trainer.state.log_history if log["step"] == 4 and "loss" in log]
    [norms] = [log for log in trainer.state.log_history if log["step"] == 4 and "grad_norm/weight" in log]
    line = capsys.readouterr().out.splitlines()[1]
    assert line == (
        f"step 4/4: loss {last['loss']:.3f}, rate 1.0e-3, gradient norm {digits(last['grad_norm'])} (weight "
        f"{digits(norms['grad_norm/weight'])}, rest {digits(norms['grad_norm/rest'])}), 0 s left"
    )


def test_without_a_watch_an_evaluation_s_line_has_what_the_trainer_measured_and_no_speeds(tmp_path, capsys):
    trainer = train(tmp_path, grouped=False)
    loss = trainer.state.log_history[1]["eval_loss"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"step 2: loss {decimals(loss)}" and "(" not in lines[0]


def test_a_number_that_no_row_counts_for_is_left_out(tmp_path, capsys):
    train(tmp_path, Measured(Number(None, 0)), max_steps=2)
    assert re.fullmatch(rf"step 2: loss {NUMBER}", capsys.readouterr().out.splitlines()[1])


def test_of_several_datasets_each_has_its_loss_by_name_and_the_first_alone_what_was_answered(tmp_path, capsys):
    watch = Measured(Number(0.782, 9))
    watch.on_evaluate = lambda args, state, control, metrics, **more: (
        metrics.update(eval_iou_mean=0.782) if "eval_easy_loss" in metrics else None
    )
    rows = [{"x": torch.tensor([i / 8]), "labels": torch.tensor([2.0])} for i in range(8)]
    args = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True, dataloader_pin_memory=False)
    trainer = Trainer(Line(), args, eval_dataset={"easy": rows[:4], "hard": rows[4:]}, callbacks=[watch])
    trainer.add_callback(LogLinesCallback(trainer, watch))
    measured = trainer.evaluate()
    easy, hard = (decimals(measured[f"eval_{name}_loss"]) for name in ("easy", "hard"))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step")]
    assert lines == [f"step 0: iou_mean .782, easy loss {easy}", f"step 0: hard loss {hard}"]
    trainer.evaluate(rows[:2], metric_key_prefix="test")
    assert re.fullmatch(rf"step 0: test loss {NUMBER}", capsys.readouterr().out.splitlines()[-1])


def by_the_clock(folder, monkeypatch, step: float, evaluation: float, **settings) -> None:
    """Train by a clock of its own, whose seconds steps and evaluations take alone."""
    now = [0.0]
    monkeypatch.setattr("vlm_recipes.callbacks.log_lines.time.monotonic", lambda: now[0])

    class Clock(TrainerCallback):
        def on_step_begin(self, *event, **kwargs):
            now[0] += step

        def on_evaluate(self, *event, **kwargs):
            print("evaluated")
            now[0] += evaluation

    rows = [{"x": torch.tensor([i / 8]), "labels": torch.tensor([2.0])} for i in range(8)]
    given = {"report_to": "none", "save_strategy": "no", "use_cpu": True, "dataloader_pin_memory": False}
    trainer = Trainer(
        Line(), TrainingArguments(str(folder), **given | settings), train_dataset=rows, eval_dataset=rows
    )
    trainer.add_callback(Clock())
    trainer.add_callback(LogLinesCallback(trainer))
    trainer.train()


def test_the_time_left_counts_steps_and_evaluations_each_as_they_were(tmp_path, monkeypatch, capsys):
    by_the_clock(tmp_path, monkeypatch, 10, 60, max_steps=100, logging_steps=10, eval_strategy="steps", eval_steps=30)
    left = [line.rpartition(", ")[2] for line in capsys.readouterr().out.splitlines() if "/100: loss" in line]
    assert left[:3] == [
        "15 min left and 4 evaluations",
        "13 min left and 4 evaluations",
        "12 min left and 4 evaluations",
    ]
    assert left[3] == "13 min left", "60 steps of 10 s, and at 60, 90 and 100 an evaluation of 60 s"
    assert left[9] == "60 s left", "the last evaluation is still to come"


@pytest.mark.parametrize(
    "when",
    [
        {"eval_strategy": "steps", "eval_steps": 3},
        {"eval_strategy": "steps", "eval_steps": 5, "eval_on_start": True},
        {"eval_strategy": "steps", "eval_steps": 2, "eval_delay": 5},
        {"eval_strategy": "steps", "eval_steps": 3, "eval_delay": 10},
        {"eval_strategy": "steps", "eval_steps": 3, "eval_delay": 11},
        {"eval_strategy": "epoch"},
        {"eval_strategy": "epoch", "logging_strategy": "epoch"},
        {"eval_strategy": "epoch", "eval_delay": 2},
        {"eval_strategy": "epoch", "eval_delay": 1.5},
        {"eval_strategy": "epoch", "eval_delay": 4},
        {"eval_strategy": "no"},
    ],
)
def test_as_many_evaluations_are_left_as_come(when, tmp_path, monkeypatch, capsys):
    """An evaluation takes an hour and a step nothing: what is left are the evaluations that the Trainer does."""
    given = {"max_steps": 10, "logging_steps": 1, "per_device_train_batch_size": 2}  # two epochs and a half
    by_the_clock(tmp_path, monkeypatch, 0, 3600, **given | when)
    lines = [line for line in capsys.readouterr().out.splitlines() if line == "evaluated" or "/10: loss" in line]
    for number, line in enumerate(lines):
        if line != "evaluated":
            before, after = lines[:number].count("evaluated"), lines[number:].count("evaluated")
            some = f"0 s left and {after} evaluation{'s' * (after > 1)}" if after else "0 s left"
            known = "60 min left" if after == 1 else f"{after} h 0 min left"
            assert line.endswith(f", {known if before and after else some}"), lines


def test_only_the_main_process_prints(tmp_path, capsys):
    lines = LogLinesCallback(train(tmp_path, eval_strategy="no"))
    capsys.readouterr()
    for is_main, printed in ((False, ""), (True, "step 1: loss .500\n")):
        lines.on_evaluate(
            None, SimpleNamespace(is_world_process_zero=is_main, global_step=1), None, {"eval_loss": 0.5}
        )
        assert capsys.readouterr().out == printed


def test_numbers_are_short():
    assert [decimals(value) for value in (0.7821, 0, -0.25, 1, 12.34, float("nan"))] == [
        ".782", ".000", "-.250", "1.000", "12.340", "nan",
    ]  # fmt: skip
    assert [digits(value) for value in (3.14, 0.0123, 1234.5, 0, 41, 2.2e-5)] == [
        "3.1",
        ".012",
        "1,200",
        "0",
        "41",
        "2.2e-5",
    ]
    assert [rate(value) for value in (9.8e-4, 0, 1e-12)] == ["9.8e-4", "0", "1.0e-12"]


def test_metrics_that_are_no_numbers_and_several_datasets_leave_the_training_alone(tmp_path, capsys):
    args = TrainingArguments(
        str(tmp_path),
        max_steps=2,
        eval_strategy="steps",
        eval_steps=1,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
    )
    rows = [{"x": torch.tensor([i / 8]), "labels": torch.tensor([2.0])} for i in range(8)]
    by_class = {"f1": [0.1, 0.2], "name": "it", "accuracy": 0.5}
    trainer = Trainer(
        Line(), args, train_dataset=rows, eval_dataset={"a": rows, "b": rows}, compute_metrics=lambda _: by_class
    )
    trainer.add_callback(lines := LogLinesCallback(trainer))
    trainer.train()
    printed = capsys.readouterr().out
    assert "step 1: a_loss " in printed and "a_accuracy .500" in printed and "b_accuracy .500" in printed
    assert "runtime" not in printed and "per_second" not in printed and lines.evaluations == 2
