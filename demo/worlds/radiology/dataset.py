"""Draws a radiology question-answering dataset in the format of VQA-RAD's original JSON, quirks included."""

import json
import uuid
from pathlib import Path

import numpy as np

from demo.worlds.radiology.questions import ask
from demo.worlds.radiology.scan import render
from demo.worlds.radiology.scene import draw_scene

JSON_NAME = "VQA_RAD Dataset Public.json"
HELD_OUT = 8  # each eighth image is a test image, with all its questions


def add_quirks(rows: list[dict], rng: np.random.Generator) -> None:
    """Change single rows of the training split in the ways in which single rows of the original are odd."""
    rows[0]["qid"] = "0"
    closed = [row for row in rows if row["answer_type"] == "CLOSED" and not row["phrase_type"].startswith("test")]
    odd = [closed[index] for index in rng.choice(len(closed), 7, replace=False)]
    for row in odd[:2]:
        row["answer_type"] = "CLOSED "
    for row in odd[2:4]:
        del row["question_rephrase"]
    odd[4]["question"] += " "
    odd[5]["answer"] = " " + odd[5]["answer"]
    odd[6]["question_type"] = "PRSE"


def add_broken(rows: list[dict], images: Path, broken: int) -> None:
    """Append rows that a loader has to refuse: in turn a missing image, half an image, no question, no answer."""
    for index in range(broken):
        row = rows[index] | {"qid": len(rows), "phrase_type": "freeform", "image_name": f"synpic{index:05}.jpg"}
        if index % 4 == 1:
            picture = (images / rows[index]["image_name"]).read_bytes()
            (images / row["image_name"]).write_bytes(picture[: len(picture) // 2])
        elif index % 4 > 1:
            row |= {"image_name": rows[index]["image_name"], ("question", "answer")[index % 4 - 2]: ""}
        rows.append(row)


def draw_radiology(folder: str | Path, *, images: int = 1600, seed: int = 0, broken: int = 4) -> None:
    """Write `images/` and the JSON of their questions to `folder`; the same seed, the same bytes.

    As in the original, `phrase_type` marks the test split; here no test image is asked about in training. "Left" is
    the left side of the image. `broken` rows are added that a loader has to refuse. Small sets need `broken=0`: the
    default is under 1% of the rows from about 60 images on.
    """
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    names, rows = np.random.default_rng(seed).permutation(np.arange(10_000, 70_000)), []
    for index, number in enumerate(names[:images]):
        rng = np.random.default_rng([seed, index])
        scene = draw_scene(rng)
        name, split = f"synpic{number}.jpg", "test_" if index % HELD_OUT == HELD_OUT - 1 else ""
        render(scene).save(folder / "images" / name, quality=90)
        case = f"https://example.org/case?id={uuid.UUID(bytes=rng.bytes(16), version=4)}"
        for question in ask(scene, rng):
            row = {
                "qid": len(rows),
                "image_case_url": case,
                "image_name": name,
                "image_organ": scene.organ,
                **question,
            }
            rows.append(row | {"phrase_type": split + question["phrase_type"]})
    add_quirks(rows, np.random.default_rng(seed))
    add_broken(rows, folder / "images", broken)
    (folder / JSON_NAME).write_text(json.dumps(rows, indent=3), encoding="utf-8")
