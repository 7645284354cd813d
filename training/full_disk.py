"""A full disk ends a run in one line, and leaves no half-written checkpoint."""

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import PartialState
from safetensors import SafetensorError
from transformers import Trainer

from .checkpoints import fault_of, newest_whole

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What safetensors and PyTorch say where Python would raise an OSError with one of these numbers.
NO_SPACE_TEXT = rf"os error ({'|'.join(map(str, NO_SPACE))})\b|inline_container|PytorchStreamWriter|iostream error"


class FullDiskError(OSError):
    """Nothing more could be written; the message says where, and what is left to go on from."""


@contextmanager
def full_disk_in_one_line(trainer: Trainer) -> Iterator[None]:
    """Turn what is raised when a disk is full into a `FullDiskError`, and remove the checkpoint being written."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        if number not in NO_SPACE and not re.search(NO_SPACE_TEXT, str(error)):
            raise
        raise FullDiskError(_after_full_disk(trainer, error)) from error


def _after_full_disk(trainer: Trainer, error: Exception) -> str:
    folder = Path(trainer.args.output_dir)
    partial, removed = folder / f"checkpoint-{trainer.state.global_step}", ""
    if PartialState().is_main_process and partial.is_dir() and fault_of(partial):
        shutil.rmtree(partial, ignore_errors=True)
        removed = f"; {partial.name} was half-written and is removed"
    free = shutil.disk_usage(folder).free / 1e9
    whole, _ = newest_whole(folder)
    if whole is None:
        rest = "there is no whole checkpoint to go on from"
    else:
        size = sum(file.stat().st_size for file in whole.rglob("*") if file.is_file()) / 1e9
        rest = f"{whole.name} is whole and has {size:.2f} GB: make room for another, --resume_from_checkpoint true"
    return f"the disk is full, cannot write to {folder}, {free:.2f} GB free ({error}){removed}; {rest}"
