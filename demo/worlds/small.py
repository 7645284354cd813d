"""Each recipe's world, small: several questions an image, a model of one layer, and what to start the recipe with."""

import json
from pathlib import Path

from demo.worlds.build import Size
from demo.worlds.build import build as build_world

SMALL_PIXELS = ["--min_pixels", "12544", "--max_pixels", "12544", "--gradient_checkpointing", "false"]
VIDEOS = {"train": ["VID04"], "validation": ["VID01"], "test": ["VID02"]}

MODEL = {"hidden_size": 64, "layers": 1}
SIZES = {
    "nutrition_tables": Size({"train": 24, "val": 2, "broken": 0}, MODEL),
    "kvasir_vqa": Size({"images": 20, "broken": 0}, MODEL),
    "vqa_rad": Size({"images": 30, "broken": 0}, {"image_size": 32, "width": 64, "layers": 1, "queries": 4}),
    "reasonseg": Size({"train": 24, "val": 2, "test": 2}, {**MODEL, "image_size": 32}),
    "ssg_vqa": Size({"videos": VIDEOS, "frames": {"train": 24, "validation": 1, "test": 1}}, MODEL),
    "visual_chat": Size({"train": 24, "test": 2, "broken": 0}, MODEL),
}
ARGUMENTS = {
    "nutrition_tables": [*SMALL_PIXELS, "--tune", "joint", "--validation_fraction", "0.1"],
    "kvasir_vqa": [*SMALL_PIXELS, "--validation_fraction", "0.05", "--test_fraction", "0.05"],
    "vqa_rad": ["--load_in_8bit", "false", "--dtype", "float32"],
    "reasonseg": ["--sam_name_or_path", "{folder}/model/sam"],
    "ssg_vqa": ["--videos", "{folder}/data/videos.yaml"],
    "visual_chat": [*SMALL_PIXELS, "--validation_fraction", "0.1"],
}


def build(recipe: str, folder: Path, **data: object) -> list[str]:
    """Write `folder`/data and `folder`/model, of `SIZES` but for `data`; returns the recipe's arguments."""
    size = SIZES[recipe]
    build_world(recipe, folder / "data", folder / "model", Size({**size.data, **data}, size.model))
    if recipe == "ssg_vqa":
        (folder / "data" / "videos.yaml").write_text(json.dumps(VIDEOS))
    own = [argument.format(folder=folder) for argument in ARGUMENTS[recipe]]
    return ["--dataset_name", str(folder / "data"), "--model_name_or_path", str(folder / "model"), *own]
