"""Small good datasets in every real format on disk, a file's worth of rows at a time, and the way a recipe reads them.

A fault changes a `Row` before it is written: what its picture is, what its line or JSON says.
"""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

from recipes import kvasir_vqa, nutrition_tables, reasonseg, ssg_vqa, visual_chat, vqa_rad
from tests.support import tiny
from vlm_recipes.collators import VideoCollator
from vlm_recipes.eval.metrics.box_codecs import Qwen2VLBoxes
from vlm_recipes.models.surgvivqa.loading import SurgViVqaProcessor
from vlm_recipes.rows.parts import parts_of
from vlm_recipes.rows.reading import read_boxes, read_rows

SIZE = (64, 48)
TARGET = [[8, 8], [30, 8], [30, 30], [8, 30]]


def encoded(image: Image.Image, format: str = "JPEG", **settings) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **settings)
    return buffer.getvalue()


def picture(number: int = 0) -> Image.Image:
    """Noise below a blue band, so that a JPEG of it is long enough to be cut in ten."""
    image = Image.fromarray(np.random.default_rng(number).integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8))
    image.paste("blue", (0, 0, SIZE[0], 16))
    return image


@dataclass
class Row:
    """A row to write. `picture` are a file's bytes, or the target of a symbolic link, or None for no file; `line`, if
    any, is written instead of `data`; `elsewhere` is what a file of its own links to instead."""

    name: str
    number: int
    data: dict[str, Any]
    picture: bytes | Path | None = None
    line: bytes | None = None
    elsewhere: Path | None = None

    def text(self) -> bytes:
        return json.dumps(self.data).encode() if self.line is None else self.line


@dataclass(frozen=True)
class Format:
    data: Callable[[str, int], dict[str, Any]]  # what a good row says
    write: Callable[[Path, list[Row]], None]
    read: Callable[[Path], tuple[dict[str, datasets.Dataset], Callable[[dict], dict]]]  # the recipe's way
    name: Callable[[dict], str] = lambda row: row["id"]  # of a usable row
    refused_id: Callable[[Row], str] = lambda row: row.name

    def row(self, name: str, number: int) -> Row:
        return Row(name, number, self.data(name, number), encoded(picture(number)))


