"""An output folder belongs to one run: another's is refused before a model is loaded, and one that cannot be written.

Two starts are the same run where these agree: the recipe; whether it trains; of `Data`, where rows come from and how
they are split (`DATA`); of `Model`, what it starts from (`BASE`) and, where it trains, what is tuned (`TUNED`). Rates,
steps, batches, seeds, prompts and limits of rows may differ: whoever tries another rate in a folder replaces what the
last one left. Evaluating what a run left in the folder that it was left in is the same run, too, on the same data.
"""

import os
import re
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from trl import ModelConfig

from ..eval.report.page import replace_file
from .checkpoints import CHECKPOINT, NO_SPACE, newest_whole
from .held import hold
from .runs import RunError, kept_in, left_in, no_model_in, read_run

DATA = re.compile(r"dataset_\w+|frames_folder|videos|image_disjoint|\w+_fraction|split_seed")
BASE = re.compile(r"\w*name_or_path|model_revision")
TUNED = re.compile(r"tune|train_\w+|use_peft|lora_target_modules|lora_modules_to_save")

# What a run leaves, by name, beside its figures. A tracker's files and the answers of `vlm-ask` are not the run's.
LEFT = re.compile(
    r"(run|results|baseline|preflight|prompt|question_types|trainer_state)\.json|(predictions|rejected)\.jsonl"
    r"|(report|data)\.html|training_args\.bin|README\.md"  # README.md: the model card
    r"|(adapter_)?model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json|(adapter_|generation_)?config\.json"
    r"|((video_)?(pre)?processor|tokenizer)(_config)?\.json|(special_tokens_map|added_tokens)\.json"
    r"|partial_answers|merged_base(\.partial)?|chat_template\.jinja|vocab\.(json|txt)|merges\.txt|(spiece|tokenizer)\.model|question_tokenizer"
)


class FolderError(ValueError):
    """The output folder is another run's or cannot be written to; the message says which, and what to do."""


def claim_folder(recipe: str, *arguments: Any) -> None:
    """Make `--output_dir` and see that this run may write there; with `--overwrite_output_dir`, clear it before.

    The first process looks; all of them raise `FolderError` where the folder may not be used.

    Args:
        recipe: the recipe's `__file__`.
        arguments: its dataclasses; without a `TrainingArguments` among them there is no folder.
    """
    training = next((part for part in arguments if isinstance(part, TrainingArguments)), None)
    if training is None:
        return
    asked: dict[str, dict[str, Any]] = {"training": training.to_dict(), "model": {}, "data": {}}
    for part in arguments:
        if part is not training:
            asked["model" if isinstance(part, ModelConfig) else "data"] |= asdict(part)
    fault = [None]
    if PartialState().is_main_process:
        fault = [_fault(Path(training.output_dir), run_of(Path(recipe).stem, asked), asked["training"])]
    broadcast_object_list(fault)
    if fault[0]:
        raise FolderError(fault[0])


