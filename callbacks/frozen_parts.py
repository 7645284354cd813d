"""Keep no graph of what does not train."""

from typing import TYPE_CHECKING

from transformers import TrainerCallback

if TYPE_CHECKING:
    from transformers import Trainer


class FrozenPartsCallback(TrainerCallback):
    """No backward pass through a frozen vision tower, under LoRA with checkpointing.

    As checkpointing is switched on, transformers asks the output of every embedding for a gradient, that of a frozen
    vision tower's patches, too, so that the tower is computed again and back for nothing. Only re-entrant
    checkpointing (`use_reentrant`, not the default) needs that; there nothing is changed. Gradients are the same.

    Args:
        trainer: the Trainer this is added to.
    """

    def __init__(self, trainer: "Trainer"):
        self.trainer = trainer
        self.on_train_begin()  # of what TRL has asked for: who asks twice can take back once

    def on_train_begin(self, *event, **kwargs):
        if not (self.trainer.args.activation_checkpointing_kwargs or {}).get("use_reentrant"):
            self.trainer.model.disable_input_require_grads()
