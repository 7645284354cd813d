"""What every recipe sets alike: the housekeeping of a run, so that its own settings are those of the experiment."""

from dataclasses import dataclass, field

from ..models.precision import launched_precision


@dataclass
class RunSettings:
    """Defaults over those of `TrainingArguments`; a recipe's `Training` inherits this first, and states the rest.

    The precision is the accelerate config's; the best checkpoint, by a metric of which more is better, is kept alone
    and loaded at the end; rows reach the collator whole.
    """

    do_train: bool = True
    do_predict: bool = True
    bf16: bool = field(default_factory=lambda: launched_precision() == "bf16")
    fp16: bool = field(default_factory=lambda: launched_precision() == "fp16")
    save_total_limit: int = 1
    load_best_model_at_end: bool = True
    greater_is_better: bool = True
    dataloader_num_workers: int = 4
    remove_unused_columns: bool = False
    report_to: str = "none"

    def batch_rows(self, questions: int, rows: int) -> None:
        """Turn batch sizes given in questions into those in `rows` that hold all `questions` of an epoch together.

        A step of the optimizer sees about as many questions as before, and at least one row of each process.
        """
        each = questions / rows
        per_step = self.per_device_train_batch_size * self.gradient_accumulation_steps / each
        self.per_device_train_batch_size = max(1, round(self.per_device_train_batch_size / each))
        self.gradient_accumulation_steps = max(1, round(per_step / self.per_device_train_batch_size))
