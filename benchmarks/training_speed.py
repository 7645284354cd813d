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
from transformers import AutoModelForImageTextToText, AutoProcessor, Qwen2VLConfig
from transformers.utils import logging

from benchmarks.full_size import PEAKS, SIZES, full_size, random_weights
from benchmarks.questions import FEW_PIXELS, Work, training_flops, write_model, write_questions
from benchmarks.training_ways import STOCK, WAYS, count, train
from recipes import kvasir_vqa
from vlm_recipes.models.qwen_vl import lora_on

ROUNDS, IMAGES, WORKERS, TOY_IMAGES = 3, 5, 0, 2
# Nine questions on an image take the 7B model 266 TFLOP as rows of their own, as two ways have them, and 52 together.
# With what warms up, eight images are 5.8 PFLOP a round: 60 s for three rounds on a GPU that does 300 TFLOP/s, beside
# nine Trainers to be made and a model. The 2B model has a quarter of that.
FULL_IMAGES, FULL_WORKERS = 8, 4  # as the recipe: one process alone would keep a GPU waiting for pictures
CELLS = {"questions/step": ".1f", "questions/s": ".2f", "tokens/s": ".0f", "+padding/s": ".0f", "GB peak": ".2f"}
CELLS |= {"GFLOP/question": ".1f", "MFU": ".1%", "times": ".2f"}


@dataclass
class Measured:
    seconds: float
    memory: int  # bytes at the peak


def in_turns(train_one: Callable[[str], Measured]) -> dict[str, list[Measured]]:
    """The rounds of each way."""
    rounds = [{name: train_one(name) for name in WAYS} for _ in range(ROUNDS)]
    return {name: [one[name] for one in rounds] for name in WAYS}


def quiet() -> None:
    disable_progress_bars()
    logging.disable_progress_bar()


def resident(field: str) -> int:
    """Bytes that this process holds (`VmRSS`) or held at most (`VmHWM`)."""
    return 1024 * int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def train_demo(name: str, folder: Path) -> Measured:
    """The whole model, in a process that does nothing else."""
    network = AutoModelForImageTextToText.from_pretrained(folder / "model")
    processor, questions = AutoProcessor.from_pretrained(folder / "model"), load_from_disk(folder / "questions")
    settings = {"use_cpu": True, "bf16": False, "dataloader_num_workers": WORKERS}
    return Measured(train(name, network, processor, questions, **settings), resident("VmHWM"))


def measure_demo(folder: Path) -> dict[str, list[Measured]]:
    """A process for each way, in turns."""
    with ExitStack() as stack:
        spawn = get_context("spawn")
        pools = {name: stack.enter_context(ProcessPoolExecutor(1, spawn, quiet)) for name in WAYS}
        started = {name: pools[name].submit(resident, "VmRSS") for name in WAYS}
        imported = {name: started[name].result() for name in WAYS}

        def train_one(name: str) -> Measured:
            measured = pools[name].submit(train_demo, name, folder).result()
            return Measured(measured.seconds, measured.memory - imported[name])

        return in_turns(train_one)


def measure_lora(network: Any, processor: Any, questions: Dataset) -> dict[str, list[Measured]]:
    """On the device where the network is; memory on a GPU alone."""
    on_gpu = network.device.type == "cuda"

    def train_one(name: str) -> Measured:
        if on_gpu:
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        workers = FULL_WORKERS if on_gpu else WORKERS
        settings = {"use_cpu": not on_gpu, "bf16": on_gpu, "dataloader_num_workers": workers}
        seconds = train(
            name, network, processor, questions, lora_on(kvasir_vqa.Model(), kvasir_vqa.LANGUAGE), **settings
        )
        return Measured(seconds, torch.cuda.max_memory_allocated() if on_gpu else 0)

    return in_turns(train_one)


