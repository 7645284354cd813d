"""Rows per second of `ChatCollator` and of TRL's collator on the same rows: `python -m benchmarks.collator`.

Both run in this process, in turns, on drawn photographs through a Qwen2-VL processor; the ratio of one run counts,
not the seconds. Then nine questions about each photograph through `SharedImageCollator`, beside the image processor's
own call on it: what is not that call is the text of nine questions.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoProcessor
from trl import get_training_chat_template
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from demo.checkpoints.qwen2_vl import write_qwen2_vl
from recipes.nutrition_tables import QUESTION, prompt
from vlm_recipes.collators import ChatCollator, SharedImageCollator
from vlm_recipes.models.chat import set_pixel_budget

ROWS, BATCH, ROUNDS, QUESTIONS = 64, 8, 7, 9
ANSWER = "<|object_ref_start|>nutrition-table<|object_ref_end|><|box_start|>(14,57),(991,603)<|box_end|>"
# (what, photographs' width and height in pixels, pixel budget)
SETTINGS = [
    ("small pictures, 16 to 25 tokens", (240, 320), (16 * 28 * 28, 25 * 28 * 28)),
    ("photographs, up to 1280 tokens", (1224, 1632), (256 * 28 * 28, 1280 * 28 * 28)),
]


def rows_of(width: int, height: int) -> list[dict]:
    """Noise, so that no two pictures are alike."""
    noise = np.random.default_rng(0)
    answer = {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]}
    return [
        {
            "id": str(i),
            "images": [Image.fromarray(noise.integers(0, 256, (height, width, 3), dtype=np.uint8))],
            "messages": [*prompt(), answer],
        }
        for i in range(ROWS)
    ]


def seconds(collator, rows: list[dict]) -> float:
    start = time.perf_counter()
    for i in range(0, len(rows), BATCH):
        collator([dict(row) for row in rows[i : i + BATCH]])
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)  # as in a data loader's worker
    with tempfile.TemporaryDirectory() as folder:
        write_qwen2_vl(Path(folder), [QUESTION, ANSWER] * 50)
        processor = AutoProcessor.from_pretrained(folder)
    template = get_training_chat_template(processor)
    stock = DataCollatorForVisionLanguageModeling(processor, assistant_only_loss=True, chat_template=template)
    ours = ChatCollator(processor)
    print(f"{'':34}{'TRL':>12}{'ours':>12}{'ours / TRL':>12}   (rows/s, median of {ROUNDS} rounds of {ROWS} rows)")
    for name, size, budget in SETTINGS:
        set_pixel_budget(processor, *budget)
        rows = rows_of(*size)
        for collator in (stock, ours):
            seconds(collator, rows[:BATCH])
        rounds = [(seconds(stock, rows), seconds(ours, rows)) for _ in range(ROUNDS)]
        theirs, mine = (ROWS / statistics.median(column) for column in zip(*rounds, strict=True))
        ratio = statistics.median(their / my for their, my in rounds)
        print(f"{name:34}{theirs:12.1f}{mine:12.1f}{ratio:12.2f}")
        share, rate = alone_to_shared(SharedImageCollator(processor), rows)
        print(
            f"{f'{QUESTIONS} questions on each':46}{rate:12.1f}   (the image processor alone: {share:.0%} of the time)"
        )


def alone_to_shared(shared: SharedImageCollator, rows: list[dict]) -> tuple[float, float]:
    """The time of the image processor alone in that of the collator, and the collator's questions per second."""
    asked = [
        [
            row | {"image_id": row["id"], "messages": [*prompt(question=f"{QUESTION} {n}"), row["messages"][-1]]}
            for n in range(QUESTIONS)
        ]
        for row in rows
    ]

    if len(shared(asked[0])["input_ids"]) != 1:
        sys.exit("error: the questions about a picture do not share it")

    def alone() -> float:
        start = time.perf_counter()
        for row in rows:
            shared.processor.image_processor(row["images"], return_tensors="pt")
        return time.perf_counter() - start

    def whole() -> float:
        start = time.perf_counter()
        for group in asked:
            shared(group)
        return time.perf_counter() - start

    rounds = [(alone(), whole()) for _ in range(ROUNDS)]
    share = statistics.median(one / every for one, every in rounds)
    return share, QUESTIONS * len(rows) / statistics.median(every for _, every in rounds)


if __name__ == "__main__":
    main()
