"""A Trainer whose rows are images with many questions: the right attention, and numbers that count questions."""

import torch
import transformers
from torch.utils.hooks import RemovableHandle

from ..models.upstream import attention_of, reads_pairs
from .label_audit import collator_of
from .sharing_proof import AttentionError, differing


class SharedImageCallback(transformers.TrainerCallback):
    """For a Trainer with rows from `group_by_image`: `SharedImageCollator`'s batches train safely.

    - Which questions about an image come together is drawn anew in each epoch, the same in a resumed run.
    - Before the first step two short conversations about one picture, in one sequence, have to have the logits that
      they have apart; for a model where they do not, the run ends with an `AttentionError`.
    - The balancing loss of a model of experts, which `SFTTrainer` adds and which reads no mask of pairs, is left out,
      with a line that says so.
    - An attention that reads no mask of pairs, such as flash attention, ends the run in the same way, and so does one
      with a window that is shorter than a question with its image.
    - "sdpa" reads the boolean mask as it is; "eager", which would add ones to the scores, gets 0 or a very low number.
    - Logged `num_tokens` are tokens, where `SFTTrainer` would count pairs that see each other, and from 0 again in a
      resumed run; logged `train_samples_per_second` are questions, where a Trainer counts rows. Both in the log's
      history, too, and for every tracker. (What `train()` returns is the Trainer's own: rows.)

    The model has a hook for that, and this comes first of all callbacks, while it trains; `close` undoes both where an
    error ended the training.
    """

    def __init__(self, trainer: "transformers.Trainer"):
        self.trainer = trainer
        self.tokens = torch.zeros((), dtype=torch.long, device=trainer.args.device)
        self.has_counted, self.questions_per_row = False, 1.0
        self.counting = False  # from the first epoch on: what others pass through the model before is no training
        self._hook: RemovableHandle | None = None
        self._place = 0  # among the callbacks

    def _before_forward(self, model, arguments, inputs):
        mask = inputs.get("attention_mask")
        if mask is None:
            return None
        tokens, changed = mask, None
        if mask.ndim == 4:
            attention = attention_of(model.config)
            if not reads_pairs(model.config):
                raise AttentionError(
                    f"attn_implementation={attention!r} reads no mask of pairs, so that questions would see each "
                    'other: load the model with "sdpa", or train on rows of one question each'
                )
            window = getattr(model.config.get_text_config(), "sliding_window", None) or mask.shape[-1]
            if mask.shape[-1] > window and inputs["position_ids"].max() >= window:  # a window is no part of the mask
                raise AttentionError(
                    f"a question with its image has more than the {window:,} tokens that {model.config.model_type} "
                    "sees at once: give images fewer pixels, or train on rows of one question each"
                )
            # Numbers where another Trainer's callback on the model was here.
            tokens = (mask if mask.dtype == torch.bool else mask == 0).diagonal(dim1=-2, dim2=-1)
            if attention == "eager" and mask.dtype == torch.bool:
                added = torch.zeros_like(mask, dtype=torch.float32).masked_fill_(~mask, torch.finfo(torch.float32).min)
                changed = (arguments, {**inputs, "attention_mask": added})
        if self.counting and model.training and torch.is_grad_enabled():  # SFTTrainer passes some batches twice
            self.has_counted = True
            self.tokens += (tokens != 0).sum()
        return changed

    def on_train_begin(self, args, state, control, model, train_dataloader, **kwargs):
        self.close()
        self._hook = self.trainer.model.register_forward_pre_hook(self._before_forward, with_kwargs=True)
        self._place = self._move_to(0)  # before all trackers
        counted = [log["num_tokens"] for log in state.log_history if "num_tokens" in log]  # by a run that is resumed
        self.tokens.fill_(counted[-1] if counted and state.is_world_process_zero else 0)
        self.questions_per_row = _questions_per_row(train_dataloader.dataset)
        both_ways = getattr(collator_of(train_dataloader), "both_ways", None)  # which others cannot be asked for
        if both_ways and getattr(self.trainer, "aux_loss_enabled", False):
            self.trainer.aux_loss_enabled = model.config.get_text_config().output_router_logits = False
            if state.is_world_process_zero:
                print("the experts' balancing loss reads no mask of pairs: it is left out where images are shared")
        if both_ways and (why := differing(self.trainer, *both_ways())):
            kind = self.trainer.model.config.model_type
            raise AttentionError(f"{kind} cannot share an image, {why}; train on rows of one question each")

    def _move_to(self, place: int) -> int:
        """Move this among the callbacks; returns where it was."""
        handler = self.trainer.callback_handler
        before, others = handler.callbacks.index(self), [other for other in handler.callbacks if other is not self]
        handler.callbacks = [*others[:place], self, *others[place:]]  # a new list: the old one is being gone through
        return before

    def on_epoch_begin(self, args, state, control, train_dataloader, **kwargs):
        self.counting = True
        drawn = getattr(train_dataloader.dataset, "format", {}).get("format_kwargs", {}).get("transform")
        if hasattr(drawn, "set_epoch"):
            drawn.set_epoch(int(state.epoch))

    def close(self, *event, **kwargs) -> None:
        """Leave the model, and go back among the callbacks to where this was added."""
        self.counting = False
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
            self._move_to(self._place)

    on_train_end = close

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
    import pyarrow.compute as pc  # here, so that importing the callback loads neither
    from datasets import Dataset

    if not isinstance(dataset, Dataset) or "queries" not in dataset.column_names:
        return 1.0
    queries = dataset.select_columns("queries").with_format("arrow")[:]["queries"]
    return pc.mean(pc.list_value_length(queries)).as_py()
