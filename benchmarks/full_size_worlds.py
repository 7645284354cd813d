"""What each recipe is given at full size: drawn rows, and a folder with a model's configuration and its processor.

Images are as large as those that the recipe is for, or as it lets them be; a tokenizer is made of the rows' own texts.
With `toy` all is as small as it gets. Each function writes into an empty folder and returns the recipe's arguments.
"""

import json
from collections.abc import Callable
from pathlib import Path

from transformers import (
    AutoProcessor,
    AutoTokenizer,
    Blip2Config,
    BlipConfig,
    LlavaConfig,
    SamImageProcessor,
)

from benchmarks.full_size import blip2_flan_t5_xl, full_size, llava_7b, sam_vit, surgvivqa_parts
from benchmarks.questions import FEW_PIXELS, PIXELS, write_model, write_questions
from demo.worlds.build import Size, build
from vlm_recipes.models.surgvivqa.config import SurgViVqaConfig
from vlm_recipes.models.surgvivqa.loading import SurgViVqaProcessor

TOWER = {"hidden_size": 64, "layers": 1}
REASONSEG_SIDE = 1386  # pixels of a square as large as 1600×1200
VIDEOS = {"train": ["VID04"], "validation": ["VID01"], "test": ["VID02"]}
SSG_SIDE = 640  # pixels of a square as large as Cholec's 854×480
CHAT_SIDE = 644  # pixels of a square as large as 23×23 tokens, about 720×576


def nutrition_tables(folder: Path, toy: bool) -> list[str]:
    """Qwen2-VL-7B; each photograph takes the whole pixel budget. The prompt is a few tokens, not a hundred."""
    data, model = _drawn("nutrition_tables", folder, Size({"train": 24, "val": 2, "broken": 0}, TOWER))
    if not toy:
        full_size("Qwen2-VL-7B", AutoTokenizer.from_pretrained(model)).save_pretrained(model)
    smallest, largest = FEW_PIXELS if toy else (1280 * 28**2, 1280 * 28**2)
    return ["--dataset_name", data, "--model_name_or_path", model, *_pixels(smallest, largest)]


