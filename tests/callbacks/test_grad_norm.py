import math
import sys

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForImageTextToText, AutoProcessor, Trainer, TrainingArguments
from trl import SFTConfig, SFTTrainer

from tests.support import tiny
from tests.support.processes import launch
from tests.support.processes.toy import N_ROWS, Toy, toy_rows
from vlm_recipes.callbacks import GradNormCallback
from vlm_recipes.collators import ChatCollator

TINY = 1e-3  # far below the gradient's norm, so that every step is clipped


def train(tmp_path, model=None, groups=None, callback=GradNormCallback, **settings):
    """Train on the whole of `toy_rows` per optimizer step; return the callback, and our log by step."""
    arguments = {"per_device_train_batch_size": N_ROWS, "max_steps": 4, "logging_steps": 1, "max_grad_norm": TINY}
    arguments |= {"learning_rate": 0.1, "optim": "sgd", "lr_scheduler_type": "constant", "report_to": "none"}
    arguments |= {"use_cpu": True, "save_strategy": "no", "disable_tqdm": True}
    args = TrainingArguments(tmp_path, **(arguments | settings))
    trainer = Trainer(model or Toy(), args, train_dataset=toy_rows())
    watching = callback(trainer, groups)
    trainer.add_callback(watching)
    trainer.train()
    ours = {log["step"]: log for log in trainer.state.log_history if "tensors_without_gradient" in log}
    theirs = {log["step"]: log["grad_norm"] for log in trainer.state.log_history if "grad_norm" in log}
    return watching, ours, theirs


def by_hand(steps: int, max_norm: float, prefixes: dict[str, tuple[str, ...]], model=None) -> list[dict[str, float]]:
    """The same training as a plain loop over single rows: norms per group and in total, before clipping."""
    model = model or Toy()
    norms = []
    for _ in range(steps):
        model.zero_grad()
        for row in toy_rows():
            (model(row["x"][None], row["y"][None])["loss"] / N_ROWS).backward()
        gradients = {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}
        square = {name: gradient.pow(2).sum().item() for name, gradient in gradients.items()}
        step = {group: sum(square[n] for n in square if n.startswith(starts)) for group, starts in prefixes.items()}
        norms.append({group: math.sqrt(value) for group, value in (step | {"total": sum(square.values())}).items()})
        factor = min(1.0, max_norm / norms[-1]["total"]) if max_norm else 1.0
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in gradients:
                    parameter -= 0.1 * factor * gradients[name].float()
    return norms


PARTS = {"vision": ("visual",), "projector": ("merger",), "language": ("language_model",)}


def assert_equal(ours, theirs, expected, parts=PARTS):
    for step, norms in enumerate(expected, start=1):
        for group in parts:
            assert ours[step][f"grad_norm/{group}"] == pytest.approx(norms[group], rel=2e-4), (step, group)
        assert theirs[step] == pytest.approx(norms["total"], rel=2e-4)
        total = math.sqrt(sum(ours[step][f"grad_norm/{group}"] ** 2 for group in parts))
        assert total == pytest.approx(theirs[step], rel=1e-6)


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("max_norm", [TINY, 0.0, 2.0, 1e6])
def test_norms_by_group_are_those_before_clipping(tmp_path, max_norm, accumulation):
    _, ours, theirs = train(
        tmp_path,
        max_grad_norm=max_norm,
        per_device_train_batch_size=N_ROWS // accumulation,
        gradient_accumulation_steps=accumulation,
    )
    expected = by_hand(4, max_norm, PARTS)
    assert_equal(ours, theirs, expected)
    assert not math.isclose(expected[0]["vision"], expected[0]["language"], rel_tol=0.1)  # groups can be told apart


def test_clipped_share_counts_the_logged_steps_that_were_clipped(tmp_path):
    limit = sum(norms["total"] for norms in by_hand(2, 0, PARTS)) / 2  # between the first two steps' norms
    _, ours, theirs = train(tmp_path, max_grad_norm=limit)
    clipped = [theirs[step] > limit for step in sorted(theirs)]
    assert True in clipped and False in clipped
    assert [ours[step]["grad_norm/clipped_share"] for step in sorted(ours)] == pytest.approx(
        [sum(clipped[: n + 1]) / (n + 1) for n in range(4)]
    )
    assert train(tmp_path, max_grad_norm=0.0)[1][4]["grad_norm/clipped_share"] == 0


class Counting(GradNormCallback):
    """Counts how often gradients are read."""

    measured = 0

    def _measure(self):
        self.measured += 1
        super()._measure()


@pytest.mark.parametrize(
    ("settings", "logged"),
    [
        ({"logging_steps": 5}, [5, 10]),
        ({"logging_steps": 5, "logging_first_step": True}, [1, 5, 10]),
        ({"logging_steps": 0.25}, [3, 6, 9, 12]),  # a share of the 12 steps
        ({"logging_strategy": "no"}, []),
        ({"logging_strategy": "no", "logging_first_step": True}, [1]),
    ],
)
def test_gradients_are_read_only_on_steps_that_log(tmp_path, settings, logged):
    callback, ours, theirs = train(tmp_path, max_steps=12, callback=Counting, **settings)
    assert list(ours) == list(theirs) == logged
    assert callback.measured == len(logged)


