"""What a few steps of each recipe leave on its small world, once a session; nobody may change what is in there.

A run with flags of its own looks at nothing beforehand, which takes a third of it, unless it is sent to the Hub.
"""

import hashlib
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
INSPECT = "vlm_recipes.callbacks.preflight.callback.PreflightCallback.on_train_begin"


def left_by(recipe: str, *more: str) -> Path:
    """The output folder of a run with the flags `more`; its world, with the model it began with, is beside it."""

    def train(folder: Path) -> None:
        arguments = [*world(recipe, folder), *STEPS.split(), "--output_dir", str(folder / "out"), *more]
        looks = not more or "--push_to_hub" in more
        inspected = nullcontext() if looks else mock.patch(INSPECT, lambda *event, **named: None)
        with mock.patch.object(sys, "argv", [recipe, *arguments]), inspected:
            runpy.run_path(str(ROOT / "recipes" / f"{recipe}.py"), run_name="__main__")

    flags = hashlib.sha256(" ".join(more).encode()).hexdigest()[:8] if more else "plain"
    return once(f"left_{recipe}_{flags}", train) / "out"
