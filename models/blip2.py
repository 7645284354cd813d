"""A Seq2SeqTrainer whose loss does not depend on how a batch is split into accumulation steps."""

from transformers import Seq2SeqTrainer


class TokenMeanTrainer(Seq2SeqTrainer):
    """Train on the mean cross-entropy over all target tokens of an optimizer step.

    The stock Trainer takes BLIP-2's `**kwargs` as a promise to divide by the number of target tokens, which T5 does
    not keep: loss and gradient come out multiplied by `gradient_accumulation_steps`.
    """

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        loss = outputs.loss  # the mean over this micro-batch's target tokens
        if num_items_in_batch is not None:
            loss = loss * inputs["labels"].ne(-100).sum() / num_items_in_batch
            if self.args.average_tokens_across_devices:
                loss = loss * self.accelerator.num_processes  # tokens of all processes are counted, DDP averages
        return (loss, outputs) if return_outputs else loss
