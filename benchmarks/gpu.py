"""All that wants a GPU, in one command of less than nine minutes: `python -m benchmarks.gpu [--toy] [--only PART …]`.

The most valuable part comes first. Each has its own limit of time, its rows are printed as they come, and one that
fails costs only itself; one that has no time left says where it stands. A table of all comes last. With `$OUT` set,
`gpu.json` in that folder has the same, rewritten after every part. `--only` takes the parts whose names begin so, in
that order. `--toy` runs every part at a size for two CPU cores, so that on a GPU nothing is tried for the first
time. The exit status is 0 if every part was done.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.parts import Gone, Outcome, Part, Worker, carry_out

ROOT = Path(__file__).parents[1]
RECIPES = ("kvasir_vqa", "nutrition_tables", "vqa_rad", "reasonseg", "ssg_vqa", "visual_chat")
PARTS = [
    Part("shared images, 7B", "benchmarks.training_speed:measure", 130, {"name": "Qwen2-VL-7B"}),
    Part("small worlds", "benchmarks.small_worlds:measure", 150),
    Part("LISA on 8 GB", "benchmarks.lisa:measure", 45),
    *(Part(f"{name} at full size", "benchmarks.full_size_recipes:measure", 45, {"recipe": name}) for name in RECIPES),
    Part("shared images, 2B", "benchmarks.training_speed:measure", 60, {"name": "Qwen2-VL-2B"}),
    Part("answers at full size", "benchmarks.evaluation_speed:measure", 45),
]
SECONDS = 530  # for all parts and the processes that do them
TOY_PATIENCE = 4  # times these limits, on CPU cores that others use, too
DESCRIBE = "benchmarks.gpu:machine"
PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes")


def machine() -> dict[str, Any]:
    """Device, its memory, versions and commit; imports what the parts need."""
    import torch
    from trl import SFTTrainer  # noqa: F401

    from vlm_recipes.training.description import git_commit

    on_gpu = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if on_gpu else f"CPU, {os.cpu_count()} cores",
        "GB": round(torch.cuda.get_device_properties(0).total_memory / 1e9, 1) if on_gpu else None,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "commit": git_commit(ROOT),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each row, set in, under the names of all columns."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[row.get(head, "") for head in heads] for row in rows]
    lines = [heads, *([f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in line] for line in cells)]
    first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    aligned = [[line[0].ljust(first), *map(str.rjust, line[1:], others)] for line in lines]
    return "\n".join("    " + "  ".join(line) for line in aligned)


def described(outcome: Outcome) -> str:
    return "\n".join([str(outcome), *([table(outcome.rows)] if outcome.rows else [])])


def save(record: dict[str, Any], outcomes: Sequence[Outcome]) -> None:
    """Write `gpu.json` into `$OUT`, whole or not at all."""
    if folder := os.environ.get("OUT"):
        file = Path(folder, "gpu.json")
        file.parent.mkdir(parents=True, exist_ok=True)
        half = file.with_suffix(".half")
        half.write_text(json.dumps(record | {"parts": [asdict(one) for one in outcomes]}, indent=2))
        half.replace(file)


def main(arguments: list[str] | None = None) -> int:
    started = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--toy", action="store_true", help="every part at a size for two CPU cores")
    parser.add_argument("--only", nargs="+", metavar="PART", help="how the names of the parts to do begin")
    asked = parser.parse_args(arguments)
    toy, chosen = asked.toy, [one for name in asked.only or [""] for one in PARTS if one.name.startswith(name)]
    if not chosen:
        parser.error(f"no part begins so: {', '.join(one.name for one in PARTS)}")
    worker, patience, outcomes = Worker(toy, DESCRIBE), TOY_PATIENCE if toy else 1, []
    try:
        record = {"toy": toy, **worker.start()}
        if record["GB"] is None and not toy:
            print("no GPU here: nothing measured; --toy tries every part on the CPU")
            return 0
        memory = f", {record['GB']} GB" if record["GB"] else ""
        title = f"{record['device']}{memory}, {record['versions']}, commit {record['commit']}"
        print(title, flush=True)
        save(record, outcomes)
        parts = [Part(one.name, one.measure, one.limit * patience, one.arguments) for one in chosen]
        for outcome in carry_out(parts, worker, started + SECONDS * patience):
            outcomes.append(outcome)
            print(described(outcome), flush=True)
            save(record, outcomes)
    except Gone as gone:
        sys.exit(f"error: no process to measure in: {gone.args[1]}")
    finally:
        worker.end()
    done = sum(one.status == "done" for one in outcomes)
    print(f"\n{title}\n{done} of {len(outcomes)} parts done in {time.monotonic() - started:.0f} s")
    print("\n".join(map(described, outcomes)))
    return 0 if done == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
