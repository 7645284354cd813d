"""What every recipe sets alike: the housekeeping of a run, so that its own settings are those of the experiment."""

from dataclasses import dataclass

from accelerate.utils import parse_flag_from_env, patch_environment

from ..models.precision import MIXED_PRECISION, launched_precision, precision_of
from .cards import refuse_what_the_device_cannot_do


@dataclass
class RunSettings:
    """Defaults over those of `TrainingArguments`; a recipe's `Training` inherits this first, and states the rest.

    The precision is the accelerate config's, unless `bf16` or `fp16` say another; the best checkpoint, by a metric of
    which more is better, is kept alone and loaded at the end; rows reach the collator whole.
    """

    do_train: bool = True
    do_predict: bool = True
    bf16: bool | None = None
    fp16: bool | None = None
    save_total_limit: int = 1
    load_best_model_at_end: bool = True
    greater_is_better: bool = True
    dataloader_num_workers: int = 4
    remove_unused_columns: bool = False
    report_to: str = "none"

    def __post_init__(self) -> None:
        """Raises `ValueError` in one line where the run's device cannot do what is asked of it."""
        launched = launched_precision()
        if self.bf16 is None:
            self.bf16 = launched == "bf16" and not self.fp16
        if self.fp16 is None:
            self.fp16 = launched == "fp16" and not self.bf16
        # Else the Trainer would take `use_cpu: true` of a launch config for a GPU, where there is one.
        self.use_cpu = self.use_cpu or parse_flag_from_env("ACCELERATE_USE_CPU")
        precision = precision_of(self.bf16, self.fp16)
        with patch_environment(**({} if precision == launched else {MIXED_PRECISION: precision})):
            super().__post_init__()  # which reads the environment where neither of the two is set
        refuse_what_the_device_cannot_do(self)

    def batch_rows(self, questions: int, rows: int) -> None:
        """Turn batch sizes given in questions into those in `rows` that hold all `questions` of an epoch together.

        A step of the optimizer sees about as many questions as before, and at least one row of each process.
        """
        each = questions / rows
        per_step = self.per_device_train_batch_size * self.gradient_accumulation_steps / each
        self.per_device_train_batch_size = max(1, round(self.per_device_train_batch_size / each))
        self.gradient_accumulation_steps = max(1, round(per_step / self.per_device_train_batch_size))
