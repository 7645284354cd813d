"""A Trainer whose rows are images with many questions: the right attention, and numbers that count questions."""

import pyarrow.compute as pc
import torch
from datasets import Dataset
from transformers import Trainer, TrainerCallback

MASKED = ("sdpa", "eager")


class SharedImageCallback(TrainerCallback):
    """For a Trainer with rows from `collators.group_by_image`: add it, and `SharedImageCollator`'s batches are safe.

    - An attention that reads no mask of pairs, such as flash attention, ends the run with a `ValueError`.
    - The mask reaches "sdpa" as booleans, which it takes in every number format.
    - Logged `num_tokens` are tokens, where `SFTTrainer` would count pairs that see each other, and from 0 again in a
      resumed run; logged `train_samples_per_second` are questions, where a Trainer counts rows. Both in the log's
      history, too, and for every tracker. (What `train()` returns is the Trainer's own: rows.)

    Args:
        trainer: the Trainer this is added to.
    """

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.tokens = torch.zeros((), dtype=torch.long, device=trainer.args.device)
        self.has_counted, self.questions_per_row = False, 1.0
        self.counting = False  # from the first epoch on: what others pass through the model before is no training
        trainer.model.register_forward_pre_hook(self._look, with_kwargs=True)

    def _look(self, model, arguments, inputs):
        mask = inputs.get("attention_mask")
        if mask is not None and mask.ndim == 2 and model.training:
            self._count(mask != 0)
        if mask is None or mask.ndim != 4:
            return None
        attention = model.config.get_text_config()._attn_implementation
        if attention not in MASKED:
            raise ValueError(
                f"attn_implementation={attention!r} reads no mask of pairs, so that questions would see each other: "
                'load the model with "sdpa", or train on rows of one question each'
            )
        seen = mask if mask.dtype == torch.bool else mask == 0  # another Trainer's callback on the same model was here
        if model.training:
            self._count(seen.diagonal(dim1=-2, dim2=-1))
        return (arguments, {**inputs, "attention_mask": seen}) if attention == "sdpa" else None

    def _count(self, is_token: torch.Tensor) -> None:
        if self.counting:
            self.has_counted = True
            self.tokens += is_token.sum()

    def on_train_begin(self, args, state, control, train_dataloader, **kwargs):
        handler = self.trainer.callback_handler
        handler.callbacks = [self, *(other for other in handler.callbacks if other is not self)]  # before all trackers
        counted = [log["num_tokens"] for log in state.log_history if "num_tokens" in log]  # by a run that is resumed
        self.tokens.fill_(counted[-1] if counted and state.is_world_process_zero else 0)
        self.questions_per_row = _questions_per_row(train_dataloader.dataset)

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.counting = True

    def on_train_end(self, args, state, control, **kwargs):
        self.counting = False

    def on_log(self, args, state, control, logs, **kwargs):
        right = {}
        if self.has_counted and (counts := logs.keys() & {"num_tokens", "eval_num_tokens"}):
            right = dict.fromkeys(counts, int(self.trainer.accelerator.gather(self.tokens).sum()))
        if "train_samples_per_second" in logs:
            right["train_samples_per_second"] = logs["train_samples_per_second"] * self.questions_per_row
        logs |= right
        state.log_history[-1] |= right


def _questions_per_row(dataset) -> float:
    """How many questions the rows hold on average; nothing but their number is read."""
    if not isinstance(dataset, Dataset) or "queries" not in dataset.column_names:
        return 1.0
    queries = dataset.select_columns("queries").with_format("arrow")[:]["queries"]
    return pc.mean(pc.list_value_length(queries)).as_py()
