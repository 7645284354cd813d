"""The smallest worlds in the formats of the recipes that take a chat model of any family: small pictures, few rows."""

import json
from pathlib import Path

from PIL import Image, ImageDraw

from tests.support.session import once

COLOURS = ["red", "lime", "blue", "yellow"]


def _picture(file: Path, colour: str) -> list[float]:
    """A picture of 64 by 48 with a bright box; returns this as y_min, x_min, y_max, x_max in 0-1."""
    place = COLOURS.index(colour)
    box = [0.125 * place, 0.125, 0.125 * place + 0.5, 0.75]
    image = Image.new("RGB", (64, 48), "black")
    y_min, x_min, y_max, x_max = (side * size for side, size in zip(box, (48, 64, 48, 64), strict=True))
    ImageDraw.Draw(image).rectangle([x_min, y_min, x_max, y_max], fill=colour)
    image.save(file)
    return box


def _write(folder: Path, lines: list[dict]) -> None:
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))


def _card(folder: Path, splits: dict[str, list[str]]) -> None:
    files = [{"split": split, "path": paths} for split, paths in splits.items()]
    configs = json.dumps([{"config_name": "default", "data_files": files}])
    (folder / "README.md").write_text(f"---\nconfigs: {configs}\n---\n")


def write_nutrition_tables(folder: Path) -> None:
    """Four photographs to train on and two of the same to test on, one table each."""
    for split, colours in (("train", COLOURS), ("val", COLOURS[:2])):
        (folder / split).mkdir()
        lines = []
        for colour in colours:
            box = _picture(folder / split / f"{colour}.png", colour)
            objects = {"bbox": [box], "category_id": [0], "category_name": ["table"]}
            shape = {"width": 64, "height": 48}
            lines.append({"file_name": f"{colour}.png", "image_id": f"{split}_{colour}", **shape, "objects": objects})
        _write(folder / split, lines)
    _card(folder, {"train": ["train/*"], "val": ["val/*"]})


def write_kvasir_vqa(folder: Path) -> None:
    """Eight images with three questions each: yes or no, a count, and a list of colours."""
    (folder / "images").mkdir()
    lines = []
    for place, colour in enumerate(COLOURS * 2):
        name = f"{colour}{place}"
        _picture(folder / "images" / f"{name}.png", colour)
        row = {"file_name": f"images/{name}.png", "source": "drawn", "img_id": name}
        asked = {
            "Is there text?": ["yes", "no"][place % 2],
            "How many polyps are in the image?": str(place),
            "What color is the abnormality? If more than one separate with ;": ["pink", "pink; red"][place % 2],
        }
        lines += [{**row, "question": question, "answer": answer} for question, answer in asked.items()]
    _write(folder, lines)
    _card(folder, {"raw": ["metadata.jsonl", "images/*"]})


def write_visual_chat(folder: Path) -> None:
    """Four conversations to train on, of one turn or two, with one picture each, and two of them to test on."""
    for split, colours in (("train", COLOURS), ("test", COLOURS[:2])):
        (folder / split).mkdir()
        lines = []
        for place, colour in enumerate(colours):
            _picture(folder / split / f"{colour}.png", colour)
            messages = [_said("user", "What colour is it?", {"type": "image"}), _said("assistant", f"It is {colour}.")]
            if place % 2:
                messages += [_said("user", "Is it a box?"), _said("assistant", "yes")]
            lines.append({"file_names": [f"{colour}.png"], "messages": messages, "kind": ["one", "two"][place % 2]})
        _write(folder / split, lines)
    _card(folder, {"train": ["train/*"], "test": ["test/*"]})


def _said(role: str, text: str, *parts: dict) -> dict:
    return {"role": role, "content": [*parts, {"type": "text", "text": text}]}


WRITERS = {
    "nutrition_tables": write_nutrition_tables,
    "kvasir_vqa": write_kvasir_vqa,
    "visual_chat": write_visual_chat,
}


def world(recipe: str) -> Path:
    """The folder that `--dataset_name` names, written once a session."""
    return once(f"family_world_{recipe}", WRITERS[recipe])
