"""Keep no graph of what does not train."""

import transformers


class FrozenPartsCallback(transformers.TrainerCallback):
    """No backward pass through a frozen vision tower, under LoRA with checkpointing.

    As checkpointing is switched on, transformers asks the output of every embedding for a gradient, that of a frozen
    vision tower's patches, too, so that the tower is computed again and back for nothing. Only re-entrant
    checkpointing (`use_reentrant`, not the default) needs that; there nothing is changed. Gradients are the same.
    """

    def __init__(self, trainer: "transformers.Trainer"):
        self.trainer = trainer
        self.on_train_begin()  # of what TRL has asked for: who asks twice can take back once

    def on_train_begin(self, *event, **kwargs):
        if not (self.trainer.args.activation_checkpointing_kwargs or {}).get("use_reentrant"):
            self.trainer.model.disable_input_require_grads()
