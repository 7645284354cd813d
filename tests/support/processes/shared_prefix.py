"""Models that say something else of each picture, and questions about shared images."""

import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from demo.checkpoints.llava import write_llava
from demo.checkpoints.qwen2_vl import write_qwen2_vl
from vlm_recipes.collators import SharedImageCollator
from vlm_recipes.eval.generation.generate import generate

COUNTS, LENGTH = (0, 1, 7, 50), 8  # rows; tokens of an answer
TEXTS = [
    "You are a helpful assistant. Which colour is the left one, and where? USER: ASSISTANT: red wine none yes"
] * 20
WORDS = ["which", "colour", "where", "is", "the", "left", "one", "and", "red", "none", "it", "?", "12", "grün"]


def speaker(family: str, folder: Path, attention: str = "sdpa"):
    """A random model of two layers, with weights so large that its answers depend on the picture; its processor."""
    if family == "llava":
        write_llava(folder, TEXTS, hidden_size=64, image_size=56)
    else:
        write_qwen2_vl(folder, TEXTS, family=family, hidden_size=64, min_pixels=4 * 784, max_pixels=16 * 784)
    model = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation=attention)
    for name, weight in model.named_parameters():
        if weight.ndim > 1 and "embed" not in name:
            weight.data *= 3
    head = torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(1)) * 0.4
    head[model.config.get_text_config().eos_token_id] *= 2  # so that some answers end early
    model.lm_head.weight = torch.nn.Parameter(head)
    return model.eval(), AutoProcessor.from_pretrained(folder)


def noise(rng: random.Random) -> Image.Image:
    pixels = np.random.default_rng(rng.randrange(2**16)).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((rng.randint(40, 140), rng.randint(40, 140)), Image.Resampling.NEAREST)


def said(role: str, text: str) -> dict:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def draw_rows(seed: int, groups: int = 4, most: int = 12) -> list[dict]:
    """Questions about groups of one to three images, some after other turns, and about none; one of them twice."""
    rng, rows = random.Random(seed), []

    def words() -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(1, 12)))

    for group in range(groups):
        images = [noise(rng) for _ in range(rng.randint(1, 3))]
        system, first = [said("system", words())] * rng.randint(0, 1), words()
        for _ in range(rng.randint(1, most)):
            turns = rng.choice([1, 1, 2, 3])
            messages = [*system, said("user", words() if turns == 1 else first)]
            if rng.random() < 0.5:  # else the collator puts the images there
                messages[-1]["content"] = [{"type": "image"}] * len(images) + messages[-1]["content"]
            for _ in range(turns - 1):
                messages += [said("assistant", words()), said("user", words())]
            rows.append({"image_id": f"image {group}", "images": images, "messages": messages})
    rows += [{"images": [], "messages": [said("user", words())]} for _ in range(3)]
    rows.append(dict(rows[0]))
    rng.shuffle(rows)
    return [{"id": i, **row} for i, row in enumerate(rows)]


def dealt_rows(count: int, of_image: int = 4) -> list[dict]:
    """So many questions about each image, of different lengths, those of an image far from each other."""
    rng = random.Random(9)
    images = [noise(rng).resize((56, 56)) for _ in range(-(-count // of_image))]
    rows = [{"id": i, "image_id": i % len(images), "image_size": [56, 56]} for i in range(count)]
    asked = [{"messages": [said("user", "left " * (1 + (i * 37) % 50))]} for i in range(count)]
    return [{**row, "images": [images[row["image_id"]]], **more} for row, more in zip(rows, asked, strict=True)]


class Recording(SharedImageCollator):
    """Notes the number and the image of each row in `batches`, but for those that a model is tried on before."""

    def __call__(self, rows):
        if rows[0]["id"] != "tried":
            self.batches.append([(row["id"], row["image_id"]) for row in rows])
        return super().__call__(rows)


def recorded(speaking, count: int, batch_size: int) -> tuple[list[str], list]:
    model, processor = speaking
    collate = Recording(processor, prompt_only=True)
    collate.batches = []
    texts = generate(model, dealt_rows(count), collate, max_new_tokens=LENGTH, batch_size=batch_size)
    return texts, collate.batches
