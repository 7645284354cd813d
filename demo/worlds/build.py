"""What each demo needs: a dataset in the real format and an untrained checkpoint of the real architecture."""

import json
import shutil
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
from vlm_recipes.eval.metrics.question_types import QuestionTypes


def build_nutrition_tables(dataset: Path, checkpoint: Path) -> None:
    """Drawn packages, and a Qwen2-VL whose vocabulary is made of the prompt and the answers."""
    shutil.rmtree(dataset, ignore_errors=True)
    draw_packages(dataset, train=5000, val=200)
    boxes = (f"({i % 1000},{7 * i % 1000}),({13 * i % 1000},{29 * i % 1000})" for i in range(500))
    spoken = [part["text"] for message in nutrition_tables.prompt() for part in message["content"] if "text" in part]
    phrases = [sentence for text in spoken for sentence in text.split("\n")]
    words = ["nutrition-table", "system", "user", "assistant"]
    write_qwen2_vl(checkpoint, [*boxes, *words * 50], phrases=phrases)


def build_kvasir_vqa(dataset: Path, checkpoint: Path) -> None:
    """Drawn endoscopy images, and a Qwen2-VL whose vocabulary is made of the prompts' lines and the answers."""
    shutil.rmtree(dataset, ignore_errors=True)
    draw_endoscopy(dataset, images=4000)
    rows = [json.loads(line) for line in (dataset / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["question"] and row["answer"]]
    types = QuestionTypes.infer([row["question"] for row in rows], [row["answer"] for row in rows])
    prompts = [kvasir_vqa.prompt(row["question"], types[row["question"]]) for row in rows]
    spoken = {
        part["text"] for prompt in prompts for message in prompt for part in message["content"] if "text" in part
    }
    phrases = sorted({line for text in spoken for line in text.split("\n")})
    texts = [row["answer"] for row in rows] + ["system", "user", "assistant"] * 50
    write_qwen2_vl(checkpoint, texts, phrases=phrases, vision_size=64)


def build_vqa_rad(dataset: Path, checkpoint: Path) -> None:
    """Drawn scans, and a BLIP-2 whose vocabulary is made of the prompt, the questions and the answers."""
    shutil.rmtree(dataset, ignore_errors=True)
    draw_radiology(dataset)
    rows = json.loads(next(dataset.glob("*.json")).read_text(encoding="utf-8"))
    texts = [text for row in rows for text in (vqa_rad.prompt(str(row["question"])), str(row["answer"]))]
    write_blip2(checkpoint, texts)


def build_reasonseg(dataset: Path, checkpoint: Path) -> None:
    """Drawn scenes, and a LLaVA, whose vocabulary is made of the prompts and the answers, with a SAM inside."""
    shutil.rmtree(dataset, ignore_errors=True)
    draw_scenes(dataset, train=3000, val=50, test=150, broken=10)
    wordings = [template.format("") for template in reasonseg.SENTENCES + reasonseg.PHRASES]
    answers = [answer.replace("[SEG]", "") for answer in reasonseg.ANSWERS]
    texts = [*all_queries(), *20 * [*wordings, *answers, "USER: ASSISTANT:"]]
    write_sam(checkpoint / "sam")
    write_llava(checkpoint, texts, image_size=64, patch_size=16, initializer_range=0.1)


def build_ssg_vqa(dataset: Path, checkpoint: Path) -> None:
    """Drawn operations under the names of the real videos, and a SurgViVQA which knows their questions' words."""
    shutil.rmtree(dataset, ignore_errors=True)
    frames = {"train": 120, "validation": 10, "test": 20}
    videos = ssg_vqa.read_videos(Path(ssg_vqa.__file__).with_name("ssg_vqa_videos.yaml"))
    draw_laparoscopy(dataset, {name: frames[split] for split, names in videos.items() for name in names}, broken=10)
    files = sorted((dataset / "ssg-qa").glob("*/*.txt"))
    lines = {line for file in files for line in file.read_text(encoding="utf-8").splitlines() if "|" in line}
    questions = [ssg_vqa.prompt(line.split("|")[0]) for line in lines]
    write_surgvivqa(checkpoint, questions, [f" {label}" for label in ssg_vqa.LABELS] * 20)
