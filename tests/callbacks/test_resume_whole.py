"""A whole Qwen2-VL in somebody's own SFTTrainer, with the callbacks that docs/in_your_trainer.md shows."""

import shutil

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback
from trl import SFTConfig, SFTTrainer

from tests.support import tiny
from tests.support.running import QUIET
from vlm_recipes.callbacks import GradNormCallback, InterruptCallback, IoUCallback, PreflightCallback, ResumeCallback
from vlm_recipes.callbacks.resume import WeightNamesError
from vlm_recipes.collators import ChatCollator
from vlm_recipes.eval.boxes import codec_of
from vlm_recipes.training.checkpoints import checkpoint_to_resume

SAVING = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}


class Falling(TrainerCallback):
    """A score that is best after the first step, and the weights that it was given for."""

    def __init__(self):
        self.weights = {}

    def on_evaluate(self, args, state, control, model, metrics, **kwargs):
        metrics["eval_score"] = 1 / state.global_step
        self.weights[state.global_step] = {name: weight.clone() for name, weight in model.state_dict().items()}


def trainer_in(folder, *, ours: bool = True, **settings) -> tuple[SFTTrainer, Falling]:
    processor = AutoProcessor.from_pretrained(tiny.qwen2_vl())
    rows = Dataset.from_list([row | {"boxes": []} for row in tiny.chat_rows()])
    given = {**QUIET, **SAVING, "max_steps": 3, "learning_rate": 1e-2, "per_device_train_batch_size": 4}
    given |= {"metric_for_best_model": "eval_score", "load_best_model_at_end": True, "remove_unused_columns": False}
    given |= {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}, "gradient_checkpointing": False}
    trainer = SFTTrainer(
        AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl()),
        SFTConfig(str(folder), **{**given, **settings}),
        data_collator=ChatCollator(processor),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=processor,
    )
    falling = Falling()
    trainer.add_callback(falling)
    if ours:
        trainer.add_callback(GradNormCallback(trainer))
        codec = codec_of(trainer.model, processor)
        trainer.add_callback(IoUCallback(trainer, rows, ChatCollator(processor, prompt_only=True), codec))
        trainer.add_callback(PreflightCallback(trainer))
        trainer.add_callback(InterruptCallback())
        trainer.add_callback(ResumeCallback(trainer))
    return trainer, falling


def same(network, weights: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(weight, weights[name]) for name, weight in network.state_dict().items())


def test_the_best_weights_are_the_ones_in_use_and_saved_at_the_end(tmp_path):
    trainer, seen = trainer_in(tmp_path)
    trainer.train()
    assert not same(trainer.model, seen.weights[3]) and same(trainer.model, seen.weights[1])
    trainer.save_model()
    assert same(AutoModelForImageTextToText.from_pretrained(tmp_path), seen.weights[1])
    on_the_hub = set(load_file(tiny.qwen2_vl() / "model.safetensors"))
    assert set(load_file(tmp_path / "model.safetensors")) == on_the_hub
    assert not on_the_hub & set(load_file(tmp_path / "checkpoint-1" / "model.safetensors"))


def test_it_resumes_from_the_weights_of_its_checkpoint(tmp_path):
    whole, seen = trainer_in(tmp_path, load_best_model_at_end=False)
    whole.train()
    shutil.rmtree(tmp_path / "checkpoint-3")
    resumed, _ = trainer_in(tmp_path, load_best_model_at_end=False)
    resumed.train(checkpoint_to_resume(tmp_path, True))
    losses = [[entry["loss"] for entry in t.state.log_history if "loss" in entry] for t in (whole, resumed)]
    assert losses[0] == losses[1] and same(resumed.model, seen.weights[3])


def test_a_checkpoint_of_before_stops_it_before_the_first_step(tmp_path):
    before, _ = trainer_in(tmp_path, ours=False, load_best_model_at_end=False, max_steps=2)
    before.train()
    resumed, seen = trainer_in(tmp_path, load_best_model_at_end=False)
    with pytest.raises(WeightNamesError, match="checkpoint-2 has '.*', under whose name the Trainer loads") as error:
        resumed.train(str(tmp_path / "checkpoint-2"))
    assert "\n" not in str(error.value) and not seen.weights
    for callback in resumed.callback_handler.callbacks:
        if isinstance(callback, InterruptCallback):
            callback.close()  # as after any error: the Trainer tells no callback of one
