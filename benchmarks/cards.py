"""Which recipe fits which card, with which flags, and for how long it runs: `python -m benchmarks.cards`.

Every recipe's `--plan`, for each of the four cards, with its own defaults, on its own full-size model and the rows of
`benchmarks.full_size_worlds`: counted, without a GPU and without weights. Writes `docs/cards.md` and the comments of
the cards' `accelerate_configs`. Took eight minutes of one core.
"""

import importlib
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from benchmarks import lisa
from benchmarks.full_size import full_size, sam_vit
from benchmarks.full_size_worlds import WORLDS
from recipes import reasonseg
from vlm_recipes.callbacks.preflight.model import duration
from vlm_recipes.models.precision import DTYPES
from vlm_recipes.training.launch import RecipeParser
from vlm_recipes.training.plan.gpus import ALLOWANCE, GPUS, SHARE
from vlm_recipes.training.plan.ladder import SMALLER
from vlm_recipes.training.plan.plan import Plan, plans

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "cards.md"
CONFIGS = ROOT / "accelerate_configs"
QUESTIONS = {  # to train on, of the published datasets with the recipe's own split; the others count steps, not epochs
    "nutrition_tables": 1083 * 0.95,
    "kvasir_vqa": 58_849 * 0.7,
    "vqa_rad": 1793 * 0.95,
    "visual_chat": 259_155 * 0.99,
}
DEFAULTS = "its defaults"
HELD_OUT = ["--validation_fraction", "0.4"]  # of the few rows that are drawn: a batch to evaluate, too
CACHE = 28 * 2 * 4 * 128 * 2 / 1e3  # KB a token at Qwen2-VL-7B: layers, keys and values, their heads, width, bytes
COMMENT = "# Recipe flags that fit, with GiB at the peak and hours, as counted (docs/cards.md):\n"
HEAD = """# Which card, how long

Before renting or queueing: does a run fit, for how long does it train, and what to change if not?

```bash
python recipes/nutrition_tables.py --plan t4_16gb    # or rtx_8gb, a100_40gb, h100_80gb, or all
```

`--plan` goes with every other flag of a run, on any machine: it reads the rows, makes the model of its configuration
alone, without weights, and counts one step of the run's own Trainer on the longest batch of some 70 rows. No GPU is
needed, and nothing is left behind but prepared rows in the cache of `datasets`. One card takes some 20 seconds on one
core at 7B beside reading the rows, and as much again for each change that is tried where a run does not fit. A dataset
or model of the Hub needs a line to it, or its cache.

**Counted** are all tensors: weights as they are stored (4 and 8 bits packed, with their scales, and the copy that a
layer makes of them when it computes), gradients, AdamW's states, and activations with the recipe's own LoRA,
checkpointing, frozen towers and loss; and the operations of matrix products, convolutions and attention. On a CPU the
count is within 1 % of PyTorch's profiler for all six recipes at a small size (`tests/training/plan/test_count.py`).

**Assumed** are {allowance} GiB beside them for CUDA itself (its context, workspaces, gaps), and for the time
{share:.0f} % of the card's peak, every batch as long as the longest. The one measurement, on an H200, had 15 % without
shared images and 4.7 % with them: where images are shared expect up to three times these hours, and small models wait
for Python, too.

**Of evaluation** the memory of its loss is counted, which in batches of `--per_device_eval_batch_size` can be more
than a training step's; not its hours, and not the caches of answers: {cache:.0f} KB a token at Qwen2-VL-7B, prompts
included, for each row of a batch, or for up to 64 questions where they share their image.

**No GPU has confirmed these numbers** but where [measured.md](measured.md) has them, tensors alone, without optimizer:
Kvasir-VQA 16.6 GiB measured and {kvasir:.1f} counted, nutrition tables 17.7 and {nutrition:.1f}. ReasonSeg's line for
a small card (at the top of the recipe) takes **{seg:.2f} GB** of tensors, as counted; with `--tune lisa`, which trains
embeddings and output head whole as the reference does, {lisa:.2f} GB ({lisa_gib:.1f} GiB; 7.5 GiB were measured).

Below, each recipe has its own defaults and the published dataset's number of questions, visual_chat that of
`HuggingFaceH4/llava-instruct-mix-vsft`; rows are drawn, at the recipe's own size of images. Below 24 GiB chat models
with LoRA are loaded in 4 bits by default; vqa_rad is in 8 bits on every card. Where the defaults do not fit, the flags
are the first that do, added in this order: checkpointing, one row a batch, four bits, fewer pixels, fewer questions a
row, of LISA's vocabulary `[SEG]` alone, paged 8-bit AdamW, a smaller model; what later ones make needless is taken out
again. Made by `python -m benchmarks.cards`.
"""


@dataclass(frozen=True)
class Cell:
    """What is said of a recipe on a card: flags beside its defaults, GiB at the peak and hours, if any fit."""

    recipe: str
    card: str
    flags: str
    gib: str = ""
    training: str = ""  # how long
    tensors: float = 0.0  # GiB of the step itself, at the recipe's defaults


