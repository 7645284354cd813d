"""What is measured: commands as a user types them, and where their numbers stand in what they leave or print."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.numbers.sources import ROOT
from demo.worlds.build import RECIPES
from vlm_recipes.eval.metrics.number import Number, keys_of
from vlm_recipes.training.compare import read_answers
from vlm_recipes.training.score import Split

SEEDS = (0, 1, 2)
# A demo -> its world and its checkpoint's maker; a recipe of another name than the demo's is in RECIPES.
WORLDS = {
    "nutrition_tables": ("packages", "qwen2_vl"),
    "coco": ("scenes", "qwen2_vl"),
    "kvasir_vqa": ("endoscopy", "qwen2_vl"),
    "vqa_rad": ("radiology", "blip2"),
    "reasonseg": ("scenes", "llava", "sam"),
    "ssg_vqa": ("laparoscopy", "surgvivqa"),
    "visual_chat": ("album", "qwen2_vl"),
}
DIGITS = r"([\d.]+)"
RANGE = rf"{DIGITS} \(from {DIGITS} to {DIGITS}\)"


@dataclass(frozen=True)
class Part:
    """A command and what it measures.

    Args:
        command: the words of it, from the clone's root; "python" is this one.
        entries: files and folders that can move its numbers, with what they import.
        read: the numbers in what the command printed.
        anew: folders that are cleared before: what lies there may be of other code.
    """

    command: tuple[str, ...]
    entries: tuple[str, ...]
    read: Callable[[str], dict[str, Any]]
    anew: tuple[str, ...] = ()


def demo(name: str, seed: int) -> Part:
    recipe, (world, *checkpoints) = RECIPES.get(name, name), WORLDS[name]
    output = f"outputs/demo/{name}" + (f"_seed_{seed}" if seed else "")
    more = ("--seed", str(seed), "--output_dir", output) if seed else ()
    entries = [f"recipes/{recipe}.py", f"demo/configs/{name}.yaml", f"demo/worlds/{world}", "demo/__main__.py"]
    entries += [f"demo/checkpoints/{checkpoint}.py" for checkpoint in checkpoints]
    command = ("python", "-m", "demo", name, *more, "--overwrite_output_dir", "true")
    entries += ["demo/worlds/build.py", "accelerate_configs/cpu.yaml", "requirements.txt", "training/compare.py"]
    entries += ["callbacks/preflight/blank_images.py"]
    entries += [file for file in (f"recipes/{recipe}_videos.yaml",) if (ROOT / file).is_file()]
    anew = (f"outputs/demo/{name}/dataset", f"outputs/demo/{name}/untrained")
    return Part(command, tuple(entries), lambda printed: answers_of(ROOT / output), anew)


def answers_of(folder: Path) -> dict[str, Any]:
    """Each split's numbers by metric, of the answers that a run left, and which one is the headline."""
    run = read_answers(folder, None)
    if not run.record["finished"]:
        raise ValueError(f"the run in {folder} did not come to its end")
    splits = {
        split: {"n": part.scores.n, "numbers": {name: plain(number) for name, number in part.scores.items()}}
        for split, part in run.splits.items()
    }
    headline = run.evaluation.headline
    for split, part in run.splits.items():
        own = splits[split]["numbers"].get(headline, {})
        if own and "groups" not in own and (groups := by_type(part)):
            own["groups"] = groups
    return {"headline": headline, "splits": splits, **blank_images(folder)}


def by_type(part: Split) -> dict[str, dict[str, float]]:
    """The headline's mean over the rows of each question type, where rows have one and the recipe has no groups."""
    scores: dict[str, list[float]] = {}
    for line, score in zip(part.rows, part.per_row, strict=True):
        if "question_type" in line and score is not None:
            scores.setdefault(str(line["question_type"]), []).append(score)
    return {name: {"value": round(fmean(own), 6), "n": len(own)} for name, own in sorted(scores.items())}


def blank_images(folder: Path) -> dict[str, Any]:
    """What the model says about grey images, beside the same rows with their own, as the run's last check has it."""
    for check in json.loads((folder / "preflight.json").read_text(encoding="utf-8")):
        if check["name"] == "blank images" and "blank" in check["numbers"]:
            known = check["numbers"]
            fields = ("value", "low", "high")
            pair = {
                name: {
                    one: round(known[key], 6) for one, key in keys_of(name).items() if one in fields and key in known
                }
                for name in ("with_images", "blank")
            }
            return {"blank images": {name: number | {"n": known["n"]} for name, number in pair.items()}}
    return {}


