"""A small drawn dataset and checkpoint for each recipe, several questions an image, and what to start it with."""

import json
from collections.abc import Callable
from pathlib import Path

from demo.checkpoints.blip2 import write_blip2
from demo.checkpoints.llava import write_llava
from demo.checkpoints.qwen2_vl import write_qwen2_vl
from demo.checkpoints.sam import write_sam
from demo.checkpoints.surgvivqa import write_surgvivqa
from demo.worlds.endoscopy.dataset import draw_endoscopy
from demo.worlds.laparoscopy.dataset import draw_laparoscopy
from demo.worlds.packages.dataset import draw_packages
from demo.worlds.radiology.dataset import draw_radiology
from demo.worlds.scenes.dataset import draw_scenes
from demo.worlds.scenes.queries import all_queries
from recipes import kvasir_vqa, nutrition_tables, reasonseg, ssg_vqa, vqa_rad

SMALL = ["--min_pixels", "12544", "--max_pixels", "12544", "--gradient_checkpointing", "false"]
VIDEOS = {"train": ["VID04"], "validation": ["VID01"], "test": ["VID02"]}


def write_nutrition_tables(folder: Path, train: int, val: int) -> list[str]:
    draw_packages(folder / "data", train=train, val=val, broken=0)
    spoken = [part["text"] for message in nutrition_tables.prompt() for part in message["content"] if "text" in part]
    write_qwen2_vl(folder / "model", spoken * 20, hidden_size=64, layers=1)
    return [*SMALL, "--tune", "joint", "--validation_fraction", "0.1"]


def write_kvasir_vqa(folder: Path, images: int) -> list[str]:
    draw_endoscopy(folder / "data", images=images, broken=0)
    lines = (folder / "data" / "metadata.jsonl").read_text().splitlines()
    texts = [json.loads(line)[key] for line in lines for key in ("question", "answer")]
    write_qwen2_vl(folder / "model", texts, phrases=[kvasir_vqa.SYSTEM], hidden_size=64, layers=1)
    return [*SMALL, "--validation_fraction", "0.05", "--test_fraction", "0.05"]


def write_vqa_rad(folder: Path, images: int) -> list[str]:
    draw_radiology(folder / "data", images=images, broken=0)
    rows = json.loads(next((folder / "data").glob("*.json")).read_text())
    texts = [text for row in rows for text in (vqa_rad.prompt(row["question"].strip()), str(row["answer"]))]
    write_blip2(folder / "model", texts, image_size=32, width=64, layers=1, queries=4)
    return ["--load_in_8bit", "false", "--dtype", "float32"]


def write_reasonseg(folder: Path, train: int, val: int, test: int) -> list[str]:
    draw_scenes(folder / "data", train=train, val=val, test=test)
    wordings = [template.format("") for template in reasonseg.SENTENCES + reasonseg.PHRASES]
    answers = [answer.replace("[SEG]", "") for answer in reasonseg.ANSWERS]
    texts = [*all_queries(), *20 * [*wordings, *answers, "USER: ASSISTANT:"]]
    sizes = {"hidden_size": 64, "layers": 1, "image_size": 32, "patch_size": 16}
    write_llava(folder / "model", texts, **sizes, initializer_range=0.1)
    write_sam(folder / "model" / "sam", image_size=64, layers=1)
    return ["--sam_name_or_path", str(folder / "model" / "sam")]


def write_ssg_vqa(folder: Path, train: int, val: int, test: int) -> list[str]:
    draw_laparoscopy(folder / "data", {"VID04": train, "VID01": val, "VID02": test})
    (folder / "data" / "videos.yaml").write_text(json.dumps(VIDEOS))
    files = sorted((folder / "data" / "ssg-qa").glob("*/*.txt"))
    lines = {line for file in files for line in file.read_text().splitlines() if "|" in line}
    questions = [ssg_vqa.prompt(line.split("|")[0]) for line in sorted(lines)]
    labels = [f" {label}" for label in ssg_vqa.LABELS] * 20
    write_surgvivqa(folder / "model", questions, labels, hidden_size=64, layers=1)
    return ["--videos", str(folder / "data" / "videos.yaml")]


BUILDERS: dict[str, Callable[[Path], list[str]]] = {
    "nutrition_tables": lambda folder: write_nutrition_tables(folder, train=24, val=2),
    "kvasir_vqa": lambda folder: write_kvasir_vqa(folder, images=20),
    "vqa_rad": lambda folder: write_vqa_rad(folder, images=30),
    "reasonseg": lambda folder: write_reasonseg(folder, train=24, val=2, test=2),
    "ssg_vqa": lambda folder: write_ssg_vqa(folder, train=24, val=1, test=1),
}


def build(recipe: str, folder: Path) -> list[str]:
    """Write dataset and checkpoint into `folder`; returns the recipe's arguments."""
    own = BUILDERS[recipe](folder)
    return ["--dataset_name", str(folder / "data"), "--model_name_or_path", str(folder / "model"), *own]
