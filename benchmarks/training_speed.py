"""Training on all questions about an image, three ways: `python -m benchmarks.training_speed [--full_size]`.

The same questions (`benchmarks.questions`), about as many in each step, for `SFTTrainer` with the collator it makes
itself and `assistant_only_loss`; with `ChatCollator`; and with `SharedImageCollator` on `group_by_image`, each image
read once. The Trainer is TRL's own as it is, with gradient checkpointing, its default.

The demo's Qwen2-VL trains as a whole, in float32 on the CPU. The three take turns, an epoch each after a step to warm
up; what counts is the median of the rounds' ratios. Each way has a process of its own, and its memory is the most that
the process ever held (Linux's VmHWM), less what it held after its imports: model, optimizer, batches, activations and
what the allocator keeps.

`--full_size`, on a GPU: Qwen2-VL-2B and 7B with random weights in bfloat16 and the recipe's LoRA, one way after the
other in this process, each for some epochs after one to warm up. There batches are made before, and what one
process needs for that stands beside: a GPU is measured, and not how many workers feed it. Memory is
`torch.cuda.max_memory_allocated`, model included.

Tokens are those that the language model reads. Operations are counted by `benchmarks.questions.training_flops`; MFU
is their share of what the GPU could do in that time, and does not count what checkpointing repeats.
"""

import argparse
import gc
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
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
from benchmarks.training_ways import CHAT, SHARED, STOCK, WAYS, collate, count, train
from recipes import kvasir_vqa
from vlm_recipes.models.chat import lora_on

ROUNDS, IMAGES, TOY_IMAGES = 3, 5, 2
# With what checkpointing repeats, nine questions on an image take the 7B model 355 TFLOP as rows of their own, as two
# ways have them, and 69 together: 19 PFLOP in three epochs of which one warms up.
FULL_IMAGES, FULL_EPOCHS = 8, 2
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
    [seconds] = train(name, network, processor, questions, use_cpu=True, bf16=False)
    return Measured(seconds, resident("VmHWM"))


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


def measure_lora(
    name: str, network: Any, processor: Any, questions: Dataset, collated: list[dict[str, torch.Tensor]]
) -> list[Measured]:
    """The epochs, on the device where the network is; memory on a GPU alone."""
    on_gpu = network.device.type == "cuda"
    if on_gpu:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        collated = [{key: value.pin_memory() for key, value in batch.items()} for batch in collated]
    lora = lora_on(kvasir_vqa.Model(), kvasir_vqa.LORA, network)
    seconds = train(name, network, processor, questions, lora, collated, FULL_EPOCHS, use_cpu=not on_gpu, bf16=on_gpu)
    memory = torch.cuda.max_memory_allocated() if on_gpu else 0
    return [Measured(one, memory) for one in seconds]


def row_of(
    name: str,
    work: Work,
    measured: list[Measured],
    stock: list[Measured],
    config: Qwen2VLConfig,
    lora: bool,
    peak: float | None = None,
) -> dict[str, Any]:
    """What was measured of a way; `peak` is how many operations per second the device could do, if that is known.

    "times" is the median of the rounds, against those of the `stock` collator, "range" their least and most.
    """
    seconds = statistics.median(one.seconds for one in measured)
    ratios = [other.seconds / one.seconds for other, one in zip(stock, measured, strict=True)]
    flops = training_flops(config, work, lora)
    row = {"what": name, "questions/step": round(work.questions / work.batches, 1)}
    row |= {"questions/s": round(work.questions / seconds, 3), "tokens/s": round(work.tokens / seconds)}
    row |= {"+padding/s": round(work.padded / seconds)}
    row |= {"GB peak": round(max(one.memory for one in measured) / 1e9, 2)}
    row |= {"GFLOP/question": round(flops / work.questions / 1e9, 1)}
    row |= {"MFU": round(flops / seconds / peak, 4)} if peak else {}
    return row | {"times": round(statistics.median(ratios), 2), "range": f"{min(ratios):.2f} to {max(ratios):.2f}"}


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
    return f"{of}and answer {work.tokens / work.questions - image:.0f}"


def prepare(folder: Path, images: int, pixels: tuple[int, int] | None = None) -> tuple[Any, Dataset]:
    """Processor and questions; `folder` gets the demo's model and the questions, too."""
    quiet()
    questions = write_questions(folder / "pictures", images)
    write_model(folder / "model", questions, pixels)
    questions.save_to_disk(folder / "questions")
    return AutoProcessor.from_pretrained(folder / "model"), questions


def measure(toy: bool, name: str) -> Iterator[dict[str, Any]]:
    """A row for each way, of the model `name` of `SIZES` on a GPU; `toy`: of the demo's, also on a CPU."""
    on_gpu, stock = torch.cuda.is_available(), []
    card = torch.cuda.get_device_name() if on_gpu else "CPU"
    peak = next((peak for key, peak in PEAKS.items() if key in card), None)
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        processor, questions = prepare(folder, *((TOY_IMAGES, FEW_PIXELS) if toy else (FULL_IMAGES,)))
        config = Qwen2VLConfig.from_pretrained(folder / "model") if toy else full_size(name, processor.tokenizer)
        network = random_weights(config, *(("cuda", torch.bfloat16) if on_gpu else ("cpu", torch.float32)))
        for way in (STOCK, SHARED, CHAT):  # what says most comes first
            began = time.perf_counter()
            collated = collate(way, processor, questions)
            seconds, work = time.perf_counter() - began, count(questions, collated)
            if way == STOCK:
                print(f"{what(questions, work)}; {name}, LoRA, {network.dtype}, {card}", flush=True)
            measured = measure_lora(way, network, processor, questions, collated)
            stock = stock or measured
            row = row_of(way, work, measured, stock, config, True, peak)
            yield row | {"ms to collate a question": round(1e3 * seconds / len(questions), 1)}
    del network
    gc.collect()
    torch.cuda.empty_cache()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--full_size", action="store_true", help="Qwen2-VL-2B and 7B with random weights, on a GPU")
    if parser.parse_args(arguments).full_size:
        if not torch.cuda.is_available():
            print("no GPU here: nothing measured at full size")
        for name in SIZES if torch.cuda.is_available() else ():
            print(f"{name}\n{table([*measure(False, name)])}")
        return
    with tempfile.TemporaryDirectory() as path:
        processor, questions = prepare(Path(path), IMAGES)
        works = {name: count(questions, collate(name, processor, questions)) for name in WAYS}
        print(f"{what(questions, works[STOCK])}; medians of {ROUNDS} rounds", flush=True)
        config, measured = Qwen2VLConfig.from_pretrained(Path(path, "model")), measure_demo(Path(path))
        rows = [row_of(name, work, measured[name], measured[STOCK], config, False) for name, work in works.items()]
        print(f"the demo's Qwen2-VL, float32, CPU, {torch.get_num_threads()} threads\n{table(rows)}")


if __name__ == "__main__":
    main()