def kvasir_vqa(folder: Path, toy: bool) -> list[str]:
    """Qwen2-VL-7B; pictures of 720×576, as many questions on each as in Kvasir-VQA, prompts about as long."""
    questions = write_questions(folder / "data", 8 if toy else 40)
    lines = [
        {"file_name": f"{row['image_id']}.jpg", "img_id": row["image_id"], "question": row["question"]}
        | {"answer": row["answer"]}
        for row in questions.remove_columns("image")
    ]
    (folder / "data" / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_model(folder / "model", questions)
    data, model = str(folder / "data"), str(folder / "model")
    if not toy:
        full_size("Qwen2-VL-7B", AutoTokenizer.from_pretrained(model)).save_pretrained(model)
    named = ["--dataset_name", data, "--model_name_or_path", model]
    return [*named, *_pixels(*(FEW_PIXELS if toy else PIXELS))]


def vqa_rad(folder: Path, toy: bool) -> list[str]:
    """BLIP-2 with Flan-T5-XL, in 8 bits as the recipe has it, and images of 224×224."""
    small = {"image_size": 32, "width": 64, "layers": 1, "queries": 4}
    data, model = _drawn("vqa_rad", folder, Size({"images": 30, "broken": 0}, small))
    if not toy:
        config, processor = blip2_flan_t5_xl(), AutoProcessor.from_pretrained(model)
        config.image_token_index = Blip2Config.from_pretrained(model).image_token_index
        config.save_pretrained(model)
        processor.image_processor.size = {"height": 224, "width": 224}
        processor.num_query_tokens = config.num_query_tokens
        processor.save_pretrained(model)
    return ["--dataset_name", data, "--model_name_or_path", model]


def reasonseg(folder: Path, toy: bool, sam: str = "huge") -> list[str]:
    """LLaVA-1.5-7B and the SAM of that name; images as large as 1600×1200, four queries on each."""
    scenes = {"train": 12, "val": 1, "test": 1, "size": 64 if toy else REASONSEG_SIDE}
    data, model = _drawn("reasonseg", folder, Size(scenes, TOWER | {"image_size": 32}))
    if not toy:
        small, processor = LlavaConfig.from_pretrained(model), AutoProcessor.from_pretrained(model)
        config = llava_7b(small.image_token_index, small.text_config.pad_token_id)
        config.save_pretrained(model)
        side = config.vision_config.image_size
        processor.image_processor.size = {"shortest_edge": side}
        processor.image_processor.crop_size = {"height": side, "width": side}
        processor.patch_size = config.vision_config.patch_size
        processor.save_pretrained(model)
        sam_vit(sam).save_pretrained(folder / "model" / "sam")
        SamImageProcessor().save_pretrained(folder / "model" / "sam")
    return ["--dataset_name", data, "--model_name_or_path", model, "--sam_name_or_path", f"{model}/sam"]


def ssg_vqa(folder: Path, toy: bool) -> list[str]:
    """VideoMAE-base, blip-vqa-base and GPT-2, each from a folder of its own; frames as large as Cholec's."""
    frames = {"train": 24, "validation": 2, "test": 1}  # a batch to evaluate are the questions of two
    size = Size({"videos": VIDEOS, "frames": frames, "size": 72 if toy else SSG_SIDE}, TOWER)
    data, model = _drawn("ssg_vqa", folder, size)
    (folder / "videos.json").write_text(json.dumps(VIDEOS))
    small, processor = SurgViVqaConfig.from_pretrained(model), SurgViVqaProcessor.from_pretrained(model)
    if toy:
        video, gpt2 = small.video, small.decoder
        tower = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
        blip = BlipConfig(text_config=small.text.to_dict(), vision_config=tower)
    else:
        ids = {name: getattr(small.text, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        video, blip, gpt2 = surgvivqa_parts(small.decoder.eos_token_id, **ids, sep_token_id=small.text.sep_token_id)
    names = {"video": video, "text": blip, "model": gpt2}
    for name, config in names.items():
        config.save_pretrained(folder / "parts" / name)
    processor.question_tokenizer.save_pretrained(folder / "parts" / "text")
    processor.tokenizer.save_pretrained(folder / "parts" / "model")
    parts = [part for name in names for part in (f"--{name}_name_or_path", str(folder / "parts" / name))]
    frames = ["--num_frames", str(small.video.num_frames)] if toy else []
    return ["--dataset_name", data, "--videos", str(folder / "videos.json"), *parts, *frames]


def visual_chat(folder: Path, toy: bool) -> list[str]:
    """Qwen2-VL-7B; conversations of one to three turns about one or two pictures, each 529 tokens of the budget."""
    size = {"train": 24, "test": 2, "broken": 0, "size": 64 if toy else CHAT_SIDE}
    data, model = _drawn("visual_chat", folder, Size(size, TOWER))
    if not toy:
        full_size("Qwen2-VL-7B", AutoTokenizer.from_pretrained(model)).save_pretrained(model)
    return ["--dataset_name", data, "--model_name_or_path", model, *_pixels(*(FEW_PIXELS if toy else PIXELS))]


WORLDS: dict[str, Callable[[Path, bool], list[str]]] = {
    world.__name__: world for world in (nutrition_tables, kvasir_vqa, vqa_rad, reasonseg, ssg_vqa, visual_chat)
}


def _drawn(recipe: str, folder: Path, size: Size) -> tuple[str, str]:
    """The folders of the drawn rows and of the small checkpoint."""
    build(recipe, folder / "data", folder / "model", size)
    return str(folder / "data"), str(folder / "model")


def _pixels(smallest: int, largest: int) -> list[str]:
    return ["--min_pixels", str(smallest), "--max_pixels", str(largest)]
