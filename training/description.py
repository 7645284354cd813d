"""What one needs to know to repeat a run, as run.json has it."""

import platform
import subprocess
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import TrainerState, TrainingArguments

from ..models.upstream import fingerprint

PACKAGES = ("torch", "transformers", "trl", "accelerate", "peft", "datasets")


def describe_run(recipe: str, data: Any, training: TrainingArguments, model: Any, parts: dict[str, Dataset]) -> dict:
    """Return what one needs to know to repeat a run: recipe, arguments, versions, git commit, dataset, device.

    Args:
        recipe: the recipe's `__file__`.
        parts: split -> the rows whose fingerprints are recorded.
    """
    device = PartialState().device
    is_cuda = device.type == "cuda"
    return {
        "recipe": Path(recipe).stem,
        "arguments": {"data": asdict(data), "training": training.to_dict(), "model": asdict(model)},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "git_commit": git_commit(Path(recipe).parent),
        "dataset_fingerprint": {split: fingerprint(rows) for split, rows in parts.items()},
        "device": torch.cuda.get_device_name(device) if is_cuda else f"{device.type} {platform.machine()}",
        "processes": PartialState().num_processes,
    }


def changed_settings(asked: TrainingArguments, used: TrainingArguments) -> dict[str, Any]:
    """What a training was given other than was asked, such as a batch counted in rows instead of questions."""
    before = asked.to_dict()
    return {name: value for name, value in used.to_dict().items() if value != before[name]}


def best_step(args: TrainingArguments, state: TrainerState) -> int | None:
    """After which step the model was the best, where a training ended by loading that one; None for the last."""
    loaded = state.best_model_checkpoint if args.load_best_model_at_end else None
    return int(Path(loaded).name.rpartition("-")[2]) if loaded else None  # `best_global_step` may have no checkpoint


def kept_in_words(run: dict[str, Any]) -> str:
    """Which model a training has kept, as its `run.json` has it; "" for the last step's."""
    training = {**run["arguments"]["training"], **run.get("trained_with", {})}
    step = run.get("best_global_step")
    return f"kept is the model after step {step:,}, the best by {training['metric_for_best_model']}" if step else ""


def git_commit(folder: Path) -> str | None:
    """The commit checked out at `folder`, with `-dirty` when files differ from it; None outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
