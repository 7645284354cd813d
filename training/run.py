"""One run of a recipe: trained under the usual watch, evaluated, its report kept up to date."""

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback
from trl import SFTTrainer

from ..callbacks.frozen_parts import FrozenPartsCallback
from ..callbacks.generation_eval import GenerationEvalCallback
from ..callbacks.grad_norm import GradNormCallback
from ..callbacks.interrupt import InterruptCallback
from ..callbacks.label_audit import LabelAuditCallback
from ..callbacks.log_lines import LogLinesCallback
from ..callbacks.preflight.callback import PreflightCallback
from ..callbacks.preflight.model import Expected
from ..callbacks.resume import ResumeCallback
from ..callbacks.shared_image import SharedImageCallback
from ..eval.evaluation import Evaluation
from ..eval.report.tables import latest
from ..models.precision import trainable_in_float32
from ..models.upstream import quantised_bits
from ..rows.conventions import Row
from .anew import BeginsAnew
from .answering import kept_answers, let_go_of_optimizer, try_first
from .chatter import shared_weights_are_no_news
from .checkpoints import checkpoint_to_resume, full_disk_in_one_line
from .description import best_step, changed_settings, describe_run, kept_in_words
from .loaded_anew import compare_anew
from .model_card import upload_report, write_model_card
from .plan.count import count_instead
from .published import other_rows, published_numbers
from .record import ReportCallback, RunRecord
from .resuming import TrainedAs, what_decides
from .runs import kept_of_training, log_history_in
from .saved import prepare_to_save, save
from .settings import RowSettings, RunSettings
from .snippet import example_of
from .trained_on import refuse_trained_on
from .trainers import with_rate_of_vision

CLOSED = (GenerationEvalCallback, SharedImageCallback, InterruptCallback, ResumeCallback, GradNormCallback)
CLOSED += (LogLinesCallback,)


