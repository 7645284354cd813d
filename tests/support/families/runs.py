"""Two steps of a recipe with a tiny checkpoint of a family, in this process."""

import json
from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from recipes import kvasir_vqa, nutrition_tables, visual_chat
from tests.support.families import checkpoint
from tests.support.families.worlds import world
from tests.support.running import QUIET
from vlm_recipes.training.export import export

# What is trained: a recipe, and what of the model.
WAYS = {
    "nutrition_tables, LoRA on language": (nutrition_tables, {"tune": "language"}),
    "nutrition_tables, vision": (nutrition_tables, {"tune": "vision"}),
    "nutrition_tables, LoRA on both": (nutrition_tables, {"tune": "joint"}),
    "nutrition_tables, all": (nutrition_tables, {"tune": "all"}),
    "visual_chat": (visual_chat, {}),
    "kvasir_vqa": (kvasir_vqa, {}),
}
DATA = {
    nutrition_tables: {"validation_fraction": 0.25},
    kvasir_vqa: {"validation_fraction": 0.125, "test_fraction": 0.25, "questions_per_row": 3},
    visual_chat: {"validation_fraction": 0.25},
}
TRAINING = {"max_steps": 2, "learning_rate": 1e-2, "lr_scheduler_type": "constant", "warmup_steps": 0}
TRAINING |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "gradient_checkpointing": False}
PIXELS = {"min_pixels": 4 * 32 * 32, "max_pixels": 16 * 32 * 32}


def name_of(recipe: ModuleType) -> str:
    return recipe.__name__.rpartition(".")[2]


def settings(way: str, folder: Path, output: Path, model: dict | None = None, **training) -> tuple:
    """What the recipe's `main` takes, for the model in `folder`."""
    recipe, own = WAYS[way]
    own = {**own, **(model or {})}
    whole = own.get("tune") in ("vision", "all") or own.get("use_peft") is False
    model = own if whole else {"lora_r": 4, "lora_alpha": 8, **own}
    return (
        recipe.Data(dataset_name=str(world(name_of(recipe))), max_new_tokens=12, **PIXELS, **DATA[recipe]),
        recipe.Training(output_dir=str(output), **{**QUIET, **TRAINING, **training}),
        recipe.Model(model_name_or_path=str(folder), dtype="float32", **model),
    )


def start(way: str, family: str, output: Path) -> None:
    """Train two steps, save, load what was saved anew and compare its logits, answer the test rows."""
    WAYS[way][0].main(*settings(way, checkpoint(family), output, load_saved_anew=True))


def answer(way: str, folder: Path, output: Path) -> None:
    """Answer the test rows with what a run left in `folder`."""
    WAYS[way][0].main(*settings(way, folder, output, do_train=False))


def resume(family: str, output: Path) -> None:
    """Train a whole model two steps, and go on from the first: the second has the same loss, and leaves the same."""
    saving = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 2, "do_predict": False}
    left = []
    for more in ({}, {"resume_from_checkpoint": str(output / "checkpoint-1")}):
        begun = settings("visual_chat", checkpoint(family), output, {"use_peft": False}, **saving, **more)
        visual_chat.main(*begun)
        log = json.loads((output / "trainer_state.json").read_text())["log_history"]
        left.append(([line["loss"] for line in log if "loss" in line], load_file(output / "model.safetensors")))
    (losses, weights), (again, weights_again) = left
    assert losses == again and len(losses) == 2
    assert all(torch.equal(weight, weights_again[name]) for name, weight in weights.items())


def export_adapter(family: str, output: Path) -> None:
    """Merge a trained adapter for plain transformers; `vlm-export` itself compares what both say."""
    visual_chat.main(*settings("visual_chat", checkpoint(family), output / "run", do_predict=False))
    export(output / "run", output / "export")
    _, found = AutoModelForImageTextToText.from_pretrained(output / "export", output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"]
    own = load_file(checkpoint(family) / "model.safetensors")
    assert own.keys() == load_file(output / "export" / "model.safetensors").keys()
