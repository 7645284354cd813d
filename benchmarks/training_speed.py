"""Training on all questions about an image, three ways: `python -m benchmarks.training_speed [--full_size]`.

The same questions (`benchmarks.questions`), about as many in each step, for `SFTTrainer` with the collator it makes
itself and `assistant_only_loss`; with `ChatCollator`; and with `SharedImageCollator` on `group_by_image`, each image
read once. The Trainer is TRL's own as it is, with gradient checkpointing, its default, and new for each measurement.
The three take turns, an epoch each after a step to warm up; what counts is the median of the rounds' ratios.

The demo's Qwen2-VL trains as a whole, in float32 on the CPU. Each way has a process of its own, and its memory is the
most that the process ever held (Linux's VmHWM), less what it held after its imports: model, optimizer, batches,
activations and what the allocator keeps. `--full_size`, on a GPU: Qwen2-VL-2B and 7B with random weights in bfloat16
and the recipe's LoRA, one way after the other in this process; memory is `torch.cuda.max_memory_allocated`, model
included.

Tokens are those that the language model reads. Operations are counted by `benchmarks.questions.training_flops`; MFU
is their share of what the GPU could do in that time, and does not count what checkpointing repeats.
"""

import argparse
import gc
import re
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars, load_from_disk
from transformers import AutoModelForImageTextToText, AutoProcessor, PrinterCallback, Qwen2VLConfig
from transformers.utils import logging
from trl import SFTConfig, SFTTrainer, get_peft_config, get_training_chat_template
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from benchmarks.full_size import PEAKS, SIZES, full_size, random_weights
from benchmarks.questions import Work, training_flops, write_model, write_questions
from recipes import kvasir_vqa
from vlm_recipes.callbacks import SharedImageCallback
from vlm_recipes.collators import ChatCollator, SharedImageCollator
from vlm_recipes.models.precision import trainable_in_float32
from vlm_recipes.rows.grouping import group_by_image

WAYS = STOCK, CHAT, SHARED = "TRL's collator", "ChatCollator", "shared images"
PER_STEP, ROUNDS, WARM_UP = 16, 3, 1
IMAGES, WORKERS = 5, 0
FULL_IMAGES, FULL_WORKERS = 16, 4  # as the recipe: one process alone would keep a GPU waiting for pictures


@dataclass
class Measured:
    seconds: float
    memory: int  # bytes at the peak


def way(name: str, processor: Any, questions: Dataset) -> tuple[Any, Dataset, int]:
    """The collator (None: the Trainer's own), the rows and how many of them make a step."""
    if name == SHARED:
        grouped = group_by_image(questions, PER_STEP)
        return SharedImageCollator(processor), grouped, max(1, round(PER_STEP * len(grouped) / len(questions)))
    return ChatCollator(processor) if name == CHAT else None, questions, PER_STEP


def count(name: str, processor: Any, questions: Dataset) -> Work:
    """The very batches on which `train` spends an epoch."""
    collator, rows, size = way(name, processor, questions)
    if collator is None:
        template = get_training_chat_template(processor)
        collator = DataCollatorForVisionLanguageModeling(processor, assistant_only_loss=True, chat_template=template)
    work = Work(len(questions))
    for start in range(0, len(rows), size):
        work.add(collator([rows[i] for i in range(start, min(start + size, len(rows)))]))
    return work


def train(name: str, network: Any, processor: Any, questions: Dataset, peft: Any = None, **settings) -> float:
    """Seconds of an epoch, its batches included; `settings` of the Trainer. Leaves a network with LoRA as it came."""
    collator, rows, size = way(name, processor, questions)
    settings |= {"num_train_epochs": 1, "train_sampling_strategy": "sequential", "per_device_train_batch_size": size}
    settings |= {"max_length": None, "assistant_only_loss": collator is None, "remove_unused_columns": False}
    settings |= {"logging_strategy": "no", "save_strategy": "no", "report_to": "none", "disable_tqdm": True}
    settings |= {"dataset_kwargs": {"skip_prepare_dataset": True}}
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(network, SFTConfig(folder, **settings), collator, rows, None, processor, peft_config=peft)
        trainable_in_float32(trainer.model)
        trainer.add_callback(SharedImageCallback(trainer))
        trainer.remove_callback(PrinterCallback)
        seconds = trainer.train().metrics["train_runtime"]
    if peft is not None:
        trainer.model.unload()
    return seconds


def in_turns(train_one: Callable[..., Measured]) -> dict[str, list[Measured]]:
    """The rounds of each way; `train_one` takes its name and, to warm up, a number of steps."""
    for name in WAYS:
        train_one(name, WARM_UP)
    rounds = [{name: train_one(name) for name in WAYS} for _ in range(ROUNDS)]
    return {name: [one[name] for one in rounds] for name in WAYS}


def quiet() -> None:
    disable_progress_bars()
    logging.disable_progress_bar()


