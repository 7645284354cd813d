"""What a run leaves behind, and how it ends where it cannot work."""

import json
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import (
    AttentionInterface,
    AutoModelForImageTextToText,
    AutoProcessor,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback
from trl import ModelConfig

from demo.worlds.small import SMALL_PIXELS
from tests.support import tiny
from tests.support.running import fails
from tests.support.worlds import world
from vlm_recipes.callbacks import GenerationEvalCallback
from vlm_recipes.callbacks.interrupt import SIGNALS
from vlm_recipes.collators import ChatCollator
from vlm_recipes.eval.evaluation import Evaluation
from vlm_recipes.rows.errors import DataError
from vlm_recipes.training.launch import launch
from vlm_recipes.training.run import Run
from vlm_recipes.training.settings import RowSettings, RunSettings


@dataclass
class Arguments:
    number: int = 1


@pytest.fixture
def process_group(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["recipe.py"])
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def test_a_run_that_succeeds_leaves_no_process_group_behind(process_group):
    launch(lambda arguments: None, Arguments)
    assert not torch.distributed.is_initialized()


def test_a_refusal_is_one_line_and_does_not_wait_for_the_other_processes(process_group):
    def refuse(arguments):
        raise DataError("row 3: no image")

    with pytest.raises(SystemExit, match="^error: row 3: no image$"):
        launch(refuse, Arguments)
    assert torch.distributed.is_initialized()


# --- what a training refuses, as a recipe's user sees it


def started(recipe: str, folder: Path, monkeypatch, *more: str) -> str:
    """The one line that the recipe ends with, on the dataset and the model in the folder."""
    places = ["--dataset_name", str(folder / "data"), "--model_name_or_path", str(folder / "model")]
    arguments = ["--use_cpu", "true", "--eval_rows", "2", "--dataloader_num_workers", "0", "--output_dir"]
    return fails(recipe, *places, *SMALL_PIXELS, *arguments, str(folder / "output"), *more, monkeypatch=monkeypatch)


@pytest.fixture(scope="module")
def polyps(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("polyps")
    world("kvasir_vqa", folder)
    return folder


def test_labels_that_would_teach_no_end_are_one_line_and_named_once(polyps, tmp_path, monkeypatch, capsys):
    """The tokenizer's end, and the model's, is another token than the one that the template writes."""
    for part in ("data", "model"):
        shutil.copytree(polyps / part, tmp_path / part)
    config = tmp_path / "model" / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token": "<|endoftext|>"}))
    stops = tmp_path / "model" / "generation_config.json"
    settings = json.loads(stops.read_text())
    stops.write_text(json.dumps(settings | {"eos_token_id": settings["pad_token_id"]}))
    line = started("kvasir_vqa", tmp_path, monkeypatch)
    assert line.startswith("error: ") and line.count("ends without an end-of-turn token") == 1
    assert "row '" in line


def test_an_attention_without_masks_is_one_line(polyps, monkeypatch):
    AttentionInterface.register("maskless", lambda *arguments, **named: None)
    line = started("kvasir_vqa", polyps, monkeypatch, "--attn_implementation", "maskless")
    assert line.startswith("error: attn_implementation='maskless' reads no mask of pairs")


@dataclass
class Settings(RunSettings, TrainingArguments):
    pass


class Fails(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        raise KeyError("as any error in training")


def test_a_training_that_ends_by_an_error_leaves_no_hook_and_no_signal_handler_behind(tmp_path):
    handlers = [signal.getsignal(number) for number in SIGNALS]
    model, rows = AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl()), Dataset.from_list(tiny.chat_rows())
    processor = AutoProcessor.from_pretrained(tiny.qwen2_vl())
    settings = {"report_to": "none", "use_cpu": True, "remove_unused_columns": False, "disable_tqdm": True}
    args = Settings(tmp_path, max_steps=2, eval_strategy="no", load_best_model_at_end=False, **settings)
    trainer = Trainer(
        model, args, data_collator=ChatCollator(processor), train_dataset=rows, processing_class=processor
    )
    evaluation = Evaluation(
        collator=ChatCollator(processor, prompt_only=True),
        metric=tiny.exact_match,
        score=tiny.exact_scores,
        headline="exact",
        max_new_tokens=2,
        reference=lambda row: row["answer"],
    )
    named = rows.map(lambda row: {"image_id": row["id"]})
    parts = named, named.select(range(1)), named.select(range(1))
    run = Run(__file__, RowSettings("drawn"), args, ModelConfig(), parts, evaluation, [])
    own = trainer.callback_handler.callbacks  # of which the printing one makes room for lines
    before = [callback for callback in own if not isinstance(callback, PrinterCallback)]
    with pytest.raises(KeyError):
        run.train(trainer, GenerationEvalCallback(trainer, parts[1], run.evaluation), Fails())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in trainer.model.modules())
    assert trainer.callback_handler.callbacks[: len(before)] == before
    assert "get_batch_samples" not in vars(trainer)
    assert [signal.getsignal(number) for number in SIGNALS] == handlers
