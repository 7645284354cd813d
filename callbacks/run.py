"""What every recipe does around its experiment: read its arguments, train under the usual watch, fail in one line."""

import sys
import time
from collections.abc import Callable, Mapping

import torch
from datasets import Dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback
from trl import TrlParser

from callbacks.each_row_once import see_each_row_once
from callbacks.frozen_parts import FrozenPartsCallback
from callbacks.generation_eval import GenerationEvalCallback
from callbacks.grad_norm import GradNormCallback
from callbacks.interrupt import InterruptCallback, Interrupted
from callbacks.label_audit import LabelAuditCallback
from callbacks.model_checks import Expected
from callbacks.preflight import PreflightCallback, PreflightDone, PreflightError
from callbacks.report import ReportCallback
from callbacks.resume import (
    FullDiskError,
    ResumeCallback,
    ResumeError,
    checkpoint_to_resume,
    full_disk_in_one_line,
)
from callbacks.shared_image import SharedImageCallback
from eval.record import RunRecord


class RecipeParser(TrlParser):
    """TRL's parser, whose `--config` also takes the `run.json` that a run left: the same run again."""

    def set_defaults_with_config(self, **config) -> list[str]:
        if "arguments" in config:
            config = {key: value for part in config["arguments"].values() for key, value in part.items()}
            del config["resume_from_checkpoint"]  # from the beginning
            config = {key: value for key, value in config.items() if value is not None and not key.endswith("_token")}
        return super().set_defaults_with_config(**config)


def launch(main: Callable[..., None], arguments: tuple[type, ...], refusals: tuple[type[Exception], ...]) -> None:
    """Call `main` with the dataclasses `arguments`: their defaults, then `--config` (a YAML file, or the `run.json`
    of a run), then the command line.

    Args:
        refusals: errors whose message tells the reader what to do; they end the run without a traceback.
    """
    try:
        parsed = RecipeParser(arguments).parse_args_and_config()
    except (ValueError, OSError) as error:  # a misspelt key, no such file
        sys.exit(f"error: {error}")
    try:
        main(*parsed)
    except PreflightDone:
        pass
    except (*refusals, PreflightError, ResumeError, FullDiskError) as error:
        sys.exit(f"error: {error}")
    except Interrupted:
        leave_processes()
        raise
    leave_processes()


def leave_processes() -> None:
    """End the process group of a run that succeeded or was interrupted, and let its threads finish.

    A gloo thread holds the last tensors a moment longer than the collective that it ran for; a process that ends in
    that moment aborts after all is done (PyTorch issue 190489).
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        time.sleep(0.5)


def train_watched(
    trainer: Trainer,
    record: RunRecord,
    parts: Mapping[str, Dataset],
    expected: Expected,
    limit: int | None = None,
    *more: TrainerCallback,
) -> tuple[PreTrainedModel, list[dict]]:
    """Look at all that can be known before, then train with gradients measured and answers scored; save.

    Args:
        parts: "train", "validation" and "test" rows, a question each; `limit` of "validation" are scored on the way.
        expected: what the recipe states about its training.
        more: callbacks that come last, so that they see the score.

    Returns the trained model (the best one, if the arguments say so) and the log. Goes on from
    `resume_from_checkpoint`, a folder or true for the newest whole one. With `max_steps` 0 nothing is trained: raises
    `PreflightDone` after the preflight of a run of the recipe's own length.

    Raises `PreflightError`, `ResumeError` and `FullDiskError`; `Interrupted` after SIGTERM or Ctrl-C, with a
    checkpoint saved.
    """
    checkpoint = checkpoint_to_resume(trainer.args.output_dir, trainer.args.resume_from_checkpoint)
    only_looking = trainer.args.max_steps == 0
    if only_looking:
        trainer.args.max_steps = type(trainer.args).max_steps
    watch = GenerationEvalCallback(trainer, parts["validation"], record.evaluation, limit)
    preflight = PreflightCallback(
        trainer, parts, record.evaluation, expected, record.rejected, record.title, only_looking
    )
    record.checks = preflight.checks
    watching = (
        FrozenPartsCallback(trainer),
        LabelAuditCallback(),
        GradNormCallback(trainer),
        SharedImageCallback(trainer),
        preflight,
    )
    interrupt = InterruptCallback(trainer)
    for callback in (*watching, watch, ReportCallback(record, watch), *more, interrupt, ResumeCallback(trainer)):
        trainer.add_callback(callback)
    see_each_row_once(trainer)
    try:
        with full_disk_in_one_line(trainer):
            trainer.train(resume_from_checkpoint=checkpoint)
            trainer.save_model()
            trainer.save_state()
    finally:
        interrupt.stop_listening()
    if interrupt.heard:
        interrupt.leave(f"interrupted when trained to the end, saved {trainer.args.output_dir}: --do_train false")
    return trainer.model, trainer.state.log_history
