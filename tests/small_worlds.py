"""A small drawn dataset and checkpoint for each recipe, several questions an image, and what to start it with."""

import json
from collections.abc import Callable
from pathlib import Path

from demo.blip2 import write_blip2
from demo.endoscopy import draw_endoscopy
from demo.laparoscopy import draw_laparoscopy
from demo.llava import write_llava
from demo.packages import draw_packages
from demo.qwen2_vl import write_qwen2_vl
from demo.radiology import draw_radiology
from demo.sam import write_sam
from demo.scene_queries import all_queries
from demo.scenes import draw_scenes
from demo.surgvivqa import write_surgvivqa
from recipes import nutrition_tables, reasonseg, ssg_vqa, vqa_rad

SMALL = ["--min_pixels", "12544", "--max_pixels", "12544", "--gradient_checkpointing", "false"]


def _nutrition_tables(dataset: Path, model: Path) -> list[str]:
    draw_packages(dataset, train=24, val=2, broken=0)
    spoken = [part["text"] for message in nutrition_tables.prompt() for part in message["content"] if "text" in part]
    write_qwen2_vl(model, spoken * 20, hidden_size=64, layers=1)
    return [*SMALL, "--tune", "joint", "--validation_fraction", "0.1"]


def _kvasir_vqa(dataset: Path, model: Path) -> list[str]:
    draw_endoscopy(dataset, images=20, broken=0)
    write_qwen2_vl(model, ["Question type answer yes no"] * 20, hidden_size=64, layers=1)
    return [*SMALL, "--validation_fraction", "0.05", "--test_fraction", "0.05"]


def _vqa_rad(dataset: Path, model: Path) -> list[str]:
    draw_radiology(dataset, images=30, broken=0)
    rows = json.loads(next(dataset.glob("*.json")).read_text())
    texts = [text for row in rows for text in (vqa_rad.prompt(str(row["question"])), str(row["answer"]))]
    write_blip2(model, texts, image_size=32, width=32, layers=1, queries=4)
    return ["--load_in_8bit", "false", "--dtype", "float32"]


def _reasonseg(dataset: Path, model: Path) -> list[str]:
    draw_scenes(dataset, train=24, val=2, test=2)
    wordings = [template.format("") for template in reasonseg.SENTENCES + reasonseg.PHRASES]
    answers = [answer.replace("[SEG]", "") for answer in reasonseg.ANSWERS]
    texts = [*all_queries(), *20 * [*wordings, *answers, "USER: ASSISTANT:"]]
    write_llava(model, texts, hidden_size=64, layers=1, image_size=32, patch_size=16, initializer_range=0.1)
    write_sam(model / "sam", image_size=64)
    return ["--sam_name_or_path", str(model / "sam")]


def _ssg_vqa(dataset: Path, model: Path) -> list[str]:
    videos = {"train": ["VID04"], "validation": ["VID01"], "test": ["VID02"]}
    draw_laparoscopy(dataset, {"VID04": 24, "VID01": 1, "VID02": 1})
    (dataset / "videos.yaml").write_text(json.dumps(videos))
    lines = {line for file in dataset.glob("ssg-qa/*/*.txt") for line in file.read_text().splitlines() if "|" in line}
    questions = [ssg_vqa.prompt(line.split("|")[0]) for line in sorted(lines)]
    write_surgvivqa(model, questions, [f" {label}" for label in ssg_vqa.LABELS] * 20, hidden_size=64, layers=1)
    return ["--videos", str(dataset / "videos.yaml")]


BUILDERS: dict[str, Callable[[Path, Path], list[str]]] = {
    "nutrition_tables": _nutrition_tables,
    "kvasir_vqa": _kvasir_vqa,
    "vqa_rad": _vqa_rad,
    "reasonseg": _reasonseg,
    "ssg_vqa": _ssg_vqa,
}


def build(recipe: str, folder: Path) -> list[str]:
    """Write dataset and checkpoint into `folder`; returns the recipe's arguments."""
    own = BUILDERS[recipe](folder / "data", folder / "model")
    return ["--dataset_name", str(folder / "data"), "--model_name_or_path", str(folder / "model"), *own]
