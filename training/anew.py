"""A training that begins anew in an earlier run's folder replaces it: what that left would pass for its own."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import Trainer, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME

from .checkpoints import CHECKPOINT
from .folder import write_once
from .saved import CONFIG, OF_ADAPTER, OF_WHOLE

# Beside its weights and checkpoints. What is written before the first step, such as the preflight, is this run's.
OF_RUN = ("run.json", "results.json", "predictions.jsonl", "baseline.json", "report.html", "README.md")
OF_RUN += (TRAINER_STATE_NAME, "training_args.bin")


class BeginsAnew(TrainerCallback):
    """Replaces what an earlier run left in the output folder as the first step begins. Add it after the preflight.

    Until then nothing is lost: a launch that is refused leaves the folder as it was. A training that goes on from a
    checkpoint of the folder removes nothing.

    Args:
        checkpoint: from which the training goes on, if it does; it stays.
        model: what the recipe was asked, of which what it names stays, and so does an adapter's base.
        leaves: files, name -> text, that belong to the model which is trained now.
    """

    def __init__(self, trainer: Trainer, checkpoint: str | None, model: Any, leaves: Mapping[str, str]):
        names = {name for key, name in vars(model).items() if key.endswith("name_or_path")} | {checkpoint}
        names |= {name for name, _ in getattr(trainer.model, "loaded_from", {})}
        self.folder, self.reads = Path(trainer.args.output_dir), [Path(name) for name in names if name]
        self.leaves = leaves
        self.begins = checkpoint is None or Path(checkpoint).resolve().parent != self.folder.resolve()

    def on_train_begin(self, args, state, control, **kwargs):
        if self.begins and PartialState().is_main_process:
            remove_earlier(self.folder, self.reads)
        for name, text in self.leaves.items():
            write_once(self.folder / name, text)
        PartialState().wait_for_everyone()
        self.begins = False  # a Trainer that looks for its batch size begins more than once


def remove_earlier(folder: Path, reads: Iterable[Path] = ()) -> None:
    """Delete model, checkpoints and numbers of the run that the folder has signs of, but for those in `reads`."""
    signs = [folder / "run.json", folder / TRAINER_STATE_NAME, *folder.glob(f"checkpoint-*/{TRAINER_STATE_NAME}")]
    if not any(file.is_file() for file in signs):
        return
    places = {path.resolve() for path in reads}
    files = {file for pattern in (*OF_RUN, *OF_ADAPTER, *OF_WHOLE, CONFIG) for file in folder.glob(pattern)}
    for file in files if folder.resolve() not in places else ():
        file.unlink()
    for path in folder.glob("checkpoint-*"):
        if CHECKPOINT.fullmatch(path.name) and not any(path.resolve() in (read, *read.parents) for read in places):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