def test_an_epoch_logs_the_norms_of_its_last_step(tmp_path):
    settings = {"logging_strategy": "epoch", "num_train_epochs": 3, "max_steps": -1, "learning_rate": 0.0}
    _, ours, theirs = train(tmp_path, per_device_train_batch_size=4, **settings)
    assert list(ours) == list(theirs) == [2, 4, 6]
    for step, log in ours.items():
        assert math.hypot(*(log[f"grad_norm/{part}"] for part in PARTS)) == pytest.approx(theirs[step], rel=1e-6)


def test_callers_patterns_name_the_groups_and_the_first_match_counts(tmp_path):
    groups = {"biases": r"bias$", "eyes": "visual"}
    _, ours, _ = train(tmp_path, groups=groups)
    model = Toy()
    for row in toy_rows():
        (model(row["x"][None], row["y"][None])["loss"] / N_ROWS).backward()

    def norm(*names):
        return math.sqrt(sum(model.get_parameter(name).grad.pow(2).sum().item() for name in names))

    parts = ("visual", "merger", "language_model")
    assert {key for key in ours[1] if key.startswith("grad_norm/")} == {
        "grad_norm/biases",
        "grad_norm/eyes",
        "grad_norm/other",  # what no pattern finds is not lost
        "grad_norm/clipped_share",
    }
    assert ours[1]["grad_norm/biases"] == pytest.approx(norm(*(f"{part}.bias" for part in parts)), rel=1e-4)
    assert ours[1]["grad_norm/eyes"] == pytest.approx(norm("visual.weight"), rel=1e-4)
    assert ours[1]["grad_norm/other"] == pytest.approx(norm("merger.weight", "language_model.weight"), rel=1e-4)


def test_trainable_tensors_without_gradient_are_counted_and_frozen_ones_are_not(tmp_path):
    assert train(tmp_path)[1][1]["tensors_without_gradient"] == 2  # weight and bias of the unused layer
    model = Toy()
    model.visual_spare.requires_grad_(False)
    model.visual.requires_grad_(False)
    _, ours, theirs = train(tmp_path, model)
    assert ours[1]["tensors_without_gradient"] == 0
    assert "grad_norm/vision" not in ours[1]
    assert math.hypot(ours[1]["grad_norm/projector"], ours[1]["grad_norm/language"]) == pytest.approx(theirs[1])


class Muted(Toy):
    """The merger multiplies what it sees by zero, so nothing in front of it learns."""

    def __init__(self):
        super().__init__()
        self.merger.weight.data.zero_()
        self.merger.weight.requires_grad_(False)


def test_a_group_that_stays_at_zero_is_warned_of_once_by_name(tmp_path, caplog):
    train(tmp_path, Muted(), max_steps=6)
    warnings = [record.getMessage() for record in caplog.records if record.name == "vlm_recipes.callbacks.grad_norm"]
    assert len(warnings) == 1 and "'vision'" in warnings[0] and "zero" in warnings[0]


class Reawakened(Muted):
    """Zero for the first two steps only, like LoRA's A at the first."""

    steps = 0

    def forward(self, x, y):
        self.steps += 1
        if self.steps == 3:
            self.merger.weight.data.fill_(0.5)
        return super().forward(x, y)


def test_a_group_that_is_zero_at_first_is_not_warned_of(tmp_path, caplog):
    _, ours, _ = train(tmp_path, Reawakened(), max_steps=6)
    assert [ours[step]["grad_norm/vision"] > 0 for step in (1, 2, 3, 4)] == [False, False, True, True]
    assert not [record for record in caplog.records if record.name == "vlm_recipes.callbacks.grad_norm"]


class Overflowing(Toy):
    """One gradient is infinite, as in fp16 until its loss scale is found; clipping then makes the others zero."""

    def forward(self, x, y):
        return {"loss": super().forward(x, y)["loss"] + (self.visual_spare.weight * float("inf")).sum()}


def test_an_overflowing_step_neither_counts_as_clipped_nor_as_quiet(tmp_path, caplog):
    _, ours, theirs = train(tmp_path, Overflowing())
    assert theirs[1] == theirs[4] == math.inf
    assert ours[4]["grad_norm/clipped_share"] == 0
    assert not [record for record in caplog.records if record.name == "vlm_recipes.callbacks.grad_norm"]


def test_deepspeed_is_not_imported_for_a_plain_run(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)  # importing it now raises ImportError
    monkeypatch.setitem(sys.modules, "deepspeed.utils", None)
    assert train(tmp_path)[1][4]["grad_norm/vision"] > 0


def logged(result):
    ours = {log["step"]: log for log in result["log"] if "tensors_without_gradient" in log}
    return ours, {log["step"]: log["grad_norm"] for log in result["log"] if "grad_norm" in log}