class Run:
    """What a recipe was asked, its rows, how they are evaluated, and what the run leaves in its output folder.

    Args:
        recipe: the recipe's `__file__`.
        parts: rows to train on, to validate on and to test on, a question each; None for a part that is not there.
        evaluation: of the answers, while training and at the end.
        refused: rows refused at load, `{split, id, reason}`.
        name: under which `published.yaml`, beside the recipe, has a title and other people's numbers; by default the
            file's. Where there is none, the name is the title.
    """

    def __init__(
        self,
        recipe: str,
        data: RowSettings,
        training: RunSettings,
        model: Any,
        parts: Sequence[Dataset | None],
        evaluation: Evaluation,
        refused: list[Row],
        name: str | None = None,
    ):
        self.recipe, self.data, self.training, self.model = Path(recipe), data, training, model
        named = zip(("train", "validation", "test"), parts, strict=True)
        self.parts = {part: rows for part, rows in named if rows is not None}
        self.evaluation = evaluation.as_trained(training)
        self.log_history: list[dict] = []
        self.repository: str | None = None  # on the Hub, where the Trainer sends what it saves
        title, published = published_numbers(Path(recipe), name := name or Path(recipe).stem)
        if published and (others := other_rows(data)):
            published.source += f"; this run has {others}"
        run = {"experiment": name, **describe_run(recipe, data, training, model, self.parts)}
        if not training.do_train:
            refuse_trained_on(Path(model.model_name_or_path), run, self.parts["test"])
            run |= kept_of_training(Path(training.output_dir), model.model_name_or_path, run)
            self.log_history = log_history_in(Path(training.output_dir), model.model_name_or_path)
        self.record = RunRecord(training.output_dir, title, self.evaluation, run, published, refused)
        self.record.asked_again = data.eval_rows

    def train(
        self,
        trainer: Trainer,
        watch: GenerationEvalCallback,
        *callbacks: TrainerCallback,
        trains: str = "",
        parts: Sequence[str] = (),
        share: float | None = None,
        first_loss: float | None = None,
        doubt: str = "",
        leaves: Mapping[str, str] | None = None,
    ) -> PreTrainedModel:
        """Look at all that can be known before, then train and save, with what trains kept in float32.

        Goes on from `resume_from_checkpoint`, a folder or true for the newest whole one, which has to have been begun
        with the same rows, steps and rates (see `resuming`). With `max_steps` 0 nothing is trained: raises
        `PreflightDone` after the preflight of a run of the recipe's own length; with `plan`, `Planned` before it.

        Args:
            watch: answers rows at each evaluation; the report shows them.
            callbacks: the experiment's own, in their order after `watch`: they see its score.
            trains, parts, share, first_loss, doubt: what the recipe states, see `Expected`; share: of its own model.
            leaves: files of the output folder, name -> text, that belong to the model: how it was asked.

        Returns the trained model (the best one, if the arguments say so). Raises `LabelError`, `AttentionError`,
        `PreflightError`, `ResumeError`, `FullDiskError`, `SavedError`; `Interrupted` after SIGTERM or Ctrl-C, with a
        checkpoint saved.
        """
        args = trainer.args
        checkpoint = checkpoint_to_resume(args.output_dir, args.resume_from_checkpoint)
        self.record.run["trained_with"] = changed_settings(self.training, args)
        trained_as = TrainedAs(**what_decides(self.record.run, self.parts, args))
        if checkpoint is not None:
            trained_as.refuse_another(checkpoint)
        self.record.run["quantised_bits"] = quantised_bits(trainer.model)
        if only_checks := args.max_steps == 0:
            trainer.args = args = copy.copy(args)
            args.max_steps = type(args).max_steps
        trainable_in_float32(trainer.model)
        if isinstance(trainer, SFTTrainer):
            trainer.model_accepts_loss_kwargs = True  # it divides by the step's tokens; Qwen2.5-VL says it cannot
        if self.training.vision_learning_rate is not None:
            with_rate_of_vision(trainer, self.training.vision_learning_rate)
        if self.training.plan is not None:
            count_instead(trainer)
        expected = Expected(trains, share if self._trains_its_own_model() else None, first_loss, parts, doubt)
        preflight = PreflightCallback(
            trainer, self.parts, self.evaluation, expected, self.record.rejected, self.record.title, only_checks
        )
        self.record.checks = preflight.checks
        shared_image = SharedImageCallback(trainer)
        before = [trained_as, FrozenPartsCallback(trainer), LabelAuditCallback(check=False), shared_image, preflight]
        before += [BeginsAnew(trainer, checkpoint, self.model, leaves or {})]
        interrupt, resume = InterruptCallback(), ResumeCallback(trainer)
        lines = LogLinesCallback(trainer, watch)
        after = (ReportCallback(self.record, watch), *callbacks, interrupt, resume, lines)
        for callback in chain(before, [watch], after):
            trainer.add_callback(callback)
        try:
            with full_disk_in_one_line(trainer), shared_weights_are_no_news(trainer.model):
                prepare_to_save(trainer)
                trainer.train(resume_from_checkpoint=checkpoint)
                self.record.run["best_global_step"] = best_step(args, trainer.state)
                if kept := kept_in_words(self.record.run):
                    PartialState().print(f"{kept}, of {trainer.state.global_step:,}", flush=True)
                save(trainer)
                trainer.save_state()
        finally:  # a training that ends by an error calls nobody back
            for callback in (watch, shared_image, interrupt, resume, lines, *callbacks):
                if isinstance(callback, CLOSED):
                    callback.close()
        if self.training.load_saved_anew:
            compare_anew(trainer, self.recipe, self.record.run["arguments"]["data"], self.model)
        if interrupt.received_by_any():
            evaluate = f"--do_train false --model_name_or_path {args.output_dir}"
            interrupt.leave(f"interrupted when trained to the end, saved {args.output_dir}: {evaluate}")
        self.log_history, self.repository = trainer.state.log_history, trainer.hub_model_id
        let_go_of_optimizer(trainer)
        return trainer.model

    def conclude(self, model: PreTrainedModel, others: Mapping[str, Dataset] | None = None) -> None:
        """Answer the test part (unless `do_predict` is off), write everything for good and say where it is.

        Before it the `others`, and before these, with `predict_validation`, all of the validation part. With
        `push_to_hub` the card and the report follow the model. Raises `Interrupted` after SIGTERM or Ctrl-C; launched
        again, the run goes on with the answers that are missing.
        """
        answered = {**(others or {}), "test": self.parts["test"]}
        if self.training.predict_validation and "validation" in self.parts:
            answered = {"validation": self.parts["validation"]} | answered
        answered = answered if self.training.do_predict else {}
        if not self.training.do_train:  # else the audit has seen rows already
            try_first(self.evaluation.collator, answered)
        with kept_answers(self.training, self.record.run, model) if answered else nullcontext() as kept:
            self.record.conclude(model, answered, self.log_history, kept)
        if self.training.do_train and PartialState().is_main_process:
            example = example_of(self.recipe, self.data, Path(self.training.output_dir))
            write_model_card(self.record, model, example, int(latest(self.log_history, "step") or 0), self.repository)
            if self.repository is not None:
                upload_report(self.training, self.repository)

    def _trains_its_own_model(self) -> bool:
        names = [name for name in vars(self.model) if name.endswith("name_or_path")]
        return all(getattr(self.model, name) == getattr(type(self.model), name) for name in names)