def resident(field: str) -> int:
    """Bytes that this process holds (`VmRSS`) or held at most (`VmHWM`)."""
    return 1024 * int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def train_demo(name: str, folder: Path, steps: int = -1) -> Measured:
    """The whole model, in a process that does nothing else."""
    network = AutoModelForImageTextToText.from_pretrained(folder / "model")
    processor, questions = AutoProcessor.from_pretrained(folder / "model"), load_from_disk(folder / "questions")
    settings = {"use_cpu": True, "bf16": False, "max_steps": steps, "dataloader_num_workers": WORKERS}
    return Measured(train(name, network, processor, questions, **settings), resident("VmHWM"))


def measure_demo(folder: Path) -> dict[str, list[Measured]]:
    """A process for each way, in turns."""
    with ExitStack() as stack:
        spawn = get_context("spawn")
        pools = {name: stack.enter_context(ProcessPoolExecutor(1, spawn, quiet)) for name in WAYS}
        started = {name: pools[name].submit(resident, "VmRSS") for name in WAYS}
        imported = {name: started[name].result() for name in WAYS}

        def train_one(name: str, steps: int = -1) -> Measured:
            measured = pools[name].submit(train_demo, name, folder, steps).result()
            return Measured(measured.seconds, measured.memory - imported[name])

        return in_turns(train_one)


def measure_lora(network: Any, processor: Any, questions: Dataset) -> dict[str, list[Measured]]:
    """On the device where the network is; memory on a GPU alone."""
    on_gpu = network.device.type == "cuda"

    def train_one(name: str, steps: int = -1) -> Measured:
        if on_gpu:
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        settings = {"use_cpu": not on_gpu, "bf16": on_gpu, "max_steps": steps, "dataloader_num_workers": FULL_WORKERS}
        seconds = train(name, network, processor, questions, get_peft_config(kvasir_vqa.Model()), **settings)
        return Measured(seconds, torch.cuda.max_memory_allocated() if on_gpu else 0)

    return in_turns(train_one)


def table(
    works: dict[str, Work], measured: dict[str, list[Measured]], config: Qwen2VLConfig, lora: bool, peak: float | None
) -> str:
    """A line for each way; `peak` is how many operations per second the device could do, if that is known."""
    heads = "questions/step questions/s tokens/s +padding/s memory GFLOP/question MFU times".split()
    lines = [f"{'':15}" + "".join(f"{head:>15}" for head in heads) + f"   (range; {STOCK}: 1)"]
    for name, work in works.items():
        seconds = statistics.median(one.seconds for one in measured[name])
        ratios = [stock.seconds / one.seconds for stock, one in zip(measured[STOCK], measured[name], strict=True)]
        flops = training_flops(config, work, lora)
        cells = [f"{work.questions / work.batches:.1f}", f"{work.questions / seconds:.2f}"]
        cells += [f"{work.tokens / seconds:.0f}", f"{work.padded / seconds:.0f}"]
        cells += [f"{max(one.memory for one in measured[name]) / 1e9:.2f} GB", f"{flops / work.questions / 1e9:.1f}"]
        cells += [f"{flops / seconds / peak:.1%}" if peak else "", f"{statistics.median(ratios):.2f}"]
        spread = f"   ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(f"{name:15}" + "".join(f"{cell:>15}" for cell in cells) + spread)
    return "\n".join(lines)


def what(questions: Dataset, work: Work) -> str:
    """The data, of which `work` has each question by itself."""
    images, image = len(set(questions["image_id"])), sum(work.patches) / len(work.patches) / 4
    text = work.tokens / work.questions - image
    return (
        f"{len(questions)} questions on {images} images; an image takes {image:.0f} tokens, a question, its prompt "
        f"and answer {text:.0f}; medians of {ROUNDS} rounds"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--full_size", action="store_true", help="Qwen2-VL-2B and 7B with random weights, on a GPU")
    at_full_size = parser.parse_args(arguments).full_size
    if at_full_size and not torch.cuda.is_available():
        print("no GPU here: nothing measured at full size")
        return
    quiet()
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        questions = write_questions(folder / "pictures", FULL_IMAGES if at_full_size else IMAGES)
        write_model(folder / "model", questions)
        questions.save_to_disk(folder / "questions")
        processor = AutoProcessor.from_pretrained(folder / "model")
        works = {name: count(name, processor, questions) for name in WAYS}
        print(what(questions, works[STOCK]))
        for name in SIZES if at_full_size else ():
            config, device = full_size(name, processor.tokenizer), torch.cuda.get_device_name()
            measured = measure_lora(random_weights(config, "cuda", torch.bfloat16), processor, questions)
            peak = next((peak for card, peak in PEAKS.items() if card in device), None)
            print(f"{name}, LoRA, bfloat16, {device}\n{table(works, measured, config, True, peak)}", flush=True)
        if not at_full_size:
            config = Qwen2VLConfig.from_pretrained(folder / "model")
            lines = table(works, measure_demo(folder), config, lora=False, peak=None)
            print(f"the demo's Qwen2-VL, float32, CPU, {torch.get_num_threads()} threads\n{lines}")


if __name__ == "__main__":
    main()
