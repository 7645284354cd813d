"""One training under the usual watch, its report kept up to date."""

from collections.abc import Mapping

from datasets import Dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback

from ..callbacks.frozen_parts import FrozenPartsCallback
from ..callbacks.generation_eval import GenerationEvalCallback
from ..callbacks.grad_norm import GradNormCallback
from ..callbacks.interrupt import InterruptCallback
from ..callbacks.label_audit import LabelAuditCallback
from ..callbacks.preflight.callback import PreflightCallback
from ..callbacks.preflight.model import Expected
from ..callbacks.resume import ResumeCallback
from ..callbacks.shared_image import SharedImageCallback
from .checkpoints import checkpoint_to_resume, full_disk_in_one_line
from .record import RunRecord


class ReportCallback(TrainerCallback):
    """Write the report after each evaluation and when training ends. Add it after the callback that it watches."""

    def __init__(self, record: RunRecord, watched: GenerationEvalCallback):
        self.record, self.watched = record, watched

    def on_evaluate(self, args, state, control, **kwargs):
        latest = (self.watched.metrics, self.watched.predictions, self.watched.rows)
        self.record.write(state.log_history, *({"validation": part} for part in latest))

    on_train_end = on_evaluate


def train_watched(
    trainer: Trainer,
    record: RunRecord,
    parts: Mapping[str, Dataset],
    expected: Expected,
    limit: int | None = None,
    *more: TrainerCallback,
) -> tuple[PreTrainedModel, list[dict]]:
    """Check all that can be known before, then train with gradients measured and answers scored; save.

    Args:
        parts: "train", "validation" and "test" rows, a question each; `limit` of "validation" are scored on the way.
        expected: what the recipe states about its training.
        more: callbacks that come last, so that they see the score.

    Returns the trained model (the best one, if the arguments say so) and the log. Goes on from
    `resume_from_checkpoint`, a folder or true for the newest whole one. With `max_steps` 0 nothing is trained: raises
    `PreflightDone` after the preflight of a run of the recipe's own length.

    Raises `LabelError`, `AttentionError`, `PreflightError`, `ResumeError` and `FullDiskError`; `Interrupted` after
    SIGTERM or Ctrl-C, with a checkpoint saved.
    """
    checkpoint = checkpoint_to_resume(trainer.args.output_dir, trainer.args.resume_from_checkpoint)
    only_checks = trainer.args.max_steps == 0
    if only_checks:
        trainer.args.max_steps = type(trainer.args).max_steps
    watch = GenerationEvalCallback(trainer, parts["validation"], record.evaluation, limit)
    preflight = PreflightCallback(
        trainer, parts, record.evaluation, expected, record.rejected, record.title, only_checks
    )
    record.checks = preflight.checks
    gradients, shared_image = GradNormCallback(trainer), SharedImageCallback(trainer)
    interrupt, resume = InterruptCallback(trainer), ResumeCallback(trainer)
    before = (FrozenPartsCallback(trainer), LabelAuditCallback(check=False), gradients, shared_image, preflight)
    for callback in (*before, watch, ReportCallback(record, watch), *more, interrupt, resume):
        trainer.add_callback(callback)
    try:
        with full_disk_in_one_line(trainer):
            trainer.train(resume_from_checkpoint=checkpoint)
            trainer.save_model()
            trainer.save_state()
    finally:  # a training that ends by an error calls nobody back
        for callback in (gradients, shared_image, interrupt, resume):
            callback.close()
    if interrupt.received:
        interrupt.leave(f"interrupted when trained to the end, saved {trainer.args.output_dir}: --do_train false")
    return trainer.model, trainer.state.log_history