def rows_of(
    works: dict[str, Work], measured: dict[str, list[Measured]], config: Qwen2VLConfig, lora: bool, peak: float | None
) -> list[dict[str, Any]]:
    """A row for each way; `peak` is how many operations per second the device could do, if that is known.

    "times" is the median of the rounds, "range" their least and most.
    """
    rows = []
    for name, work in works.items():
        seconds = statistics.median(one.seconds for one in measured[name])
        ratios = [stock.seconds / one.seconds for stock, one in zip(measured[STOCK], measured[name], strict=True)]
        flops = training_flops(config, work, lora)
        row = {"what": name, "questions/step": round(work.questions / work.batches, 1)}
        row |= {"questions/s": round(work.questions / seconds, 3), "tokens/s": round(work.tokens / seconds)}
        row |= {"+padding/s": round(work.padded / seconds)}
        row |= {"GB peak": round(max(one.memory for one in measured[name]) / 1e9, 2)}
        row |= {"GFLOP/question": round(flops / work.questions / 1e9, 1)}
        row |= {"MFU": round(flops / seconds / peak, 4)} if peak else {}
        row |= {"times": round(statistics.median(ratios), 2), "range": f"{min(ratios):.2f} to {max(ratios):.2f}"}
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'':15}" + "".join(f"{head:>15}" for head in CELLS) + f"   (range; {STOCK}: 1)"]
    for row in rows:
        cells = [f"{row[head]:{form}}" if head in row else "" for head, form in CELLS.items()]
        lines.append(f"{row['what']:15}" + "".join(f"{cell:>15}" for cell in cells) + f"   ({row['range']})")
    return "\n".join(lines)


def what(questions: Dataset, work: Work) -> str:
    """The data, of which `work` has each question by itself."""
    images, image = len(set(questions["image_id"])), sum(work.patches) / len(work.patches) / 4
    of = f"{len(questions)} questions on {images} images; an image takes {image:.0f} tokens, a question, its prompt "
    return f"{of}and answer {work.tokens / work.questions - image:.0f}; medians of {ROUNDS} rounds"


def prepare(folder: Path, images: int, pixels: tuple[int, int] | None = None) -> tuple[Any, Dataset, dict[str, Work]]:
    """Processor, questions and what each way makes of them; `folder` gets the demo's model and the questions, too."""
    quiet()
    questions = write_questions(folder / "pictures", images)
    write_model(folder / "model", questions, pixels)
    questions.save_to_disk(folder / "questions")
    processor = AutoProcessor.from_pretrained(folder / "model")
    works = {name: count(name, processor, questions) for name in WAYS}
    print(what(questions, works[STOCK]), flush=True)
    return processor, questions, works


def measure(toy: bool, name: str) -> list[dict[str, Any]]:
    """A row for each way, of the model `name` of `SIZES` on a GPU; `toy`: of the demo's, also on a CPU."""
    on_gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        processor, questions, works = prepare(folder, *((TOY_IMAGES, FEW_PIXELS) if toy else (FULL_IMAGES,)))
        config = Qwen2VLConfig.from_pretrained(folder / "model") if toy else full_size(name, processor.tokenizer)
        network = random_weights(config, *(("cuda", torch.bfloat16) if on_gpu else ("cpu", torch.float32)))
        measured = measure_lora(network, processor, questions)
    card = torch.cuda.get_device_name() if on_gpu else "CPU"
    rows = rows_of(works, measured, config, True, next((peak for key, peak in PEAKS.items() if key in card), None))
    print(f"{'the demo for ' if toy else ''}{name}, LoRA, {network.dtype}, {card}\n{table(rows)}", flush=True)
    del network
    gc.collect()
    torch.cuda.empty_cache()
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--full_size", action="store_true", help="Qwen2-VL-2B and 7B with random weights, on a GPU")
    if parser.parse_args(arguments).full_size:
        if not torch.cuda.is_available():
            print("no GPU here: nothing measured at full size")
        for name in SIZES if torch.cuda.is_available() else ():
            measure(False, name)
        return
    with tempfile.TemporaryDirectory() as path:
        _, _, works = prepare(Path(path), IMAGES)
        config = Qwen2VLConfig.from_pretrained(Path(path, "model"))
        lines = table(rows_of(works, measure_demo(Path(path)), config, lora=False, peak=None))
        print(f"the demo's Qwen2-VL, float32, CPU, {torch.get_num_threads()} threads\n{lines}")


if __name__ == "__main__":
    main()
