"""A few rows, and small checkpoints that have learnt them; written once a session."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from demo.checkpoints.blip2 import write_blip2
from demo.checkpoints.llava import write_llava
from demo.checkpoints.qwen2_vl import write_qwen2_vl
from demo.checkpoints.sam import write_sam
from demo.checkpoints.surgvivqa import write_surgvivqa
from tests.support.session import once
from vlm_recipes.collators import ChatCollator, Seq2SeqCollator
from vlm_recipes.eval.metrics.masks import encode
from vlm_recipes.eval.metrics.number import Number, Scores

# Answers of different lengths; the boxes' special tokens have to survive.
ANSWERS = {
    "red": "red",
    "lime": "it is green",
    "blue": "blue, and as far as I can see nothing else",
    "yellow": "<|box_start|>(1,2),(3,4)<|box_end|>",
    "cyan": "cyan cyan cyan",
    "white": "white",
    "black": "nothing at all",
}
QUESTION = "What colour do you see?"
SIZES = [(56, 56), (84, 56), (56, 112), (84, 84), (112, 56), (56, 56), (84, 112)]


def _message(role: str, text: str, image: bool = False) -> dict:
    content = [{"type": "image"}] if image else []
    return {"role": role, "content": [*content, {"type": "text", "text": text}]}


def chat_rows() -> list[dict]:
    """One-colour pictures of different sizes with a question each, and one row without a picture."""
    rows = [
        {
            "id": colour,
            "images": [Image.new("RGB", size, colour)],
            "image_size": list(size),
            "answer": answer,
            "messages": [_message("user", QUESTION, image=True), _message("assistant", answer)],
        }
        for (colour, answer), size in zip(ANSWERS.items(), SIZES, strict=True)
    ]
    text_only = {"id": "text only", "images": [], "image_size": [0, 0], "answer": "sunshine"}
    text_only["messages"] = [_message("user", "And without a picture?"), _message("assistant", "sunshine")]
    return [*rows[:3], text_only, *rows[3:]]


def question_rows() -> list[dict]:
    """The same pictures as rows for an encoder-decoder."""
    answers = ANSWERS | {"yellow": "yellow (1,2)", "cyan": "not red and not white"}
    return [
        {"id": colour, "image": Image.new("RGB", size, colour), "prompt": f"Question: {QUESTION} Answer:"}
        | {"answer": answer}
        for (colour, answer), size in zip(answers.items(), SIZES, strict=True)
    ]


def eight_questions() -> list[dict]:
    """As many as are wanted for 8x1, 4x2, 2x4 and 1x8, with answers of one to a dozen tokens."""
    return [*question_rows(), {**question_rows()[0], "id": "again", "answer": "red and nothing else"}]


def mask_rows() -> list[dict]:
    """Four pictures of different sizes for LISA, with one mask, none, two, and one beside what is to be ignored."""
    rows = []
    sizes = [(48, 64), (64, 64), (80, 40), (64, 48)]
    answers = ["It is [SEG].", "nothing", "red [SEG] and blue [SEG].", "Sure, [SEG]."]
    for i, (size, answer) in enumerate(zip(sizes, answers, strict=True)):
        image, masks = Image.new("RGB", size, "black"), []
        for k in range(answer.count("[SEG]")):
            mask = np.zeros(size[::-1], dtype=bool)
            mask[8 : 24 + 4 * i, 6 + 30 * k : 26 + 30 * k] = True
            image.paste(("red", "blue")[k], (6 + 30 * k, 8, 26 + 30 * k, 24 + 4 * i))
            masks.append(encode(mask))
        ignore = np.zeros(size[::-1], dtype=bool)
        ignore[:12, :20] = True
        question = f"Where is {('it', 'nothing', 'both', 'the red thing')[i]}?"
        row = {"id": f"row {i}", "image_id": f"image {i}", "image": image, "question": question, "answer": answer}
        row |= {"masks": masks, "ignore": encode(ignore) if i == 3 else None, "kind": "drawn", "first": True}
        rows.append(row | {"messages": [_message("user", question, image=True), _message("assistant", answer)]})
    return rows


def video_rows() -> list[dict]:
    """Four questions about three pictures, the first two about the same; answers of one to many tokens."""
    asked = [
        ("red", "What is the grasper doing?", "grasp"),
        ("red", "How many instruments are there to the left of the blue liver?", "10"),
        ("lime", "What is the grasper doing?", "specimen_bag"),
        ("blue", "Is it bleeding?", "abdominal_wall_cavity"),
    ]
    return [
        {"id": f"row {i}", "image_id": colour, "image": Image.new("RGB", (16 * len(colour), 48), colour)}
        | {"question": question, "prompt": f"Question: {question}\nAnswer:", "answer": answer}
        for i, (colour, question, answer) in enumerate(asked)
    ]


def exact_scores(answers: list[str], rows: list[dict]) -> list[float]:
    return [float(answer == row["answer"]) for answer, row in zip(answers, rows, strict=True)]


def exact_match(answers: list[str], rows: list[dict]) -> Scores:
    """The headline "exact" of `exact_scores`, without an interval."""
    return Scores(len(rows), {"exact": Number(sum(exact_scores(answers, rows)) / len(rows), len(rows))})


@cache
def qwen2_vl() -> Path:
    """A random Qwen2-VL."""
    texts = [part["text"] for row in chat_rows() for message in row["messages"] for part in message["content"][-1:]]
    sizes = {"hidden_size": 64, "layers": 1, "min_pixels": 4 * 784, "max_pixels": 16 * 784}
    return once("qwen2_vl", lambda folder: write_qwen2_vl(folder, texts * 20, **sizes))


@cache
def blip2() -> Path:
    """A random BLIP-2."""
    texts = [text for row in question_rows() for text in (row["prompt"], row["answer"])]
    sizes = {"image_size": 16, "width": 64, "layers": 1, "queries": 4}
    return once("blip2", lambda folder: write_blip2(folder, texts, **sizes))


@cache
def lisa() -> tuple[Path, Path]:
    """A random LLaVA and a random SAM."""
    texts = [row[key].replace("[SEG]", "") for row in mask_rows() for key in ("question", "answer")]
    texts = [*texts, "USER: ASSISTANT:"] * 20
    sizes = {"hidden_size": 64, "layers": 1, "image_size": 32}
    llava = once("llava", lambda folder: write_llava(folder, texts, **sizes, patch_size=16, initializer_range=0.1))
    return llava, once("sam", lambda folder: write_sam(folder, **sizes))


@cache
def surgvivqa() -> Path:
    """A random SurgViVQA that reads two frames."""
    prompts, answers = ([row[key] for row in video_rows()] for key in ("prompt", "answer"))
    sizes = {"hidden_size": 64, "layers": 1, "image_size": 32, "patch_size": 8, "num_frames": 2}
    return once("surgvivqa", lambda folder: write_surgvivqa(folder, prompts, [*answers, "grasper"], **sizes))


def learn_by_heart(
    model, processor, collator, rows: list[dict], folder: Path, steps: int, learning_rate: float
) -> Path:
    """Train on all rows at every step and save the model with its processor in `folder`, which is returned."""
    batch = collator(rows)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0, fused=True)
    model.train()
    for _ in range(steps):
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def learn(checkpoint: Path, trained: Path, collator_class, rows: list[dict], steps: int, learning_rate: float) -> None:
    """`learn_by_heart` with what is in the folder `checkpoint`; the trained model is written to `trained`."""
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    processor = AutoProcessor.from_pretrained(checkpoint)
    learn_by_heart(model, processor, collator_class(processor), rows, trained, steps, learning_rate)


@cache
def trained_qwen2_vl() -> Path:
    given = {"collator_class": ChatCollator, "rows": chat_rows(), "steps": 60, "learning_rate": 5e-3}
    return once("qwen2_vl_trained", lambda folder: learn(qwen2_vl(), folder, **given))


@cache
def trained_blip2() -> Path:
    given = {"collator_class": Seq2SeqCollator, "rows": question_rows(), "steps": 80, "learning_rate": 4e-3}
    return once("blip2_trained", lambda folder: learn(blip2(), folder, **given))
