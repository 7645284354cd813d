"""Where one machine ends, for each recipe at full size: `python -m benchmarks.scale`.

Images a second that one worker of the data loader reads and prepares are measured here, on one core, on noise of the
datasets' usual size and format, through the image processors of the full-size models; text is left out. What a GPU
takes is counted (`benchmarks.last_evaluation`) at the share of an H100's peak in bfloat16 that `--plan` assumes.
Gradients are those of what trains by default, in float32, sent and received once each over 100 Gbit/s.
"""

import io
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    BlipImageProcessor,
    CLIPImageProcessor,
    Qwen2VLImageProcessor,
    SamImageProcessor,
    VideoMAEImageProcessor,
)

from benchmarks.full_size_rows import picture
from benchmarks.last_evaluation import RECIPES
from vlm_recipes.eval.report.tables import Table
from vlm_recipes.training.plan.gpus import GPUS, SHARE

PEAK, NETWORK = 1e12 * GPUS["h100_80gb"].teraflops[0], 100e9 / 8  # operations and bytes a second
SECONDS = 3  # of measuring, at least


@dataclass(frozen=True)
class Scale:
    """What of a recipe's defaults decides how far it scales.

    images: read in the whole training. steps: of its optimizer. gradients: parameters that train. size, format: of a
    picture. processors: what makes of it the model's input.
    """

    images: float
    steps: float
    gradients: float
    size: tuple[int, int]
    format: str
    processors: tuple[Any, ...]


def qwen(pixels: int) -> tuple[Any, ...]:
    return (Qwen2VLImageProcessor(size={"shortest_edge": 3136, "longest_edge": pixels}),)


SCALES = {
    "nutrition_tables": lambda: Scale(3 * 1029, 3 * 1029 / 8, 161.5e6, (1224, 1632), "JPEG", qwen(1280 * 28 * 28)),
    "kvasir_vqa": lambda: Scale(4550, 41079 / 64, 40.4e6, (720, 576), "JPEG", qwen(768 * 28 * 28)),
    "vqa_rad": lambda: Scale(
        5 * 1703 / 4,
        5 * 1703 / 8,
        4.7e6,
        (1024, 1024),
        "JPEG",
        (BlipImageProcessor(size={"height": 224, "width": 224}),),
    ),
    "reasonseg": lambda: Scale(
        5000 * 10,
        5000,
        0.036 * 7.7e9,
        (1500, 1000),
        "JPEG",
        (CLIPImageProcessor(size={"shortest_edge": 336}), SamImageProcessor()),
    ),
    "ssg_vqa": lambda: Scale(30000 * 2, 30000, 0.8e6, (854, 480), "PNG", (VideoMAEImageProcessor(),)),
    "visual_chat": lambda: Scale(256_563, 256_563 / 16, 40.4e6, (640, 480), "JPEG", qwen(1024 * 28 * 28)),
}


def images_a_second(scale: Scale) -> float:
    """Of one worker, with one thread."""
    noise = np.random.default_rng(0)
    files = [picture(noise, scale.size, scale.format) for _ in range(8)]
    count, begin = 0, time.perf_counter()
    while count < 2 or time.perf_counter() - begin < SECONDS:
        shown = Image.open(io.BytesIO(files[count % len(files)])).convert("RGB")
        for processor in scale.processors:
            several = isinstance(processor, VideoMAEImageProcessor)
            processor([[shown]] if several else [shown], return_tensors="pt")
        count += 1
    return count / (time.perf_counter() - begin)


def table() -> Table:
    rows = []
    for name, counted in RECIPES.items():
        scale = SCALES[name]()
        operations = counted().training
        read, taken = images_a_second(scale), PEAK * SHARE / (operations / scale.images)
        step = operations / scale.steps / (PEAK * SHARE)
        sent = 2 * 4 * scale.gradients
        rows.append(
            {
                "recipe": name,
                "TFLOP an image": f"{operations / scale.images / 1e12:.2f}",
                "images/s a worker reads": f"{read:.0f}",
                "a GPU takes": f"{taken:.1f}",
                "workers a GPU": f"{taken / read:.1f}",
                "images a step": f"{scale.images / scale.steps:.0f}",
                "GPU-s a step": f"{step:.2f}",
                "gradients, MB": f"{4 * scale.gradients / 1e6:,.0f}",
                "ms to exchange": f"{1000 * sent / NETWORK:.1f}",
            }
        )
    return Table("Data loader, GPU and network, at full size", rows)


def main() -> None:
    torch.set_num_threads(1)  # as in a data loader's worker
    print(table())


if __name__ == "__main__":
    main()
