"""The Trainer's own step, beforehand: what is counted, against PyTorch's profiler, and that nothing stays."""

from collections import defaultdict

import pytest
import torch
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor, Trainer, TrainingArguments

from tests.support import tiny
from tests.support.profiled import peak_of
from vlm_recipes.callbacks.preflight.allocations import CountAllocations
from vlm_recipes.callbacks.preflight.probe import probe
from vlm_recipes.collators import ChatCollator

SETTINGS = {"report_to": "none", "use_cpu": True, "disable_tqdm": True, "remove_unused_columns": False}


@pytest.fixture(scope="module")
def batch():
    return ChatCollator(AutoProcessor.from_pretrained(tiny.qwen2_vl()))(tiny.chat_rows())


class TenTimes(nn.Module):
    """A loss whose gradient is 10 at each of four weights; they are float16, which ends at 65,504."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, dtype=torch.float16))
        self.normalised = nn.BatchNorm1d(4).eval()
        self.normalised.requires_grad_(False)

    def forward(self, values):
        self.normalised(values[None].repeat(2, 1))
        return {"loss": (self.weight * values.half()).sum().float()}


TENS = {"values": torch.full((4,), 10.0)}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_bytes_of_a_step_are_those_that_the_profiler_sees(checkpointing, batch):
    model = AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl()).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    held = [*model.parameters(), *model.buffers()]

    def step():
        model.zero_grad()
        model(**batch).loss.backward()

    peaks = []
    for _ in range(2):  # the first one warms up
        model.zero_grad()
        with CountAllocations([*held, *batch.values()]) as counted:
            step()
        model.zero_grad()
        peaks.append(peak_of(step, held, batch))
    assert counted.peak == pytest.approx(peaks[1], rel=0.002)
    gradients = sum(parameter.grad.nbytes for parameter in model.parameters())  # what is left of it
    model.zero_grad()
    assert counted.alive == pytest.approx(sum(tensor.nbytes for tensor in [*held, *batch.values()]), abs=1000)
    assert counted.peak > counted.alive + gradients


def test_checkpointing_needs_less(batch, tmp_path):
    seen = []
    for checkpointing in (False, True):
        model = AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl())
        args = TrainingArguments(tmp_path, **SETTINGS, activation_checkpointing=checkpointing)
        trainer = Trainer(model, args)
        if checkpointing:
            model.gradient_checkpointing_enable()
        seen.append(probe(trainer, batch))
    assert seen[1].memory < seen[0].memory and seen[1].loss == pytest.approx(seen[0].loss)
    assert seen[1].gradients == pytest.approx(seen[0].gradients, rel=1e-3, abs=1e-6)


def test_where_batches_are_accumulated_their_gradients_are_there_during_the_next(batch, tmp_path):
    memory = []
    for steps in (1, 2):
        model = AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl())
        args = TrainingArguments(tmp_path, **SETTINGS, gradient_accumulation_steps=steps)
        memory.append(probe(Trainer(model, args), batch).memory * 2**30)
    assert memory[0] < memory[1] <= memory[0] + sum(parameter.nbytes for parameter in model.parameters())


def test_the_loss_is_that_of_a_step_by_itself_however_many_batches_make_one(batch, tmp_path):
    model = AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl())
    for steps in (1, 4):
        args = TrainingArguments(tmp_path, **SETTINGS, gradient_accumulation_steps=steps)
        assert probe(Trainer(model, args), batch).loss == pytest.approx(model(**batch).loss.item())


def test_a_loss_scale_that_overflows_is_backed_off_and_the_gradients_are_those_without_it(tmp_path):
    trainer = Trainer(TenTimes(), TrainingArguments(tmp_path, **SETTINGS))
    assert probe(trainer, TENS).gradients == {"weight": 20.0}
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    assert probe(trainer, TENS).gradients == {"weight": 20.0}
    assert trainer.accelerator.scaler.get_scale() == 2.0**16


class Counting(Trainer):
    """Keeps numbers in every way that Trainers do."""

    steps, total = 0, torch.zeros(())

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        self.steps += 1
        self.total += loss.detach()
        self.metrics["train"]["loss"].append(loss.item())
        return loss


def test_counters_buffers_modes_and_gradients_are_as_they_were(tmp_path):
    model = TenTimes()
    trainer = Counting(model, TrainingArguments(tmp_path, **SETTINGS))
    trainer.total, trainer.metrics = torch.zeros(()), {"train": defaultdict(list)}
    model.train()
    model.normalised.eval()  # as somebody keeps a frozen tower
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for backward in (True, False):
        assert probe(trainer, TENS, backward).loss == 40.0
    assert (trainer.steps, trainer.total.item(), trainer.metrics) == (0, 0.0, {"train": {}})
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training and not model.normalised.training and model.weight.grad is None


def test_too_little_memory_leaves_no_gradient_either(tmp_path):
    model = TenTimes()

    def full(gradient):
        raise torch.OutOfMemoryError

    model.weight.register_post_accumulate_grad_hook(full)
    with pytest.raises(torch.OutOfMemoryError):
        probe(Trainer(model, TrainingArguments(tmp_path, **SETTINGS)), TENS)
    assert model.weight.grad is None