def put(file: Path, content: bytes | Path | None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        file.symlink_to(content)
    elif content is not None:
        file.write_bytes(content)


def split_of(row: Row, splits: tuple[str, ...] = ("train", "val", "test")) -> str:
    return row.name if row.name in splits else splits[0]


def card(folder: Path, *parts: tuple[str, str]) -> None:
    files = "".join(f"  - split: {split}\n    path: {path}\n" for split, path in parts)
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n")


def write_imagefolder(folder: Path, rows: list[Row], splits: tuple[str, ...]) -> None:
    for row in rows:
        split = split_of(row, splits)
        if "messages" in row.data:  # about a second picture, too
            put(folder / split / f"{row.name}-2.jpg", encoded(picture(row.number)))
        else:
            row.data.setdefault("file_name", f"{row.name}.jpg")
        put(folder / split / f"{row.name}.jpg", row.picture)
        with (folder / split / "metadata.jsonl").open("ab") as lines:
            lines.write(row.text() + b"\n")
    card(folder, *((split, f"{split}/*") for split in splits))


def write_parquet(folder: Path, rows: list[Row], features: dict, splits: tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    features = datasets.Features({"image": datasets.Image(), **features})
    for split in splits:
        own = [{"image": _hub_image(row.picture), **row.data} for row in rows if split_of(row, splits) == split]
        datasets.Dataset.from_list(own, features).to_parquet(folder / f"{split}.parquet")
    card(folder, *((split, f"{split}.parquet") for split in splits))


def _hub_image(content: bytes | Path | None) -> dict | None:
    if isinstance(content, Path):
        return {"bytes": None, "path": str(content)}
    return None if content is None else {"bytes": content, "path": None}


def table(name: str, number: int) -> dict:
    box = [0.1, 0.2, 0.5 + number / 1000, 0.9]
    return {"image_id": name, "objects": {"bbox": [box], "category_id": [0], "category_name": ["table"]}}


def read_tables(folder: Path):
    data = nutrition_tables.Data(dataset_name=str(folder))
    raw, _, _ = read_boxes(data, ("image", "objects"), 42, str(folder))
    return raw, partial(nutrition_tables.to_chat, codec=Qwen2VLBoxes())


def polyp(name: str, number: int) -> dict:
    return {"img_id": name, "question": f"Is there a lesion in {name}?", "answer": ["yes", "no"][number % 2]}


def read_polyps(folder: Path):
    raw = kvasir_vqa.read(kvasir_vqa.Data(dataset_name=str(folder)))
    return raw, partial(kvasir_vqa.to_chat, types=kvasir_vqa.types_of(raw["train"]), typed_prompt=True)


def scan(name: str, number: int) -> dict:
    row = {
        "qid": name,
        "image_name": f"{name}.jpg",
        "question": f"{name} shows what lesion?",
        "answer": f"a lung {number}",
    }
    return row | {"answer_type": "OPEN", "question_type": "ORGAN", "phrase_type": "freeform"}


def write_scans(folder: Path, rows: list[Row]) -> None:
    for row in rows:
        row.data["phrase_type"] = "test_freeform" if split_of(row) == "test" else "freeform"
        put(folder / "images" / f"{row.name}.jpg", row.picture)
    (folder / "questions.json").write_bytes(b"[" + b",\n".join(row.text() for row in rows) + b"]")


def read_scans(folder: Path):
    return vqa_rad.read(vqa_rad.Data(dataset_name=str(folder))), partial(vqa_rad.to_row, exemplar=False)


def hub_scan(name: str, number: int) -> dict:
    return {"question": f"{name} shows what lesion?", "answer": f"a lung {number}"}


def scene(name: str, number: int) -> dict:
    return {"text": [f"the lesion of {name}"], "is_sentence": False, "shapes": [{"label": "target", "points": TARGET}]}


def write_scenes(folder: Path, rows: list[Row]) -> None:
    for row in rows:
        put(folder / split_of(row) / f"{row.name}.jpg", row.picture)
        put(folder / split_of(row) / f"{row.name}.json", row.elsewhere or row.text())


def hub_scene(name: str, number: int) -> dict:
    mask = np.zeros(SIZE[::-1], dtype=np.uint8)
    mask[8:30, 8:30] = 255
    return {
        "image_id": name,
        "text": f"the lesion of {name}",
        "mask": {"bytes": encoded(Image.fromarray(mask), "PNG"), "path": None},
    }


def read_scenes(folder: Path):
    return reasonseg.read(reasonseg.Data(dataset_name=str(folder)), do_train=True), reasonseg.to_row


VIDEOS = {"train": ["VID04"], "validation": ["VID01"], "test": ["VID02"]}
SSG_LISTS = b"Which anatomical structures are present?|liver\nWhich tools are present?|hook\n"
VIDEO_OF = {"val": "VID01", "test": "VID02"}


def write_frames(folder: Path, rows: list[Row]) -> None:
    for row in rows:
        video = VIDEO_OF.get(row.name, "VID04")
        text = SSG_LISTS + (row.line or "|".join(row.data["fields"]).encode())
        put(folder / "ssg-qa" / video / f"{row.number}.txt", row.elsewhere or text)
        put(folder / "data" / video / f"{row.number:06d}.png", row.picture)
    (folder / "videos.yaml").write_text(json.dumps(VIDEOS))


def read_videos(folder: Path, **settings):
    data = ssg_vqa.Data(dataset_name=str(folder), videos=str(folder / "videos.yaml"), **settings)
    if data.dataset_format == "real_colon":
        data.dataset_name = str(folder / "rows.jsonl")
    collator = VideoCollator(SurgViVqaProcessor.from_pretrained(tiny.surgvivqa()), num_frames=2)
    return ssg_vqa.read(data), partial(ssg_vqa.to_row, data=data, collator=collator)


def colonoscopy(name: str, number: int) -> dict:
    video = {"val": "v", "test": "t"}.get(name, "c")
    texts = {"question": f"What lesion is {name}?", "question_type": "polyp", "answer": f"A polyp {number}."}
    return {"id": name, "video_id": video, "frames": [name, name], **texts, "short_answer": "polyp"}


def write_colonoscopies(folder: Path, rows: list[Row]) -> None:
    for row in rows:
        video = {"val": "v", "test": "t"}.get(row.name, "c")
        put(folder / "data" / f"{video}_frames" / f"{row.name}.jpg", row.picture)
    (folder / "rows.jsonl").write_bytes(b"\n".join(row.text() for row in rows))
    (folder / "videos.yaml").write_text(json.dumps({"train": ["c"], "validation": ["v"], "test": ["t"]}))


def chat(name: str, number: int) -> dict:
    """Of two turns about two pictures, the first of which is the row's."""
    asked = [[{"type": "image"}, {"type": "image"}, {"type": "text", "text": f"Is there a lesion in {name}?"}]]
    asked.append([{"type": "text", "text": "And in the second picture?"}])
    messages = []
    for content, answer in zip(asked, (["yes", "no"][number % 2], f"{number} mm of it"), strict=True):
        messages.append({"role": "user", "content": content})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return {"id": name, "file_names": [f"{name}.jpg", f"{name}-2.jpg"], "messages": messages}


def read_chats(folder: Path):
    data = visual_chat.Data(dataset_name=str(folder))
    raw = parts_of(read_rows("chats", data, ("messages", "images")).splits, data, 42)
    return raw, partial(visual_chat.to_chat, control=["<|im_end|>", "<|image_pad|>"])


TEXT = datasets.Value("string")
FORMATS = {
    "nutrition tables, imagefolder": Format(table, partial(write_imagefolder, splits=("train", "val")), read_tables),
    "Kvasir-VQA, imagefolder": Format(
        polyp,
        partial(write_imagefolder, splits=("raw",)),
        read_polyps,
        name=lambda row: row["image_id"],
        refused_id=lambda row: f"{row.data['img_id']} (raw/metadata.jsonl, line {row.number + 1})",
    ),
    "VQA-RAD, original JSON": Format(scan, write_scans, read_scans),
    "VQA-RAD, Hub columns": Format(
        hub_scan,
        partial(write_parquet, features={"question": TEXT, "answer": TEXT}, splits=("train", "test")),
        read_scans,
        name=lambda row: row["question"].split()[0],
        refused_id=lambda row: f"train.parquet, row {row.number + 1}",
    ),
    "ReasonSeg, annotated folder": Format(scene, write_scenes, read_scenes),
    "ReasonSeg, Hub masks": Format(
        hub_scene,
        partial(
            write_parquet,
            features={"image_id": TEXT, "text": TEXT, "mask": datasets.Image()},
            splits=("train", "val", "test"),
        ),
        read_scenes,
    ),
    "SSG-VQA, folder": Format(
        lambda name, number: {"fields": [f"What lesion is {name}?", "grasp", "zero_hop.json", "query_type", "NA"]},
        write_frames,
        read_videos,
        name=lambda row: row["question"].split()[-1].rstrip("?"),
        refused_id=lambda row: f"VID04/{row.number}#3",
    ),
    "REAL-Colon-VQA, JSON lines": Format(
        colonoscopy, write_colonoscopies, partial(read_videos, dataset_format="real_colon")
    ),
    "chat rows, imagefolder": Format(chat, partial(write_imagefolder, splits=("train", "test")), read_chats),
}
