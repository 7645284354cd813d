"""What is measured: commands as a user types them, and where their numbers stand in what they leave or print."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.numbers.reading import answers_of, found, text_of
from benchmarks.numbers.sources import ROOT
from demo.worlds.build import RECIPES

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
        told_by: demos, each with settings of its own, whose short runs tell whether a change of code moved a number.
    """

    command: tuple[str, ...]
    entries: tuple[str, ...]
    read: Callable[[str], dict[str, Any]]
    anew: tuple[str, ...] = ()
    told_by: tuple[tuple[str, ...], ...] = ()


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
    return Part(command, tuple(entries), lambda printed: answers_of(ROOT / output), anew, ((name,),))


def benchmark(name: str, read: Callable[[str], dict[str, Any]], *more: str, **about: tuple) -> Part:
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
TUNED = {"adapter": ("--use_peft", "true"), "whole": (), "scratch": ()}
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
        f"learning, {what}": benchmark(
            "learning_curve",
            found(**LEARNT),
            what,
            entries=POLYPS,
            anew=CURVES,
            told_by=tuple(("kvasir_vqa", "--questions_per_row", number, *tuned) for number in ("1", "20")),
        )
        for what, tuned in TUNED.items()
    },
    "last evaluation": benchmark("last_evaluation", text_of),
    "where one machine ends": benchmark("scale", text_of, entries=("training/plan/gpus.py",)),
    "first step": benchmark("rows", text_of, entries=("recipes/kvasir_vqa.py", "recipes/ssg_vqa.py")),
}