def test_two_processes_log_the_norms_of_the_global_batch():
    for result in launch.ddp("grad_norms"):
        assert result["kind"] == "MULTI_CPU"
        ours, theirs = logged(result)
        assert_equal(ours, theirs, by_hand(3, TINY, PARTS))
        assert ours[1]["tensors_without_gradient"] == 2 and ours[3]["grad_norm/clipped_share"] == 1


def test_gradients_sharded_by_fsdp2_have_the_norms_of_the_whole():
    expected = by_hand(1, TINY, PARTS)[0]
    for result in launch.ddp("sharded_grad_norms"):
        assert result == pytest.approx({group: expected[group] for group in PARTS}, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_logs_the_norms_of_the_global_batch(stage):
    pytest.importorskip("deepspeed")
    for result in launch.deepspeed(stage, "grad_norms"):
        assert result["kind"] == "DEEPSPEED"
        ours, theirs = logged(result)
        assert_equal(ours, theirs, by_hand(3, TINY, PARTS))
        assert ours[1]["tensors_without_gradient"] == 2 and ours[3]["grad_norm/clipped_share"] == 1
        assert "measured_step" not in result["steps_by"]  # but DeepSpeed's own again


class Engine:
    """As far as the callback knows DeepSpeed: an optimizer that steps before the Trainer calls back."""

    def __init__(self):
        self.optimizer = torch.optim.SGD(Toy().parameters())


def test_deepspeed_s_optimizer_has_its_own_step_again_when_training_has_ended(tmp_path):
    trainer = Trainer(Toy(), TrainingArguments(tmp_path, use_cpu=True, report_to="none"), train_dataset=toy_rows())
    trainer.is_deepspeed_enabled, trainer.model_wrapped, callback = True, Engine(), GradNormCallback(trainer)
    optimizer = trainer.model_wrapped.optimizer
    own, arguments = optimizer.step, (trainer.args, trainer.state, trainer.control)
    for end in (lambda: callback.on_train_end(*arguments), callback.close):  # an error calls nobody back
        callback.on_train_begin(*arguments, model=trainer.model)
        assert optimizer.step != own
        end()
        assert optimizer.step == own


def test_training_twice_logs_the_same_twice(tmp_path):
    settings = {"learning_rate": 0.0, "max_steps": 3, "logging_steps": 1, "max_grad_norm": 1.5}
    args = TrainingArguments(tmp_path, use_cpu=True, report_to="none", save_strategy="no", **settings)
    trainer = Trainer(Toy(), args, train_dataset=toy_rows())
    trainer.add_callback(GradNormCallback(trainer))
    histories = []
    for _ in range(2):
        trainer.train()
        histories.append([log for log in trainer.state.log_history if "tensors_without_gradient" in log])
    assert histories[0] == histories[1] and len(histories[0]) == 3


def test_lora_on_qwen2_vl_splits_into_a_and_b_and_a_starts_at_zero(tmp_path, caplog):
    """B starts at zero, so A's first gradient is zero by design; by hand with the very adapter that trains."""
    processor = AutoProcessor.from_pretrained(tiny.qwen2_vl())
    args = SFTConfig(
        tmp_path,
        max_steps=3,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        logging_steps=1,
        learning_rate=1e-2,
        max_grad_norm=TINY,
        max_length=None,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl()),
        args,
        data_collator=ChatCollator(processor),
        train_dataset=Dataset.from_list(tiny.chat_rows()),
        processing_class=processor,
        peft_config=LoraConfig(task_type="CAUSAL_LM", target_modules=r".*language_model.*\.[qv]_proj"),
    )
    trainer.model.train()
    trainer.model(**ChatCollator(processor)(tiny.chat_rows())).loss.backward()
    square = {"lora_A": 0.0, "lora_B": 0.0}
    for name, parameter in trainer.model.named_parameters():
        for part in square:
            if part in name:
                square[part] += parameter.grad.pow(2).sum().item()
    trainer.model.zero_grad()

    trainer.add_callback(GradNormCallback(trainer))
    trainer.train()
    ours, theirs = logged({"log": trainer.state.log_history})
    assert {key for key in ours[1] if key.startswith("grad_norm/")} == {
        "grad_norm/lora_a",
        "grad_norm/lora_b",
        "grad_norm/clipped_share",
    }
    assert ours[1]["grad_norm/lora_a"] == square["lora_A"] == 0
    assert ours[1]["grad_norm/lora_b"] == pytest.approx(math.sqrt(square["lora_B"]), rel=1e-4)
    assert ours[2]["grad_norm/lora_a"] > 0
    assert math.hypot(ours[3]["grad_norm/lora_a"], ours[3]["grad_norm/lora_b"]) == pytest.approx(theirs[3], rel=1e-6)
    assert ours[1]["tensors_without_gradient"] == 0
    assert not [record for record in caplog.records if record.name == "vlm_recipes.callbacks.grad_norm"]
