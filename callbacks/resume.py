"""Go on from a checkpoint as if the run had never stopped: what is lost without care."""

import transformers
from transformers.trainer_callback import ExportableState


class ResumeCallback(transformers.TrainerCallback):
    """Go on from a checkpoint as if the run had never stopped. Add it last.

    - Where a checkpoint is saved, there is a log, so that no logged mean spans steps on both sides of it.
    - Callbacks that export their state, such as `EarlyStoppingCallback`, get it back. (The Trainer's own
      `restore_callback_states_from_checkpoint` makes them anew, which those that hold a Trainer do not survive.)
    - A run that was killed after its last step takes no further one.
    """

    def __init__(self, trainer: "transformers.Trainer"):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
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
        """Let the Trainer take its batches again."""
        self.trainer.__dict__.pop("get_batch_samples", None)

    on_train_end = close