def cells_of(recipe: str, cards: Sequence[str] = tuple(GPUS), toy: bool = False) -> list[Cell]:
    """The recipe on each card."""
    module = importlib.import_module(f"recipes.{recipe}")

    def parse(arguments: list[str]) -> Any:
        return RecipeParser((module.Data, module.Training, module.Model)).parse_args_and_config(arguments)

    with tempfile.TemporaryDirectory() as path:
        arguments = WORLDS[recipe](Path(path), toy)
        arguments += HELD_OUT if recipe in ("nutrition_tables", "vqa_rad", "visual_chat") else []
        smaller, names = ({}, {}) if toy else smaller_models(Path(path))
        return [cell(recipe, made, names) for made in plans(module.main, parse, arguments, cards, smaller)]


def smaller_models(world: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Of a model's folder in this world, the folder of the next smaller one; and what that is called on the Hub."""
    large = {"Qwen/Qwen2-VL-7B-Instruct": world / "model", "facebook/sam-vit-huge": world / "model" / "sam"}
    if (world / "model" / "sam").is_dir():
        del large["Qwen/Qwen2-VL-7B-Instruct"]
    smaller, names = {}, {}
    for name, folder in large.items():
        if not (folder / "config.json").is_file() or "Blip2" in (folder / "config.json").read_text():
            continue
        small = world / "smaller"
        shutil.copytree(folder, small)
        is_sam = name.startswith("facebook")
        (
            sam_vit("base") if is_sam else full_size("Qwen2-VL-2B", AutoTokenizer.from_pretrained(folder))
        ).save_pretrained(small)
        smaller[str(folder)], names[str(small)] = str(small), SMALLER[name]
    return smaller, names


def cell(recipe: str, made: Plan, names: dict[str, str]) -> Cell:
    tensors = made.step.counted.peak / 2**30
    if made.fitting is None:
        return Cell(recipe, made.card, "does not fit", tensors=tensors)
    pairs = zip(made.flags[::2], made.flags[1::2], strict=True)
    flags = " ".join(f"{flag} {names.get(value, value)}" for flag, value in pairs if flag != "--min_pixels")
    _, training, _ = made.asked
    per_step = training.per_device_train_batch_size * training.gradient_accumulation_steps
    steps = training.num_train_epochs * QUESTIONS[recipe] / per_step if recipe in QUESTIONS else training.max_steps
    hours = made.fitting.hours(made.gpu, made.precision != DTYPES["no"], steps)
    return Cell(recipe, made.card, flags, f"{made.fitting.needed:.1f}", duration(3600 * hours), tensors)


def small_card(tune: str) -> float:
    """GB of tensors in a step of ReasonSeg's line for a small card, with this `--tune`."""
    parser = RecipeParser((reasonseg.Data, reasonseg.Training, reasonseg.Model))
    with tempfile.TemporaryDirectory() as path:
        setting = f"{lisa.SETTING} {lisa.PAGED} --tune {tune}".split()
        arguments = [*WORLDS["reasonseg"](Path(path), False, sam="base"), *setting]
        [made] = plans(reasonseg.main, parser.parse_args_and_config, arguments, ["rtx_8gb"], {})
        return made.step.counted.peak / 1e9


def page(cells: Sequence[Cell], seg: float, lisa: float) -> str:
    """`docs/cards.md`; `seg` and `lisa` are `small_card`'s."""
    known = {one.recipe: one.tensors for one in cells if one.card == "a100_40gb"}
    numbers = {"kvasir": known["kvasir_vqa"], "nutrition": known["nutrition_tables"]}
    numbers |= {"cache": CACHE, "seg": seg, "lisa": lisa, "lisa_gib": lisa * 1e9 / 2**30}
    parts = [HEAD.format(allowance=ALLOWANCE, share=100 * SHARE, **numbers)]
    for card, gpu in GPUS.items():
        parts.append(f"## {gpu.name}\n\n`accelerate_configs/{card}.yaml`; PyTorch sees {gpu.gib} GiB.\n")
        lines = ["| recipe | flags | GiB | training |", "| --- | --- | ---: | ---: |"]
        for one in (one for one in cells if one.card == card):
            flags = f"`{one.flags}`" if one.flags.startswith("--") else one.flags or DEFAULTS
            lines.append(f"| {one.recipe} | {flags} | {one.gib} | {one.training} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def comments(card: str, cells: Sequence[Cell]) -> str:
    """What a card's config says above its settings."""
    lines = [COMMENT]
    for one in (one for one in cells if one.card == card):
        found = f": {one.gib} GiB, {one.training}" if one.gib else ""
        lines.append(f"#   {one.recipe}: {one.flags or DEFAULTS}{found}\n")
    return "".join(lines)


def with_comments(text: str, card: str, cells: Sequence[Cell]) -> str:
    """The text of a card's config with its comment about recipes anew; what else it says stays."""
    return re.sub(r"# Recipe flags.*\n(?:#   .*\n)*", comments(card, cells), text, count=1)


def cell_of_line(line: str, card: str) -> Cell:
    """A line of a table of the page, read again."""
    recipe, flags, gib, training = (part.strip(" `") for part in line.strip("|\n").split("|"))
    return Cell(recipe, card, "" if flags == DEFAULTS else flags, gib, training)


def main() -> None:
    cells = []
    for recipe in WORLDS:
        cells += cells_of(recipe)
        print(*cells[-len(GPUS) :], sep="\n", flush=True)
    PAGE.write_text(page(cells, small_card("seg"), small_card("lisa")), encoding="utf-8")
    for card in GPUS:
        file = CONFIGS / f"{card}.yaml"
        file.write_text(with_comments(file.read_text(encoding="utf-8"), card, cells), encoding="utf-8")


if __name__ == "__main__":
    main()
