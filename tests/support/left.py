"""What a few steps of each recipe leave on its small world, once a session; nobody may change what is in there.

A run with flags of its own looks at nothing beforehand, which takes a third of it, unless it is sent to the Hub.
"""

import hashlib
import json
import runpy
import sys
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

from tests.support.paths import ROOT
from tests.support.session import once
from tests.support.worlds import world

WHOLE = {  # flags with which a recipe trains no adapter
    "nutrition_tables": "--tune all",
    "kvasir_vqa": "--use_peft false",
    "vqa_rad": "--use_peft false",
    "reasonseg": "--tune all",
    "ssg_vqa": "--train_gpt2 true",
    "visual_chat": "--use_peft false",
}
STEPS = """--max_steps 3 --learning_rate 1e-2 --warmup_steps 0 --use_cpu true --bf16 false --dataloader_num_workers 0
--gradient_accumulation_steps 1
--eval_strategy no --save_strategy no --load_best_model_at_end false --report_to none --disable_tqdm true"""
QUICK = """--max_steps 1 --logging_steps 1 --eval_strategy no --load_best_model_at_end false --save_strategy steps
--save_steps 1 --use_cpu true --bf16 false --dataloader_num_workers 0 --disable_tqdm true
--gradient_accumulation_steps 2 --max_train_rows 4 --max_validation_rows 2 --max_test_rows 1 --max_new_tokens 2"""
VALIDATED = ("vqa_rad", "ssg_vqa")  # which also answer their validation part in the end
INSPECT = "vlm_recipes.callbacks.preflight.callback.PreflightCallback.on_train_begin"


def left_by(recipe: str, *more: str) -> Path:
    """The output folder of a run with the flags `more`; its world, with the model it began with, is beside it."""

    def train(folder: Path) -> None:
        arguments = [*world(recipe, folder), *STEPS.split(), "--output_dir", str(folder / "out"), *more]
        looks = not more or "--push_to_hub" in more
        with nullcontext() if looks else mock.patch(INSPECT, lambda *event, **named: None):
            _start(recipe, arguments)

    flags = hashlib.sha256(" ".join(more).encode()).hexdigest()[:8] if more else "plain"
    return once(f"left_{recipe}_{flags}", train) / "out"


def quick_look(recipe: str) -> tuple[Path, list[str]]:
    """The output folder of one step on a few rows, with its checkpoint, and the arguments that it was started with."""

    def train(folder: Path) -> None:
        arguments = [*world(recipe, folder), *QUICK.split()]
        arguments += ["--predict_validation", "true"] if recipe in VALIDATED else []
        (folder / "arguments.json").write_text(json.dumps(arguments))
        _start(recipe, [*arguments, "--output_dir", str(folder / "out")])

    folder = once(f"quick_{recipe}", train)
    return folder / "out", json.loads((folder / "arguments.json").read_text())


def _start(recipe: str, arguments: list[str]) -> None:
    with mock.patch.object(sys, "argv", [recipe, *arguments]):
        runpy.run_path(str(ROOT / "recipes" / f"{recipe}.py"), run_name="__main__")