def plain(number: Number) -> dict[str, Any]:
    """A number as JSON, to six digits; what is not known is left out."""
    known = {name: getattr(number, name) for name in ("value", "n", "low", "high", "baseline", "question_baseline")}
    own = {name: round(value, 6) if isinstance(value, float) else value for name, value in known.items()}
    free = {"free": plain(number.free)} if number.free is not None and number.free.value is not None else {}
    groups = {"groups": {name: plain(group) for name, group in number.groups.items()}} if number.groups else {}
    return {name: value for name, value in own.items() if value is not None} | free | groups


def found(**patterns: str) -> Callable[[str], dict[str, Any]]:
    """Read from printed text the value, and its range where the pattern has three groups, of each name."""

    def read(printed: str) -> dict[str, Any]:
        numbers = {}
        for name, pattern in patterns.items():
            match = re.search(pattern, printed)
            if match is None:
                raise ValueError(f"{name} ({pattern}) is not in what was printed")
            numbers[name] = dict(zip(("value", "low", "high"), map(float, match.groups()), strict=False))
        return numbers

    return read


def text_of(printed: str) -> dict[str, str]:
    """A benchmark's table as it printed it, without what fills its columns."""
    rows = [line.strip("| ").split("|") for line in printed.splitlines() if line.startswith("|")]
    lines = [f"| {' | '.join(re.sub('-{3,}', '---', cell.strip()) for cell in row)} |" for row in rows]
    if not lines:
        raise ValueError("no table is in what was printed")
    return {"text": "\n".join(lines)}


def benchmark(name: str, read: Callable[[str], dict[str, Any]], *more: str, **about: tuple[str, ...]) -> Part:
    entries = (f"benchmarks/{name}.py", "requirements.txt", *about.pop("entries", ()))
    return Part(("python", "-m", f"benchmarks.{name}", *more), entries, read, **about)


def spread(name: str, columns: int = 0) -> str:
    """A number and its range behind the row's name and so many columns; 0: at the row's end, in brackets."""
    if columns:
        return rf"{name}(?:\s+\S+){{{columns}}}\s+{DIGITS}\s+{DIGITS} to {DIGITS}"
    return rf"{name} .*\s{DIGITS}\s+\({DIGITS} to {DIGITS}\)"


def memory(name: str) -> str:
    return rf"{name}(?:\s+\S+){{4}}\s+{DIGITS}"


TRAINED = {
    "TRL's collator, GB": memory("TRL's collator"),
    "ChatCollator": spread("ChatCollator"),
    "ChatCollator, GB": memory("ChatCollator"),
    "shared images": spread("shared images"),
    "shared images, GB": memory("shared images"),
}
ANSWERED = {
    "padded batches": spread("answers, padded batch", 1),
    "shared images": spread("answers, shared images", 1),
    "closed sets": spread("labels, shared images", 1),
}
LEARNT = {
    "before": rf"before: test {DIGITS}",
    "apart": spread("each question by itself"),
    "together": spread("an image's questions together"),
}
POLYPS = ("recipes/kvasir_vqa.py", "demo/configs/kvasir_vqa.yaml", "demo/worlds/endoscopy")
POLYPS += ("demo/checkpoints/qwen2_vl.py", "accelerate_configs/cpu.yaml")
CURVES = tuple(f"outputs/learning_curve/{folder}" for folder in ("dataset", "untrained", "described"))
COLLATED = {
    "small pictures": rf"small pictures.* {DIGITS}\n",
    "photographs": rf"photographs.* {DIGITS}\n",
    "photographs, % of the image processor alone": rf"photographs.*\n.*alone: {DIGITS}%",
}
PARTS: Mapping[str, Part] = {
    **{f"demo {name}, seed {seed}": demo(name, seed) for seed in SEEDS for name in WORLDS},
    "labels scored as a tree": benchmark("label_scores", found(times=rf"one by one / tree: {RANGE}")),
    "constrained decoding": benchmark("constraints", found(times=rf"constrained / free: {RANGE}")),
    "collator": benchmark("collator", found(**COLLATED)),
    "shared images, training": benchmark("training_speed", found(**TRAINED)),
    "shared images, answering": benchmark("evaluation_speed", found(**ANSWERED)),
    **{
        f"learning, {what}": benchmark("learning_curve", found(**LEARNT), what, entries=POLYPS, anew=CURVES)
        for what in ("adapter", "whole", "scratch")
    },
    "last evaluation": benchmark("last_evaluation", text_of),
    "where one machine ends": benchmark("scale", text_of, entries=("training/plan/gpus.py",)),
    "first step": benchmark("rows", text_of, entries=("recipes/kvasir_vqa.py", "recipes/ssg_vqa.py")),
}
