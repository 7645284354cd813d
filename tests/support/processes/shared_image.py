"""Rows about shared images, and TRL's SFTTrainer for them."""

import re
from functools import cache
from pathlib import Path

import numpy as np
from datasets import Dataset
from PIL import Image
from transformers import AutoModelForImageTextToText
from trl import SFTConfig, SFTTrainer

from demo.checkpoints.llava import write_llava
from demo.checkpoints.qwen2_vl import write_qwen2_vl
from tests.support.session import once
from vlm_recipes.callbacks import SharedImageCallback
from vlm_recipes.collators import ChatCollator, SharedImageCollator
from vlm_recipes.rows.grouping import group_by_image

TEXTS = ["You are a helpful assistant.", "What is shown?", "USER: ASSISTANT: a bowl of muesli\n\n", "yes no"] * 5
SETTINGS = {"max_steps": 1, "learning_rate": 0.0, "logging_steps": 1, "gradient_checkpointing": False, "seed": 0}
SETTINGS |= {"max_length": None, "remove_unused_columns": False, "dataset_kwargs": {"skip_prepare_dataset": True}}
SETTINGS |= {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "bf16": False, "optim": "sgd"}


def picture(size: tuple[int, int] = (60, 60), seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def talk(*turns: str, system: str = "") -> list[dict]:
    """The user speaks first, then each in turn."""
    messages = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
    for i, said in enumerate(turns):
        messages.append({"role": ("user", "assistant")[i % 2], "content": [{"type": "text", "text": said}]})
    return messages


def rows_about(image_id: str | None, images: list, *talks: list[dict]) -> list[dict]:
    """A row for each talk, the images before its first words."""
    talks = [
        [{**m, "content": [{"type": "image"}] * len(images) * (m is first_asked(one)) + m["content"]} for m in one]
        for one in talks
    ]
    common = {"image_id": image_id, "images": images, "image_size": [60, 60]}
    return [{"id": f"{image_id} {i}", **common, "messages": one, "note": i} for i, one in enumerate(talks)]


def first_asked(messages: list[dict]) -> dict:
    return next(message for message in messages if message["role"] == "user")


def as_group(rows: list[dict]) -> dict:
    """By hand what `group_by_image` does."""
    return {"id": rows[0]["id"], "images": rows[0]["images"], "queries": [{"messages": r["messages"]} for r in rows]}


def twelve_questions() -> list[dict]:
    """Three about each of four images of different sizes, with answers of one to many tokens."""
    rows = []
    for i, size in enumerate([(56, 56), (84, 56), (56, 140), (168, 84)]):
        said = (
            talk(f"{i} is it?", "yes"),
            talk("What is shown?", "a bowl of muesli " * (i + 1)),
            talk("So", "2", "b", "no"),
        )
        rows += rows_about(f"image {i}", [picture(size, i)], *said)
    return rows


def _write_sharp(folder: Path, family: str) -> None:
    if family == "llava":
        write_llava(folder, TEXTS, hidden_size=64, image_size=56, initializer_range=0.1)
    else:
        write_qwen2_vl(folder, TEXTS, family=family, hidden_size=64, min_pixels=4 * 784, max_pixels=36 * 784)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    for name, weight in model.named_parameters():
        if re.search(r"language_model.*[qk]_proj.weight", name):
            weight.data *= 6
    model.save_pretrained(folder)


@cache
def sharp(family: str) -> Path:
    """A random model of two layers whose attention looks at some tokens and not at others; its folder."""
    return once(f"sharp_{family}", lambda folder: _write_sharp(folder, family))


def new_trainer(model, processor, folder, rows: list[dict], shared: bool, images: int = 1, **settings) -> SFTTrainer:
    """A Trainer that sees all rows by image (`shared`) or each by itself, of so many images at once."""
    more = {key: settings.pop(key) for key in ("peft_config", "callbacks", "data_collator") if key in settings}
    args = SFTConfig(folder, per_device_train_batch_size=images if shared else 3 * images, **(SETTINGS | settings))
    dataset = Dataset.from_list(rows)
    grouped = group_by_image(dataset)
    places = {row["id"]: place for place, row in enumerate(rows)}
    order = [places[query["id"]] for queries in grouped["queries"] for query in queries]
    trainer = SFTTrainer(
        model,
        args,
        train_dataset=grouped if shared else dataset.select(order),
        processing_class=processor,
        **({"data_collator": (SharedImageCollator if shared else ChatCollator)(processor)} | more),
    )
    if shared:
        trainer.add_callback(SharedImageCallback(trainer))
    return trainer
