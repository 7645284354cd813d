"""Go on from a checkpoint as if the run had never stopped: what is lost without care."""

from pathlib import Path

import transformers
from safetensors import safe_open
from transformers.trainer_callback import ExportableState

from ..models.upstream import give_names_of_the_hub, keep_weight_names


class WeightNamesError(ValueError):
    """A checkpoint's weights have names that the Trainer does not load; the message names the checkpoint."""


class ResumeCallback(transformers.TrainerCallback):
    """Go on from a checkpoint as if the run had never stopped. Add it last.

    - Where a checkpoint is saved, there is a log, so that no logged mean spans steps on both sides of it.
    - Callbacks that export their state, such as `EarlyStoppingCallback`, get it back. (The Trainer's own
      `restore_callback_states_from_checkpoint` makes them anew, which those that hold a Trainer do not survive.)
    - A run that was killed after its last step takes no further one, nor does one whose training had ended and saved,
      with the best checkpoint alone kept: it goes on with that one, and with the log of the training that ended.
    - The best checkpoint is found again where the folder was moved; where it is gone, a line says so.
    - A whole model's checkpoints have the names of its weights in memory, for the Trainer loads no others when it
      resumes or takes the best (transformers issue 43701); what is saved after training has the Hub's names. Raises
      `WeightNamesError` before the first step where it resumed from a checkpoint with others.
    """

    def __init__(self, trainer: "transformers.Trainer"):
        self.trainer = trainer
        self.ended: transformers.TrainerState | None = None  # of the training that is resumed, where it had ended

    def on_train_begin(self, args, state, control, **kwargs):
        if isinstance(self.trainer.model, transformers.PreTrainedModel):
            self._refuse_other_names(args, state)
            keep_weight_names(self.trainer.model)
        self._find_best(args, state)
        stopping = [other for other in self.trainer.callback_handler.callbacks if isinstance(other, ExportableState)]
        for callback in stopping if state.global_step else ():
            kept = state.stateful_callbacks.setdefault(type(callback).__name__, callback.state())
            for name, value in kept["attributes"].items():
                setattr(callback, name, value)
        out_of_patience = any(
            callback.early_stopping_patience_counter >= callback.early_stopping_patience
            for callback in stopping
            if isinstance(callback, transformers.EarlyStoppingCallback)
        )
        self.ended = _ended(args, state, stopping)
        if state.global_step >= state.max_steps or (state.global_step and out_of_patience) or self.ended:
            control.should_training_stop = True  # which the Trainer sees only after the next step
            self.trainer.get_batch_samples = lambda *arguments: ([], None)

    def on_step_end(self, args, state, control, **kwargs):
        may_save = control.should_save or (args.save_strategy == "best" and control.should_evaluate)
        control.should_log = control.should_log or may_save

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.ended:
            control.should_evaluate = control.should_save = control.should_log = False
        self.on_step_end(args, state, control)

    def close(self) -> None:
        """Let the Trainer take its batches again, and save under the Hub's names."""
        self.trainer.__dict__.pop("get_batch_samples", None)
        if isinstance(self.trainer.model, transformers.PreTrainedModel):
            give_names_of_the_hub(self.trainer.model)

    def on_train_end(self, *event, **kwargs):
        if self.ended:
            for which in ("is_local_process_zero", "is_world_process_zero"):
                setattr(self.ended, which, getattr(self.trainer.state, which))
            self.trainer.state = self.ended
        self.close()

    def _find_best(self, args, state) -> None:
        """Where the folder was moved, the best checkpoint lies in it still, and not where the state has it."""
        if not (state.global_step and state.best_global_step):
            return
        best = Path(args.output_dir, f"checkpoint-{state.best_global_step}")
        if best.is_dir():
            state.best_model_checkpoint = str(best)
        elif args.load_best_model_at_end and not state.best_model_checkpoint:
            if state.is_world_process_zero:
                print(f"! the best checkpoint, {best.name}, is gone: the best from here on is kept", flush=True)
            state.best_metric = state.best_global_step = None

    def _refuse_other_names(self, args, state) -> None:
        if not state.global_step or self.trainer.is_deepspeed_enabled or self.trainer.is_fsdp_enabled:
            return  # a new run, or one whose states are read otherwise
        known = set(self.trainer.model.state_dict())
        for folder in (
            Path(args.output_dir, f"checkpoint-{state.global_step}"),
            Path(state.best_model_checkpoint or ""),
        ):
            for file in folder.glob("model*.safetensors") if folder.name else ():
                with safe_open(file, "pt") as weights:
                    other = sorted(set(weights.keys()) - known)
                if other:
                    raise WeightNamesError(
                        f"{folder} has {other[0]!r}, under whose name the Trainer loads nothing into this model "
                        "(transformers issue 43701): start anew, with this callback from the beginning"
                    )


def _ended(args, state, stopping: list[ExportableState]) -> "transformers.TrainerState | None":
    """What a training left that ended in `output_dir`, where `state` is its best checkpoint's; None if not so."""
    from transformers.trainer import TRAINER_STATE_NAME  # which brings datasets

    file = Path(args.output_dir, TRAINER_STATE_NAME)
    if not state.global_step or not args.load_best_model_at_end or not file.is_file():
        return None
    ended = transformers.TrainerState.load_from_json(str(file))
    kept = ended.stateful_callbacks
    patient = [one for one in stopping if isinstance(one, transformers.EarlyStoppingCallback)]
    same = (ended.best_global_step, ended.max_steps) == (state.global_step, state.max_steps)
    same = same and ended.log_history[: len(state.log_history)] == state.log_history
    same = same and all(kept.get(type(one).__name__, {}).get("args") == one.state()["args"] for one in patient)
    return ended if same else None
