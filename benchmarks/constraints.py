"""What constrained decoding costs: seconds of `generate` with and without it, `python -m benchmarks.constraints`.

Batches of 32 drawn questions of all types for the demo's model, untrained (time does not depend on the weights). Both
ways make the same number of steps: free decoding knows no end of turn and stops where the last constrained answer
ends. They run in turns in this process; the ratio of one run counts, not the seconds.
"""

import json
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from demo.checkpoints.qwen2_vl import write_qwen2_vl
from demo.worlds.endoscopy.dataset import draw_endoscopy
from recipes.kvasir_vqa import to_chat
from vlm_recipes.collators import ChatCollator
from vlm_recipes.eval.generation.allowed_tokens import keep_to
from vlm_recipes.eval.generation.generate import GREEDY
from vlm_recipes.eval.metrics.question_types import QuestionType, QuestionTypes
from vlm_recipes.eval.typed import constraints_by_type
from vlm_recipes.models.chat import set_pixel_budget

BATCH, BATCHES, ROUNDS, IMAGES = 32, 6, 7, 60


def drawn_rows(folder: Path) -> list[dict]:
    draw_endoscopy(folder, images=IMAGES, broken=0)
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    raw = [json.loads(line) | {"id": str(i), "image_size": [280, 224]} for i, line in enumerate(lines)]
    types = QuestionTypes.infer([row["question"] for row in raw], [row["answer"] for row in raw])
    adapt = partial(to_chat, types=types, typed_prompt=True)
    chosen = torch.randperm(len(raw), generator=torch.Generator().manual_seed(0))[: BATCH * BATCHES].tolist()
    return [adapt(raw[i]) | {"image": str(folder / raw[i]["file_name"])} for i in chosen]


@torch.no_grad()
def seconds(model, batch: dict, settings: dict) -> tuple[float, int]:
    """Time and new tokens of one call."""
    start = time.perf_counter()
    tokens = model.generate(**batch, **{**GREEDY, "use_cache": True}, **settings)
    return time.perf_counter() - start, tokens.shape[1] - batch["input_ids"].shape[1]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = drawn_rows(Path(folder, "images"))
        write_qwen2_vl(Path(folder, "model"), [row["answer"] for row in rows] * 10, vision_size=64)
        processor = AutoProcessor.from_pretrained(Path(folder, "model"))
        model = AutoModelForImageTextToText.from_pretrained(Path(folder, "model")).eval()
        set_pixel_budget(processor, 16 * 28 * 28, 24 * 28 * 28)
        collator = ChatCollator(processor, prompt_only=True)
        constraints = constraints_by_type(collator.answer_ids)
        batches = []
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            batches.append((dict(collator(part)), [constraints(QuestionType.of(row)) for row in part]))
    free, kept, ratios = [], [], []
    for turn in range(ROUNDS + 1):
        sums = [0.0, 0.0, 0]
        for batch, allowed in batches:
            took, steps = seconds(model, batch, keep_to(allowed, batch["input_ids"].shape[1], 64, model))
            same = {"max_new_tokens": steps, "eos_token_id": processor.tokenizer.pad_token_id}
            sums = [sums[0] + took, sums[1] + seconds(model, batch, same)[0], sums[2] + steps]
        if turn:  # the first one warms up
            kept.append(sums[0])
            free.append(sums[1])
            ratios.append(sums[0] / sums[1])
    print(
        f"{BATCHES} batches of {BATCH}, {sums[2]} steps, median of {ROUNDS} rounds, {torch.get_num_threads()} threads"
    )
    print(f"free {statistics.median(free):.2f} s, constrained {statistics.median(kept):.2f} s")
    print(f"constrained / free: {statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
