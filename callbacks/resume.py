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
    - A run that was killed after its last step takes no further one.
    - A whole model's checkpoints have the names of its weights in memory, for the Trainer loads no others when it
      resumes or takes the best (transformers issue 43701); what is saved after training has the Hub's names. Raises
      `WeightNamesError` before the first step where it resumed from a checkpoint with others.
    """

    def __init__(self, trainer: "transformers.Trainer"):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        if isinstance(self.trainer.model, transformers.PreTrainedModel):
            self._refuse_other_names(args, state)
            keep_weight_names(self.trainer.model)
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
        if state.global_step >= state.max_steps or (state.global_step and out_of_patience):
            control.should_training_stop = True  # which the Trainer sees only after the next step
            self.trainer.get_batch_samples = lambda *arguments: ([], None)

    def on_step_end(self, args, state, control, **kwargs):
        may_save = control.should_save or (args.save_strategy == "best" and control.should_evaluate)
        control.should_log = control.should_log or may_save

    on_epoch_end = on_step_end

    def close(self, *event, **kwargs) -> None:
        """Let the Trainer take its batches again, and save under the Hub's names."""
        self.trainer.__dict__.pop("get_batch_samples", None)
        if isinstance(self.trainer.model, transformers.PreTrainedModel):
            give_names_of_the_hub(self.trainer.model)

    on_train_end = close

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
