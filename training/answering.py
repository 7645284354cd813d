"""The last evaluation: its answers are kept as they come, and a signal ends it after a batch, to go on from there."""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PreTrainedModel, Trainer

from ..callbacks.interrupt import Signals
from ..eval.generation.kept import AnsweringStopped, KeptAnswers
from ..rows.conventions import Row
from ..rows.errors import DataError, one_line
from .checkpoints import newest_whole
from .settings import RunSettings

PARTIAL = "partial_answers"  # a folder in the run's, while answers come


@contextmanager
def kept_answers(training: RunSettings, run: dict[str, Any], model: PreTrainedModel) -> Iterator[KeptAnswers]:
    """Where the answers of a run are kept until all are there; they hang on its weights, settings and versions.

    SIGTERM and Ctrl-C end it after a batch: raises `Interrupted`, with a line that says how to go on.

    Args:
        run: what `run.json` gets, from `describe_run`.
    """
    folder = Path(training.output_dir, PARTIAL)
    signals = Signals("finishing this batch of answers, which are kept", "the answers of this batch are lost")
    decides = [run[name] for name in ("recipe", "versions", "git_commit")], run["arguments"]["data"]
    signals.listen()
    try:
        yield KeptAnswers(folder, stop=signals.received_by_any).of("", *decides, weights_key(model))
        PartialState().wait_for_everyone()
        shutil.rmtree(folder, ignore_errors=True)  # each process: nodes may have disks of their own
    except AnsweringStopped as stopped:
        again = "launch it again as it was"
        if training.do_train:
            evaluate = f"--do_train false --model_name_or_path {training.output_dir}"
            again = "--resume_from_checkpoint true" if newest_whole(training.output_dir)[0] else evaluate
        signals.leave(f"interrupted when {stopped}, and kept in {folder}: {again}")
    finally:
        signals.close()


def try_first(collator: Callable[[list[Row]], Any], answered: Mapping[str, Dataset]) -> None:
    """Raise `DataError` where the first row of a part is refused: in one line, as no worker of a data loader does."""
    for part, rows in answered.items():
        try:
            collator(list(rows.select(range(min(1, len(rows))))))
        except ValueError as error:
            raise DataError(f"{part}: {one_line(str(error))}") from error


def let_go_of_optimizer(trainer: Trainer) -> None:
    """Free what a training holds besides the model: the optimizer with its state, gradients, and DDP's copy of them.

    Not of DeepSpeed and FSDP, whose engines hold the weights, too, and gather them to answer.
    """
    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        return
    trainer.model.zero_grad()
    trainer.optimizer = trainer.lr_scheduler = None
    trainer.callback_handler.optimizer = trainer.callback_handler.lr_scheduler = None
    trainer.model_wrapped = trainer.model
    trainer.accelerator.free_memory()


@torch.no_grad()
def weights_key(model: PreTrainedModel) -> str:
    """Names a model's weights by their bits, the same on all processes; where they are sharded, by all the shards."""
    found = hashlib.sha256()
    for name, weight in model.state_dict(keep_vars=True).items():
        if isinstance(weight, torch.Tensor):
            held = getattr(weight, "ds_tensor", weight)  # ZeRO-3's shard
            held = held.to_local() if hasattr(held, "to_local") else held  # FSDP's
            found.update(f"{name} {weight.dtype} {tuple(weight.shape)} {_bits(held)}".encode())
    return " ".join(sorted(set(gather_object([found.hexdigest()]))))


def _bits(weight: torch.Tensor) -> int:
    """Of a tensor's bits, eight bytes at a time where they come out as even."""
    held = weight.detach().contiguous().flatten().view(torch.uint8)
    if not len(held):
        return 0
    held = held.clone() if held.storage_offset() % 8 else held
    whole = len(held) // 8 * 8
    parts = [part for part in (held[:whole].view(torch.int64), held[whole:]) if len(part)]
    return hash(tuple(torch.hash_tensor(part).item() for part in parts))
