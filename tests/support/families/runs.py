"""Two steps of a recipe with a tiny checkpoint of a family, in this process."""

from pathlib import Path
from types import ModuleType

from recipes import kvasir_vqa, nutrition_tables, visual_chat
from tests.support.families import checkpoint
from tests.support.families.worlds import world
from tests.support.running import QUIET

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


def settings(way: str, folder: Path, output: Path, **training) -> tuple:
    """What the recipe's `main` takes, for the model in `folder`."""
    recipe, model = WAYS[way]
    return (
        recipe.Data(dataset_name=str(world(name_of(recipe))), max_new_tokens=12, **PIXELS, **DATA[recipe]),
        recipe.Training(output_dir=str(output), **{**QUIET, **TRAINING, **training}),
        recipe.Model(model_name_or_path=str(folder), dtype="float32", lora_r=4, lora_alpha=8, **model),
    )


def start(way: str, family: str, output: Path) -> None:
    """Train two steps, save, load what was saved anew and compare its logits, answer the test rows."""
    WAYS[way][0].main(*settings(way, checkpoint(family), output, load_saved_anew=True))


def answer(way: str, folder: Path, output: Path) -> None:
    """Answer the test rows with what a run left in `folder`."""
    WAYS[way][0].main(*settings(way, folder, output, do_train=False))
