"""Three ways to train on all questions about an image, each with TRL's own Trainer, and what they read."""

import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer, get_training_chat_template
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from benchmarks.questions import Work
from vlm_recipes.callbacks import SharedImageCallback
from vlm_recipes.collators import ChatCollator, SharedImageCollator
from vlm_recipes.models.precision import trainable_in_float32
from vlm_recipes.rows.grouping import group_by_image

WAYS = STOCK, CHAT, SHARED = "TRL's collator", "ChatCollator", "shared images"
PER_STEP = 16  # questions


def way(name: str, processor: Any, questions: Dataset) -> tuple[Any, Dataset, int]:
    """The collator (None: the Trainer's own), the rows and how many of them make a step."""
    if name == SHARED:
        grouped = group_by_image(questions, PER_STEP)
        return SharedImageCollator(processor), grouped, max(1, round(PER_STEP * len(grouped) / len(questions)))
    return ChatCollator(processor) if name == CHAT else None, questions, PER_STEP


def collate(name: str, processor: Any, questions: Dataset) -> list[dict[str, torch.Tensor]]:
    """The very batches on which `train` spends an epoch."""
    collator, rows, size = way(name, processor, questions)
    if collator is None:
        template = get_training_chat_template(processor)
        collator = DataCollatorForVisionLanguageModeling(processor, assistant_only_loss=True, chat_template=template)
    return [collator([*rows.select(range(at, min(at + size, len(rows))))]) for at in range(0, len(rows), size)]


def count(questions: Dataset, batches: list[dict[str, torch.Tensor]]) -> Work:
    work = Work(len(questions))
    for batch in batches:
        work.add(batch)
    return work


class Clock(TrainerCallback):
    """The moments at which a step has ended."""

    def __init__(self):
        self.moments: list[float] = []

    def on_step_end(self, args, state, control, **kwargs):
        if args.device.type == "cuda":
            torch.cuda.synchronize()
        self.moments.append(time.perf_counter())


def train(
    name: str,
    network: Any,
    processor: Any,
    questions: Dataset,
    peft: Any = None,
    collated: list[dict[str, torch.Tensor]] | None = None,
    epochs: int = 1,
    **settings,
) -> list[float]:
    """Seconds of each epoch, after what warms up: a step on the first batch, which makes batches, as each epoch does.
    If they are `collated`, they are made already, and another epoch warms up.

    `settings` are the Trainer's. Leaves a network with LoRA as it came.
    """
    if collated is None:
        collator, rows, size = way(name, processor, questions)
    else:
        rows, size = Dataset.from_dict({"batch": range(len(collated))}), 1

        def collator(rows: list[dict[str, int]]) -> dict[str, torch.Tensor]:
            return dict(collated[rows[0]["batch"]])

    steps = -(-len(rows) // size)
    warm_up = range(len(rows)) if collated else [i % len(rows) for i in range(size)]
    rows = rows.select([*warm_up, *([*range(len(rows))] * epochs)])
    settings |= {"num_train_epochs": 1, "train_sampling_strategy": "sequential", "per_device_train_batch_size": size}
    settings |= {"max_length": None, "assistant_only_loss": collator is None, "remove_unused_columns": False}
    settings |= {"logging_strategy": "no", "save_strategy": "no", "report_to": "none", "disable_tqdm": True}
    settings |= {"dataset_kwargs": {"skip_prepare_dataset": True}}
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(network, SFTConfig(folder, **settings), collator, rows, None, processor, peft_config=peft)
        trainable_in_float32(trainer.model)
        clock = Clock()
        for callback in (SharedImageCallback(trainer), clock):
            trainer.add_callback(callback)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    if peft is not None:
        trainer.model.unload()
    ends = clock.moments[-1 - epochs * steps :: steps]
    return [end - start for start, end in zip(ends[:-1], ends[1:], strict=True)]
