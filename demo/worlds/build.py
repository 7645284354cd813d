"""What each recipe trains on in demo and tests: drawn data in the real format and an untrained real architecture."""

from recipes import kvasir_vqa, nutrition_tables, reasonseg, ssg_vqa, vqa_rad  # isort: skip  (they keep quiet)
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.checkpoints.blip2 import write_blip2
from demo.checkpoints.llava import write_llava
from demo.checkpoints.qwen2_vl import write_qwen2_vl
from demo.checkpoints.sam import write_sam
from demo.checkpoints.surgvivqa import write_surgvivqa
from demo.worlds.album.dataset import draw_album
from demo.worlds.album.talk import PHRASES, all_words
from demo.worlds.endoscopy.dataset import draw_endoscopy
from demo.worlds.laparoscopy.dataset import draw_laparoscopy
from demo.worlds.packages.dataset import draw_packages
from demo.worlds.radiology.dataset import draw_radiology
from demo.worlds.scenes.coco import KINDS, draw_coco
from demo.worlds.scenes.dataset import draw_scenes
from demo.worlds.scenes.queries import all_queries
from vlm_recipes.eval.metrics.question_types import QuestionTypes


@dataclass(frozen=True)
class Size:
    """What the recipe's `draw_…` and `write_…` are given beside their folders and texts."""

    data: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)


DEMO = {
    "nutrition_tables": Size({"train": 5000, "val": 200}),
    "kvasir_vqa": Size({"images": 4000}, {"vision_size": 64}),
    "vqa_rad": Size(),
    "reasonseg": Size({"train": 3000, "val": 50, "test": 150, "broken": 10}, {"image_size": 64}),
    "ssg_vqa": Size({"frames": {"train": 120, "validation": 10, "test": 20}, "broken": 10}),
    "visual_chat": Size({"train": 4000, "test": 300}),
    "coco": Size({"train": 5000, "val": 200}),
}
RECIPES = {"coco": "nutrition_tables"}  # where a demo is of a recipe with other data than its own


def spoken(messages: list[dict]) -> list[str]:
    return [part["text"] for message in messages for part in message["content"] if "text" in part]


def build_nutrition_tables(dataset: Path, checkpoint: Path, size: Size) -> None:
    """Packages, and a Qwen2-VL whose vocabulary is made of the prompt and the answers."""
    draw_packages(dataset, **size.data)
    boxes = (f"({i % 1000},{7 * i % 1000}),({13 * i % 1000},{29 * i % 1000})" for i in range(500))
    phrases = [*nutrition_tables.SYSTEM.split("\n"), nutrition_tables.QUESTION]
    words = ["nutrition-table", "system", "user", "assistant"]
    write_qwen2_vl(checkpoint, [*boxes, *words * 50], phrases=phrases, **size.model)


def build_coco(dataset: Path, checkpoint: Path, size: Size) -> None:
    """Figures of three kinds, and the same Qwen2-VL with the words of their names and of the demo's own prompt."""
    draw_coco(dataset, **size.data)
    boxes = (f"({i % 1000},{7 * i % 1000}),({13 * i % 1000},{29 * i % 1000})" for i in range(500))
    words = [*KINDS, "none", "system", "user", "assistant"]
    phrases = ["Find figures.", "Where are the figures of these kinds: ", ", ".join(sorted(KINDS))]
    write_qwen2_vl(checkpoint, [*boxes, *words * 50], phrases=phrases, **size.model)


def build_kvasir_vqa(dataset: Path, checkpoint: Path, size: Size) -> None:
    """Endoscopy images, and a Qwen2-VL whose vocabulary is made of the prompts' lines and the answers."""
    draw_endoscopy(dataset, **size.data)
    rows = [json.loads(line) for line in (dataset / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["question"] and row["answer"]]
    types = QuestionTypes.infer([row["question"] for row in rows], [row["answer"] for row in rows])
    prompts = [kvasir_vqa.prompt(row["question"], types[row["question"]]) for row in rows]
    phrases = sorted({line for prompt in prompts for text in spoken(prompt) for line in text.split("\n")})
    texts = [row["answer"] for row in rows] + ["system", "user", "assistant"] * 50
    write_qwen2_vl(checkpoint, texts, phrases=phrases, **size.model)


def build_vqa_rad(dataset: Path, checkpoint: Path, size: Size) -> None:
    """Scans, and a BLIP-2 whose vocabulary is made of the prompt, the questions and the answers."""
    draw_radiology(dataset, **size.data)
    rows = json.loads(next(dataset.glob("*.json")).read_text(encoding="utf-8"))
    texts = [text for row in rows for text in (vqa_rad.prompt(str(row["question"])), str(row["answer"]))]
    write_blip2(checkpoint, texts, **size.model)


def build_reasonseg(dataset: Path, checkpoint: Path, size: Size) -> None:
    """Scenes, and a LLaVA, whose vocabulary is made of the prompts and the answers, with a SAM inside."""
    draw_scenes(dataset, **size.data)
    wordings = [template.format("") for template in reasonseg.SENTENCES + reasonseg.PHRASES]
    answers = [answer.replace("[SEG]", "") for answer in reasonseg.ANSWERS]
    texts = [*all_queries(), *20 * [*wordings, *answers, "USER: ASSISTANT:"]]
    write_sam(checkpoint / "sam")
    write_llava(checkpoint, texts, patch_size=16, initializer_range=0.1, **size.model)


def build_ssg_vqa(dataset: Path, checkpoint: Path, size: Size) -> None:
    """Operations under the names of the real videos, and a SurgViVQA which knows their questions' words.

    `size.data` has the `frames` of a video by split, and may have `videos`, the names by split of all that are drawn.
    """
    data = dict(size.data)
    frames, videos = data.pop("frames"), data.pop("videos", None)
    videos = videos or ssg_vqa.read_videos(Path(ssg_vqa.__file__).with_name("ssg_vqa_videos.yaml"))
    draw_laparoscopy(dataset, {name: frames[split] for split, names in videos.items() for name in names}, **data)
    files = sorted((dataset / "ssg-qa").glob("*/*.txt"))
    lines = {line for file in files for line in file.read_text(encoding="utf-8").splitlines() if "|" in line}
    questions = [ssg_vqa.prompt(line.split("|")[0]) for line in lines]
    write_surgvivqa(checkpoint, questions, [f" {label}" for label in ssg_vqa.LABELS] * 20, **size.model)


def build_visual_chat(dataset: Path, checkpoint: Path, size: Size) -> None:
    """An album, and a Qwen2-VL whose vocabulary is made of what is said about it."""
    draw_album(dataset, **size.data)
    write_qwen2_vl(checkpoint, [*all_words(), "system", "user", "assistant"] * 20, phrases=PHRASES, **size.model)


BUILDERS: dict[str, Callable[[Path, Path, Size], None]] = {
    "nutrition_tables": build_nutrition_tables,
    "kvasir_vqa": build_kvasir_vqa,
    "vqa_rad": build_vqa_rad,
    "reasonseg": build_reasonseg,
    "ssg_vqa": build_ssg_vqa,
    "visual_chat": build_visual_chat,
    "coco": build_coco,
}


def build(recipe: str, dataset: Path, checkpoint: Path, size: Size | None = None) -> None:
    """Write dataset and checkpoint, of the demo's size unless told another; a folder `dataset` is replaced."""
    shutil.rmtree(dataset, ignore_errors=True)
    BUILDERS[recipe](dataset, checkpoint, size or DEMO[recipe])
