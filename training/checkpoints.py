"""Which checkpoint a run goes on from: the newest one that was written to its end, also where the disk is full."""

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from transformers import Trainer, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

LOADABLE = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")  # anywhere
# FSDP's; `latest` is DeepSpeed's and names the folder with all its states.
WEIGHTS = (*LOADABLE, "latest", "pytorch_model_fsdp*")
NEEDED = {
    "no weights": WEIGHTS,
    "no optimizer": ("optimizer.pt", "optimizer.bin", "optimizer_*", "latest"),
    "no scheduler.pt": ("scheduler.pt", "latest"),
    "no rng_state": ("rng_state*.pth",),
}
MODEL_ALONE = "it holds the model alone, --save_only_model true"
CHECKPOINT = re.compile(r"(broken-)?checkpoint-\d+")  # a folder's name
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What safetensors and PyTorch say where Python would raise an OSError with one of these numbers.
NO_SPACE_TEXT = rf"os error ({'|'.join(map(str, NO_SPACE))})\b|inline_container|PytorchStreamWriter|iostream error"


class ResumeError(ValueError):
    """There is no going on from the checkpoint that was named; the message says why."""


class FullDiskError(OSError):
    """Nothing more could be written; the message says where, and what is left to go on from."""


def saved_with(eval_strategy: str, eval_steps: float | None) -> dict[str, str | float]:
    """When checkpoints are saved unless it is said: with each evaluation, or where there is none, every 500 steps."""
    return {"save_strategy": "steps" if eval_strategy == "no" else eval_strategy, "save_steps": eval_steps or 500}


def fault_of(checkpoint: Path) -> str | None:
    """What keeps a run from going on from this folder; None for a checkpoint that was written to its end."""
    state = checkpoint / TRAINER_STATE_NAME  # the last file that the first process writes
    if not state.is_file():
        return f"no {TRAINER_STATE_NAME}"
    try:
        TrainerState.load_from_json(str(state))
    except (OSError, ValueError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    missing = [fault for fault, patterns in NEEDED.items() if not any(map(any, map(checkpoint.glob, patterns)))]
    if missing:
        return MODEL_ALONE if missing == list(NEEDED)[1:] else missing[0]
    # The other processes may still write when the first one is done.
    saved = {file.name for file in checkpoint.glob("rng_state*.pth")}
    if saved != {"rng_state.pth"}:  # the one of a single process has no number
        if missing := {f"rng_state_{rank}.pth" for rank in range(max(2, len(saved)))} - saved:
            return f"no {min(missing)}"
    if (latest := checkpoint / "latest").is_file():
        folder = latest.read_text().strip()
        states = len(list((checkpoint / folder).glob("*optim_states.pt")))
        if states < len(saved):
            return f"{states} of {len(saved)} processes' states in {folder!r}"
    return None


def weight_files(folder: Path) -> list[Path]:
    """The files of a model in a folder, without those that only the run's own sharding could read."""
    return [folder / name for name in LOADABLE if (folder / name).is_file()]


def newest_whole(output_dir: str | Path) -> tuple[Path | None, dict[Path, str]]:
    """The whole checkpoint with the most steps, and the broken ones with more steps than that, with their faults."""
    numbered = {path: re.fullmatch(r"checkpoint-(\d+)", path.name) for path in Path(output_dir).glob("checkpoint-*")}
    steps = {path: int(match[1]) for path, match in numbered.items() if match and path.is_dir()}
    broken = {}
    for path in sorted(steps, key=steps.__getitem__, reverse=True):
        if (fault := fault_of(path)) is None:
            return path, broken
        broken[path] = fault
    return None, broken


def checkpoint_to_resume(output_dir: str | Path, wanted: str | bool | None) -> str | None:
    """The checkpoint to pass to `Trainer.train`: the same on all processes; None to start from the beginning.

    True or "true" means the newest whole one in `output_dir`, if there is any. Broken ones that are newer are named,
    and renamed to `broken-checkpoint-…`, for the Trainer would count them among those that it keeps. `wanted` is
    `args.resume_from_checkpoint`: a folder, or yes or no.

    Raises `ResumeError` for a folder that is broken or not there.
    """
    text = str(wanted).lower()
    if text in ("none", "false", ""):
        return None
    found: list[str | None] = [None, None]  # the folder, what is wrong with it
    if PartialState().is_main_process:
        found = _newest(Path(output_dir)) if text == "true" else _named(Path(str(wanted)))
    broadcast_object_list(found)
    if found[1]:
        raise ResumeError(found[1])
    return found[0]


def _newest(output_dir: Path) -> list[str | None]:
    whole, broken = newest_whole(output_dir)
    if alone := next((path for path, fault in broken.items() if fault == MODEL_ALONE), None):
        train_on = f"train it on with --model_name_or_path {alone} in another --output_dir"
        return [None, f"cannot go on from {alone}: {MODEL_ALONE}; {train_on}, or leave out --resume_from_checkpoint"]
    for path, fault in broken.items():
        aside = path.with_name(f"broken-{path.name}")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        print(f"ignoring {path}, which is broken ({fault}): renamed to {aside.name}")
    print(f"going on from {whole}" if whole else f"no whole checkpoint in {output_dir}: starting from the beginning")
    return [whole and str(whole), None]


def _named(checkpoint: Path) -> list[str | None]:
    if not checkpoint.is_dir():
        return [None, f"cannot go on from {checkpoint}: there is no such folder"]
    fault = fault_of(checkpoint)
    advice = "name another one, or say --resume_from_checkpoint true for the newest whole one"
    return [str(checkpoint), fault and f"cannot go on from {checkpoint}, which is broken ({fault}): {advice}"]


def is_full_disk(error: BaseException) -> bool:
    """Whether this was raised where nothing more could be written."""
    number = error.errno if isinstance(error, OSError) else None
    return number in NO_SPACE or re.search(NO_SPACE_TEXT, str(error)) is not None


@contextmanager
def full_disk_in_one_line(trainer: Trainer) -> Iterator[None]:
    """Turn what is raised when a disk is full into a `FullDiskError`, and remove the checkpoint being written."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if not is_full_disk(error):
            raise
        raise FullDiskError(_after_full_disk(trainer, error)) from error


def _after_full_disk(trainer: Trainer, error: Exception) -> str:
    folder = Path(trainer.args.output_dir)
    partial, removed = folder / f"checkpoint-{trainer.state.global_step}", ""
    if PartialState().is_main_process and partial.is_dir() and fault_of(partial):
        shutil.rmtree(partial, ignore_errors=True)
        removed = f"; {partial.name} was half-written and is removed"
    free = shutil.disk_usage(folder).free / 1e9
    whole, rest = newest_whole(folder)[0], "there is no whole checkpoint to go on from"
    if whole is not None:
        size = sum(file.stat().st_size for file in whole.rglob("*") if file.is_file()) / 1e9
        rest = f"{whole.name} is whole and has {size:.2f} GB: make room for another, --resume_from_checkpoint true"
    return f"the disk is full, cannot write to {folder}, {free:.2f} GB free ({error}){removed}; {rest}"
