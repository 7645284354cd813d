"""Memory and speed of LISA's 8 GB setting at full size, `python -m benchmarks.lisa`: needs a GPU, and says so without.

The small-card line at the top of `recipes/reasonseg.py`, with LLaVA-1.5-7B and sam-vit-base in four bits: the recipe's
own run on random weights, by `benchmarks.full_size_recipes`. The small-card copy reports a peak of 5.79 GB and 1.9 s
per sample on an 8 GB card; it trains neither embeddings nor output head (here the row of [SEG] in both), and does not
run SAM's image encoder.
The optimizer's states are paged: they leave the card where there is no room, and are not counted.
"""

from functools import partial
from typing import Any

import torch

from benchmarks import full_size_recipes
from benchmarks.full_size_worlds import reasonseg

SETTING = "--tune seg --load_in_4bit true --learning_rate 1e-4 --weight_decay 0.01 --per_device_train_batch_size 1 "
SETTING += "--gradient_accumulation_steps 20 --gradient_checkpointing true --questions_per_row 1"
PAGED = "--optim paged_adamw_8bit"  # which no CPU has


def measure(toy: bool) -> list[dict[str, Any]]:
    setting = f"{SETTING} {PAGED}" if torch.cuda.is_available() else SETTING
    [row] = full_size_recipes.measure(toy, "reasonseg", *setting.split(), world=partial(reasonseg, sam="base"))
    row |= {"what": "LISA on 8 GB", "s/sample": round(row["s/step"] / row["rows/step"], 3)}
    print(f"LISA on 8 GB: {row['s/sample']} s per sample (the copy, on another card: 1.9 s, and 5.79 GB)", flush=True)
    return [row]


def main() -> None:
    if not torch.cuda.is_available():
        print("no GPU here: nothing measured. Reported for the small-card copy: 5.79 GB at its peak, 1.9 s per sample")
        return
    measure(toy=False)


if __name__ == "__main__":
    main()
