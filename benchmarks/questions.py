"""Endoscopy questions for the benchmarks of speed, as many on each picture as in Kvasir-VQA, and what they compute.

Of 160 of its images the numbers of questions are `SAMPLE`; on all 6,500 there are 58,849, 9.05 each. So images with
one question are added to the sample until that is the mean. Pictures, wordings and answers are those of the demo, and
prompts and pixel budget those of the recipe.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, Image
from PIL.Image import Resampling
from transformers import Qwen2VLConfig

from demo.checkpoints.qwen2_vl import write_qwen2_vl
from demo.worlds.endoscopy.picture import render
from demo.worlds.endoscopy.questions import QUESTIONS, answers
from demo.worlds.endoscopy.scene import draw_scene
from recipes import kvasir_vqa
from vlm_recipes.eval.metrics.question_types import QuestionTypes

SAMPLE = {1: 4, 2: 2, 11: 1, 12: 37, 13: 49, 14: 22, 15: 8, 16: 3, 17: 34}
MEAN = 58_849 / 6_500
SIZE = (720, 576)  # width and height of a picture
PIXELS = (kvasir_vqa.Data.min_pixels, kvasir_vqa.Data.max_pixels)
FEW_PIXELS = (4 * 28**2, 9 * 28**2)  # where it shall not take long
TYPED_ON = 400  # a question's type comes from the answers to it in so many scenes


def questions_per_image(images: int, seed: int = 0) -> list[int]:
    """Evenly spaced quantiles of the distribution, shuffled, so that few images have about its mean, too."""
    sample = [number for number, times in SAMPLE.items() for _ in range(times)]
    single = (sum(sample) - MEAN * len(sample)) / (MEAN - 1)
    mixed = np.sort(sample + [1] * round(single))
    places = (np.arange(images) + 0.5) / images * len(mixed)
    return np.random.default_rng(seed).permutation(mixed[places.astype(int)]).tolist()


def write_questions(folder: Path, images: int, seed: int = 0) -> Dataset:
    """Draw pictures into the folder; a chat row for each question, in a shuffled order."""
    folder.mkdir(parents=True)
    scenes = [draw_scene(np.random.default_rng([seed, i])) for i in range(max(images, TYPED_ON))]
    asked = [(QUESTIONS[name], answer) for scene in scenes for name, answer in answers(scene).items()]
    types = QuestionTypes.infer(*zip(*asked, strict=True))
    rng, rows = np.random.default_rng(seed), []
    for i, number in enumerate(questions_per_image(images, seed)):
        file = folder / f"{i}.jpg"
        render(scenes[i]).resize(SIZE, Resampling.BICUBIC).save(file, quality=88)
        known = list(answers(scenes[i]).items())
        for which in rng.choice(len(known), number, replace=False):
            name, answer = known[which]
            raw = {"question": QUESTIONS[name], "answer": answer, "img_id": str(i), "id": f"{i}#{len(rows)}"}
            row = kvasir_vqa.to_chat(raw | {"image_size": list(SIZE)}, types, typed_prompt=True)
            rows.append(row | {"image": str(file), "image_size": list(SIZE)})
    return Dataset.from_list(rows).cast_column("image", Image()).shuffle(seed=seed)


def write_model(folder: Path, questions: Dataset, pixels: tuple[int, int] | None = None) -> None:
    """The demo's random Qwen2-VL, for which a prompt is about as many tokens as for the real one.

    `pixels` are the least and the most of an image, by default the recipe's.
    """
    turns = [turn for messages in questions["messages"] for turn in messages]
    texts = [part["text"] for turn in turns for part in turn["content"] if part["type"] == "text"]
    texts += ["system", "user", "assistant"] * 50
    least, most = pixels or PIXELS
    write_qwen2_vl(folder, texts, vision_size=64, min_pixels=least, max_pixels=most)


@dataclass
class Work:
    """What batches hold: tokens, also with padding; `pairs` of tokens of which one sees the other; tokens that are
    trained; patches of each image, as often as it is encoded."""

    questions: int
    batches: int = 0
    tokens: int = 0
    padded: int = 0
    pairs: int = 0
    trained: int = 0
    patches: tuple[int, ...] = ()

    def add(self, batch: dict[str, torch.Tensor]) -> None:
        """Count another batch, with a mask of tokens `[B, S]` or of pairs `[B, 1, S, S]`."""
        mask, size = batch["attention_mask"], batch["input_ids"].numel()
        if mask.ndim == 4:
            tokens = int(mask.diagonal(dim1=-2, dim2=-1).sum())
            self.pairs += int(mask.sum()) - (size - tokens)  # padding sees one token
        else:
            lengths = mask.sum(1)
            tokens = int(lengths.sum())
            self.pairs += int((lengths * (lengths + 1) // 2).sum())
        self.batches += 1
        self.tokens += tokens
        self.padded += size
        self.trained += int((batch["labels"] != -100).sum())
        self.patches += tuple(batch["image_grid_thw"].prod(-1).tolist())


def forward_flops(config: Qwen2VLConfig, work: Work) -> dict[str, int]:
    """Floating-point operations of matrix products in a forward: two for each weight and token, and in attention four
    for each pair and channel (Kaplan et al., arXiv 2001.08361, table 1; PaLM, arXiv 2204.02311, appendix B)."""
    text, vision = config.text_config, config.vision_config
    keys = text.hidden_size // text.num_attention_heads * text.num_key_value_heads
    layer = text.hidden_size * (2 * text.hidden_size + 2 * keys + 3 * text.intermediate_size)
    block = (4 + 2 * vision.mlp_ratio) * vision.embed_dim**2
    embedding = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2 * vision.embed_dim
    merged = vision.spatial_merge_size**2  # so many patches become a token
    merger = vision.embed_dim * (merged * vision.embed_dim + vision.hidden_size)  # for each patch
    head = text.hidden_size * text.vocab_size
    return {
        "vision": 2 * (embedding + vision.depth * block + merger) * sum(work.patches)
        + 4 * vision.depth * vision.embed_dim * sum(patches**2 for patches in work.patches),
        "weights": 2 * (text.num_hidden_layers * layer * work.tokens + head * work.trained),
        "attention": 4 * text.num_hidden_layers * text.hidden_size * work.pairs,
    }


def training_flops(config: Qwen2VLConfig, work: Work, lora: bool) -> int:
    """Operations of forward and backward: a backward has each product twice, once for the gradient of either factor.

    With LoRA in the language model, its own weights need no gradient and the vision tower no backward (which runs all
    the same where checkpointing has all embeddings require gradients); the adapters, about 1 %, are left out. Unlike
    in PaLM, only pairs of which one sees the other count, and of the head only tokens that are trained.
    """
    forward = forward_flops(config, work)
    if lora:
        return forward["vision"] + 2 * forward["weights"] + 3 * forward["attention"]
    return 3 * sum(forward.values())