def run_of(recipe: str, arguments: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The recipe's name and those `arguments`, as in run.json, that make a run another one."""
    trains = arguments["training"].get("do_train", True)
    known = {"recipe": recipe, "do_train": trains}
    known |= {key: value for key, value in arguments["data"].items() if DATA.fullmatch(key)}
    wanted = (BASE, TUNED) if trains else (BASE,)
    return known | {key: v for key, v in arguments["model"].items() if any(kind.fullmatch(key) for kind in wanted)}


def differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The settings that differ, with both values; "" if none do. What only one of the two has is not compared."""
    changed = [key for key in before if key in now and not _same(before[key], now[key])]
    return ", ".join(f"{key} {before[key]} and not {now[key]}" for key in changed)


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal, or two ways to write the path of one file."""
    paths = isinstance(one, str) and isinstance(other, str) and os.path.exists(one) and os.path.exists(other)
    return one == other or (paths and os.path.samefile(one, other))


def _fault(folder: Path, now: dict[str, Any], training: dict[str, Any]) -> str | None:
    """Why the run `now` may not use the folder; None where it may, and then it is there."""
    if os.path.lexists(folder) and not folder.is_dir():
        return f"--output_dir {folder} is a file: name a folder"
    for key, name in now.items():
        if key.endswith("name_or_path") and name and (fault := no_model_in(Path(name))):
            return f"--{key} {fault}"
    try:
        is_new = not folder.is_dir()
        if not (is_new or hold(folder)):
            return f"another launch is at work in --output_dir {folder}: wait for its end, or name another folder"
        if training.get("overwrite_output_dir"):  # only recipes' own settings have it
            if fault := _read_by(folder, now, training):
                return fault
            clear(folder)
        elif fault := _owner(folder, now):
            return fault
        elif left := _replaced(folder, training):
            goes_on = "--resume_from_checkpoint true goes on from it, " if newest_whole(folder)[0] else ""
            line = f"! {folder} has {left}: this run begins anew and replaces it"
            print(f"{line}; {goes_on}another --output_dir keeps it", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        if is_new:
            hold(folder)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(os.urandom(2**20))  # which no file system makes smaller
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in NO_SPACE:
            return f"the disk is full, cannot write to {folder}: make room, or name another --output_dir"
        return f"cannot write to {folder} ({error.strerror}): name another --output_dir"
    return None


def _owner(folder: Path, now: dict[str, Any]) -> str | None:
    """What to say where the folder is another run's than `now`."""
    advice = "name another --output_dir, or clear it by --overwrite_output_dir true"
    states = [folder / TRAINER_STATE_NAME, *folder.glob(f"checkpoint-*/{TRAINER_STATE_NAME}")]
    kept = next(filter(None, map(kept_in, states)), None)  # for run.json may be an evaluation's, or not there yet
    if kept is None and not (folder / "run.json").is_file():
        return None
    try:
        if kept is None:
            run = read_run(folder)
            kept = {"run": run_of(run["recipe"], run["arguments"])}
    except (RunError, LookupError, AttributeError, TypeError) as error:
        return f"--output_dir {folder} is a run's whose record cannot be read ({error}): {advice}"
    before = kept["run"]
    if before["recipe"] != now["recipe"]:
        now = {"recipe": now["recipe"]}  # of which the other settings are others, too
    elif before["do_train"] and not now["do_train"] and left_in(folder, now.get("model_name_or_path")):
        now = {key: value for key, value in now.items() if DATA.fullmatch(key)}
    changed = differences(before, now)
    return changed and f"--output_dir {folder} is another run's ({changed}): {advice}"


def _replaced(folder: Path, training: dict[str, Any]) -> str:
    """What a training that begins anew would replace, in words; "" for nothing."""
    if not training.get("do_train", True) or training["max_steps"] == 0:
        return ""
    if goes_on_in(folder, training["resume_from_checkpoint"]):
        return ""
    if (folder / TRAINER_STATE_NAME).is_file():
        return "a trained model"
    return "checkpoints of a training that did not end" if any(folder.glob("checkpoint-*")) else ""


def goes_on_in(folder: Path, wanted: str | bool | None) -> bool:
    """Whether a training goes on from a checkpoint of its own folder; `wanted` is `resume_from_checkpoint`."""
    if str(wanted).lower() == "true":
        return newest_whole(folder)[0] is not None
    return _is_asked_for(wanted) and Path(str(wanted)).resolve().parent == folder.resolve()


def _is_asked_for(wanted: str | bool | None) -> bool:
    return str(wanted).lower() not in ("none", "false", "")


def _read_by(folder: Path, now: dict[str, Any], training: dict[str, Any]) -> str | None:
    """What to say where the run `now` needs what it would clear."""
    if _is_asked_for(training["resume_from_checkpoint"]):
        return "--overwrite_output_dir clears what --resume_from_checkpoint goes on from: leave one of them out"
    read = [key for key, name in now.items() if BASE.fullmatch(key) and left_in(folder, name)]
    return f"--overwrite_output_dir clears --{read[0]} {now[read[0]]}: name another --output_dir" if read else None


def clear(folder: Path) -> None:
    """Delete what a run left in the folder, and nothing else; nothing at all where there is no sign of a run."""
    if not (folder / "run.json").is_file() and not any(folder.glob(f"checkpoint-*/{TRAINER_STATE_NAME}")):
        return
    for path in [*folder.iterdir(), *folder.glob("figures/*.png")]:
        if path.parent != folder or LEFT.fullmatch(path.name) or CHECKPOINT.fullmatch(path.name):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if (folder / "figures").is_dir() and not any((folder / "figures").iterdir()):
        (folder / "figures").rmdir()


def write_once(file: Path, text: str) -> None:
    """Write a file of the run's folder: the first process alone does, and a reader sees all of it or none."""
    if PartialState().is_main_process:
        replace_file(file, text.encode())
