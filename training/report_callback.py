"""Keep the report of a run in progress up to date."""

from transformers import TrainerCallback

from ..callbacks.generation_eval import GenerationEvalCallback
from .record import RunRecord


class ReportCallback(TrainerCallback):
    """Write the report after each evaluation and when training ends. Add it after the callback it watches.

    Args:
        watched: whose latest metrics and predictions the report shows.
    """

    def __init__(self, record: RunRecord, watched: GenerationEvalCallback):
        self.record = record
        self.watched = watched

    def on_evaluate(self, args, state, control, **kwargs):
        self._write(state)

    def on_train_end(self, args, state, control, **kwargs):
        self._write(state)

    def _write(self, state) -> None:
        self.record.write(
            state.log_history,
            {"validation": self.watched.metrics},
            {"validation": self.watched.predictions},
            {"validation": self.watched.rows},
        )
