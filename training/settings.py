"""What every recipe sets alike, so that its own settings are those of the experiment."""

import copy
import os
from dataclasses import dataclass, field, fields
from typing import Any

from accelerate.utils import parse_flag_from_env, patch_environment
from datasets import Dataset
from transformers import TrainingArguments
from trl import ScriptArguments

from ..models.given import given
from ..models.precision import MIXED_PRECISION, launched_precision, precision_of
from ..rows.errors import DataError
from ..rows.reading import NAMES
from .cards import refuse_what_the_device_cannot_do
from .checkpoints import saved_with
from .plan.gpus import GPUS
from .reachable import refuse_what_is_not_to_be_had
from .unread import refuse_unread


def setting(default: Any, about: str, *choices: str) -> Any:
    """A field of a recipe's dataclass: its default, what `--help` says of it (one of `choices`, if there are any)."""
    return field(default=default, metadata={"help": about} | ({"choices": list(choices)} if choices else {}))


@dataclass
class RowSettings(ScriptArguments):
    """Which rows there are and how many are answered; a recipe's `Data` inherits this and states its dataset."""

    dataset_format: str | None = setting(
        None, "of the folder or file, where it cannot be told from what is in it", *NAMES
    )
    dataset_test_split: str | None = setting(
        None, "by default the part to test on, or where there is none that to validate on"
    )
    test_fraction: float = setting(0.2, "share of images to test on where a dataset has one split alone, 0-1")
    max_rejected: float = setting(0.01, "stop if more rows than this share are unusable, 0-1")
    max_train_rows: int | None = setting(None, "train on the first so many questions alone")
    max_validation_rows: int | None = setting(None, "validate on the first so many questions")
    max_test_rows: int | None = setting(None, "test on the first so many questions")
    eval_rows: int = setting(
        200, "validation questions to answer at each evaluation; at the end, test questions to ask freely and blindly"
    )
    max_new_tokens: int = setting(32, "longest answer in tokens")
    background: str = setting("white", "what transparent pixels of pictures show", "white", "black")

    def __post_init__(self) -> None:
        """Raises `ValueError` in one line for a share outside 0-1, a number of rows below 1, or what nothing reads."""
        self.refuse_without_effect("dataset_streaming|ignore_bias_buffers", "no recipe reads it")
        for name, share in self._shares().items():
            if not 0 <= share <= 1:
                raise ValueError(f"--{name} {share:g}: a share is between 0 and 1")
        limits = (self.max_train_rows, self.max_validation_rows, self.max_test_rows)
        if any(limit is not None and limit < 1 for limit in limits):
            raise ValueError("--max_train_rows, --max_validation_rows and --max_test_rows have to be 1 or more")
        for name, count in vars(self).items():
            if name in ("eval_rows", "questions_per_row") and count < 1:
                raise ValueError(f"--{name} {count}: it has to be 1 or more")

    @property
    def shown(self) -> dict[str, str]:
        """How every collator shows pictures: arguments of it."""
        return {"background": self.background}

    def refuse_without_effect(self, unread: str, why: str) -> None:
        """Raise `DataError` where a setting whose name matches `unread` is given; its default is not."""
        if asked := given(self, unread):
            raise DataError(f"{asked} has no effect: {why}")

    def _shares(self) -> dict[str, float]:
        names = [field.name for field in fields(self)]
        return {name: getattr(self, name) for name in names if name == "max_rejected" or name.endswith("_fraction")}

    def refuse_empty_parts(self, training: TrainingArguments, train: float, validation: float, test: float) -> None:
        """Raise `DataError` where a part that `training` needs has nothing; given are numbers of rows, or shares."""
        watched = training.do_train and training.eval_strategy != "no"
        without = "train without: --eval_strategy no --load_best_model_at_end false"
        shares = " ".join(f"--{name} {share:g}" for name, share in self._shares().items() if name != "max_rejected")
        for verb, has, is_needed, advice in (
            ("train", train, True, "hold out fewer images"),  # to evaluate, baselines come from these rows
            ("validate", validation, watched, f"hold out more images, or {without}"),
            ("test", test, training.do_predict, "hold out more images, or ask for no answers: --do_predict false"),
        ):
            if is_needed and not has:
                raise DataError(f"no row would be left to {verb} on{shares and f' ({shares})'}: {advice}")

    def limited(
        self, train: Dataset | None, validation: Dataset | None, test: Dataset, training: TrainingArguments
    ) -> list[Dataset | None]:
        """The first rows of each part, as many as the settings allow; None for one that `training` does without.

        Raises `DataError` where there are no rows of one that it needs.
        """
        parts, limits = (train, validation, test), (self.max_train_rows, self.max_validation_rows, self.max_test_rows)
        self.refuse_empty_parts(training, *(1 if rows is None else len(rows) for rows in parts))
        return [
            rows if rows is None or limit is None else rows.select(range(min(limit, len(rows))))
            for rows, limit in zip(parts, limits, strict=True)
        ]

    def watched(self, validation: Dataset, seed: int) -> Dataset:
        """The rows of the validation part to answer, and to take the loss over, at each evaluation."""
        return validation.shuffle(seed=seed).select(range(min(self.eval_rows, len(validation))))


