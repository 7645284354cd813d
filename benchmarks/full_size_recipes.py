"""Each recipe on its own full-size model for a few steps, on a GPU: `python -m benchmarks.full_size_recipes`.

The recipe's own `main` runs, with its settings, LoRA, quantisation and checkpointing, and with the preflight, on
`benchmarks.full_size_worlds`. The weights are random (`benchmarks.full_size.load_random`): neither memory nor time
depends on them. Two batches make a step, whatever the recipe's number is. Nothing is evaluated or kept.

Memory is PyTorch's: what is allocated once the weights are there, and the most in the steps after the first, with
gradients and optimizer. A step is one of the optimizer, with all its batches and their collating, in this one process.
Beside them stands what the preflight foretold from the longest batch, and what `--plan` counts without weights.
"""

import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import PreTrainedModel

from benchmarks.full_size import load_random
from benchmarks.full_size_worlds import WORLDS
from vlm_recipes.models import checkpoints
from vlm_recipes.models.lisa import loading as lisa
from vlm_recipes.models.surgvivqa import loading as surgvivqa
from vlm_recipes.training.launch import RecipeParser
from vlm_recipes.training.plan.plan import plans

STEPS = 3
ARGUMENTS = (
    f"--max_steps {STEPS} --logging_steps 1 --eval_strategy no --save_strategy no --load_best_model_at_end false"
)
ARGUMENTS += " --do_predict false --disable_tqdm true --dataloader_num_workers 0"
ARGUMENTS += " --gradient_accumulation_steps 2"
GIB = 2**30 / 1e9  # gigabytes


class Watch:
    """The moments at which the optimizer has stepped; memory once the weights are loaded, and in the later steps."""

    def __init__(self):
        self.on_gpu, self.moments, self.loaded = torch.cuda.is_available(), [], 0

    def load(self, *args, **settings) -> PreTrainedModel:
        """Called once for each part of a model: the last time counts."""
        network = load_random(*args, **settings)
        self.loaded = torch.cuda.memory_allocated() if self.on_gpu else 0
        return network

    def stepped(self, *_: Any) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()
            if not self.moments:
                torch.cuda.reset_peak_memory_stats()
        self.moments.append(time.perf_counter())


def train(recipe: str, arguments: list[str], output: Path) -> Watch:
    """Run the recipe with random weights; returns what was seen."""
    module, watch = import_module(f"recipes.{recipe}"), Watch()
    parser = RecipeParser((module.Data, module.Training, module.Model))
    parsed = parser.parse_args_and_config([*arguments, "--output_dir", str(output)])
    with ExitStack() as stack:
        for loading in (checkpoints, lisa, surgvivqa):  # each has the name of its own
            stack.enter_context(patch.object(loading, "load_weights", watch.load))
        stack.callback(register_optimizer_step_post_hook(watch.stepped).remove)
        module.main(*parsed)
    return watch


def planned(recipe: str, arguments: list[str]) -> float:
    """GB that `--plan` counts for the same run on a large card: tensors, with the optimizer's states."""
    module = import_module(f"recipes.{recipe}")
    parser = RecipeParser((module.Data, module.Training, module.Model))
    [made] = plans(module.main, parser.parse_args_and_config, arguments, ["h100_80gb"])
    return (made.step.counted.peak + (0 if made.step.paged else made.step.states)) / 1e9


def measure(
    toy: bool, recipe: str, *more: str, world: Callable[[Path, bool], list[str]] | None = None
) -> list[dict[str, Any]]:
    """A row about the recipe; `more` are arguments for it, `world` is another than that of its name."""
    with tempfile.TemporaryDirectory() as path:
        arguments = [*(world or WORLDS[recipe])(Path(path), toy), *more, *ARGUMENTS.split()]
        output, foreseen = Path(path, "output"), planned(recipe, arguments)
        watch = train(recipe, arguments, output)
        run = json.loads((output / "run.json").read_text())
        checks = {check["name"]: check["numbers"] for check in json.loads((output / "preflight.json").read_text())}
    row: dict[str, Any] = {"what": recipe, "M trained": round(checks["what trains"]["trainable"] / 1e6, 1)}
    if watch.on_gpu:
        row |= {
            "GB loaded": round(watch.loaded / 1e9, 2),
            "GB peak": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        }
    assert len(watch.moments) == STEPS, f"the optimizer has stepped {len(watch.moments)} times and not {STEPS}"
    seconds = statistics.median(b - a for a, b in zip(watch.moments[:-1], watch.moments[1:], strict=True))
    training = run["arguments"]["training"] | run["trained_with"]
    foretold, batches = checks["longest batch"], training["gradient_accumulation_steps"]
    row |= {"s/step": round(seconds, 3), "rows/step": training["per_device_train_batch_size"] * batches}
    row |= {"preflight's s/step": round(foretold["seconds"] * batches, 3)}
    row |= {"preflight's GB": round((foretold["gib"] + foretold["optimizer_gib"]) * GIB, 4)}
    row |= {"--plan's GB": round(foreseen, 4)}
    gc.collect()
    if watch.on_gpu:
        torch.cuda.empty_cache()
    print(f"{recipe}: {', '.join(f'{key} {value}' for key, value in list(row.items())[1:])}", flush=True)
    return [row]


def main() -> None:
    if not torch.cuda.is_available():
        print("no GPU here: nothing measured at full size")
        return
    for recipe in WORLDS:
        measure(False, recipe)


if __name__ == "__main__":
    main()