@dataclass
class RunSettings:
    """Defaults over those of `TrainingArguments`; a recipe's `Training` inherits this first, and states the rest.

    The precision is the accelerate config's, unless `bf16` or `fp16` say another; each evaluation has its checkpoint,
    and the best is kept alone and loaded at the end: of a metric whose name ends in "loss" the lowest, else the
    highest, unless `greater_is_better` says; rows reach the collator whole.
    """

    do_train: bool = True
    do_predict: bool = True
    predict_validation: bool = setting(False, "answer the whole validation part at the end, too")
    bf16: bool | None = None
    fp16: bool | None = None
    eval_strategy: str = "steps"
    save_strategy: str | None = setting(None, "by default that of evaluation, or steps where there is none")
    save_steps: float | None = setting(None, "by default those of evaluation, or 500")
    save_total_limit: int = 1
    load_best_model_at_end: bool = True
    vision_learning_rate: float | None = setting(
        None, "of the vision tower's weights, where they train; not with DeepSpeed or FSDP"
    )
    overwrite_output_dir: bool = setting(False, "clear what another run left in output_dir, and nothing else")
    dataset_num_proc: int | None = setting(None, "processes that check rows")
    dataloader_num_workers: int = field(default_factory=lambda: min(4, os.cpu_count() or 1))
    remove_unused_columns: bool = False
    report_to: str = "none"
    plan: str | None = setting(
        None, "only say what a step takes of a card, for how long the run trains, and what makes it fit", *GPUS, "all"
    )
    load_saved_anew: bool = setting(
        False, "load what was saved, too, and compare a row's logits; needs the memory of a second model"
    )

    def __post_init__(self) -> None:
        """Raises `ValueError` in one line where device, trackers or Hub cannot do what is asked of them."""
        refuse_unread(self)
        if self.hub_token is not None:  # the Trainer would write it into training_args.bin, and send that to the Hub
            os.environ["HF_TOKEN"], self.hub_token = self.hub_token, None
        for name, value in saved_with(self.eval_strategy, self.eval_steps).items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        launched = launched_precision()
        if self.plan is not None:  # on a CPU, which has no float16: bfloat16 is as large
            self.bf16 = bool(self.bf16 or self.fp16 or (self.bf16 is None and launched != "no"))
            self.fp16 = False
        if self.bf16 is None:
            self.bf16 = launched == "bf16" and not self.fp16
        if self.fp16 is None:
            self.fp16 = launched == "fp16" and not self.bf16
        # Else the Trainer would take `use_cpu: true` of a launch config for a GPU, where there is one.
        self.use_cpu = self.use_cpu or parse_flag_from_env("ACCELERATE_USE_CPU") or self.plan is not None
        precision = precision_of(self.bf16, self.fp16)
        with patch_environment(**({} if precision == launched else {MIXED_PRECISION: precision})):
            super().__post_init__()  # which reads the environment where neither of the two is set
        if self.lr_scheduler_type == "reduce_lr_on_plateau":  # else the rate falls as a score rises
            best = {"mode": "max" if self.greater_is_better else "min"}
            self.lr_scheduler_kwargs = best | (self.lr_scheduler_kwargs or {})
        if self.load_saved_anew and self.world_size > 1:
            raise ValueError("--load_saved_anew true is for one process: leave it out, or launch one")
        refuse_what_the_device_cannot_do(self)
        refuse_what_is_not_to_be_had(self)

    @property
    def place_model_on_device(self) -> bool:
        """Whether the Trainer moves the model: not where it has no values, to be planned."""
        return self.plan is None and super().place_model_on_device

    @property
    def trained_into(self) -> str | None:
        """The folder that a training saves in; None where nothing is trained."""
        return self.output_dir if self.do_train else None

    def in_rows(self, questions: int, rows: int) -> "RunSettings":
        """The same settings with batch sizes, given in questions, in `rows` that hold all `questions` of an epoch.

        A step of the optimizer sees about as many questions as before, and at least one row of each process.
        """
        each, changed = questions / rows, copy.copy(self)
        per_step = self.per_device_train_batch_size * self.gradient_accumulation_steps / each
        changed.per_device_train_batch_size = max(1, round(self.per_device_train_batch_size / each))
        changed.gradient_accumulation_steps = max(1, round(per_step / changed.per_device_train_batch_size))
        return changed


@dataclass
class ChatSettings(RunSettings):
    """For `SFTTrainer` with a collator of its own: it prepares no rows, and cuts none."""

    max_length: int | None = None  # the pixel budget bounds a row; a longer one is refused
    dataset_kwargs: dict | None = field(default_factory=lambda: {"skip_prepare_dataset": True})
