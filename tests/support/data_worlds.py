"""The same eight drawn pictures as a dataset in each format that docs/data.md shows, by public tools where they write.

The pictures show cups, bottles and boxes, the last one nothing; 7.png and 8.png are the part to test on where a
format has parts. supervision writes COCO, YOLO, Pascal VOC and labelme, pandas tables; the others are by hand.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas
import supervision
from PIL import Image, ImageDraw

WIDTH, HEIGHT = SIZE = (64, 48)
COLOURS = {"bottle": "green", "box": "blue", "cup": "red"}
FIGURES = {  # of each picture: what, and where it begins and how large it is, [x, y, width, height] in pixels
    "1.png": [("cup", [4, 6, 20, 30]), ("bottle", [36, 4, 14, 40])],
    "2.png": [("box", [10, 12, 40, 28])],
    "3.png": [("bottle", [6, 2, 12, 42]), ("bottle", [24, 2, 12, 42]), ("cup", [44, 24, 16, 20])],
    "4.png": [("cup", [30, 10, 24, 24])],
    "5.png": [("box", [2, 20, 30, 24]), ("cup", [40, 22, 18, 22])],
    "6.png": [("bottle", [20, 3, 16, 43])],
    "7.png": [("box", [32, 8, 26, 34]), ("bottle", [8, 4, 10, 40])],
    "8.png": [],
}
PARTS = {"train": list(FIGURES)[:6], "test": list(FIGURES)[6:]}
ALL = list(FIGURES)


def draw(folder: Path, names: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        image = Image.new("RGB", SIZE, "black")
        for what, (x, y, width, height) in FIGURES[name]:
            ImageDraw.Draw(image).rectangle([x, y, x + width - 1, y + height - 1], fill=COLOURS[what])
        image.save(folder / name)


def in_supervision(folder: Path, names: Sequence[str], masks: bool = False) -> supervision.DetectionDataset:
    """The pictures, drawn in `folder`, with their boxes, and masks, as supervision has them in memory."""
    draw(folder, names)
    annotations = {}
    for name in names:
        corners = np.array([[x, y, x + w, y + h] for _, (x, y, w, h) in FIGURES[name]], np.float32).reshape(-1, 4)
        own = {"class_id": np.array([sorted(COLOURS).index(what) for what, _ in FIGURES[name]], int)}
        if masks and len(corners):
            own["mask"] = np.stack([mask_of(box) for _, box in FIGURES[name]])
        annotations[str(folder / name)] = supervision.Detections(corners, **own)
    return supervision.DetectionDataset(sorted(COLOURS), [str(folder / name) for name in names], annotations)


def mask_of(box: list[int]) -> np.ndarray:
    mask = np.zeros(SIZE[::-1], bool)
    mask[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = True
    return mask


# --- Boxes and masks


def write_coco(folder: Path, masks: bool = False) -> None:
    for split, names in (("train", PARTS["train"]), ("val", PARTS["test"])):
        file = folder / "annotations" / f"instances_{split}.json"
        in_supervision(folder / split, names, masks).as_coco(annotations_path=str(file))


def write_coco_masks(folder: Path) -> None:
    write_coco(folder, masks=True)


def write_roboflow(folder: Path) -> None:
    for split, names in (("train", ALL[:4]), ("valid", ALL[4:6]), ("test", ALL[6:])):
        file = folder / split / "_annotations.coco.json"
        in_supervision(folder / split, names).as_coco(annotations_path=str(file))


def write_yolo(folder: Path) -> None:
    for split, names in (("train", PARTS["train"]), ("val", PARTS["test"])):
        labels = folder / "labels" / split
        dataset = in_supervision(folder / "images" / split, names)
        dataset.as_yolo(annotations_directory_path=str(labels), data_yaml_path=str(folder / "data.yaml"))


def write_voc(folder: Path) -> None:
    in_supervision(folder / "JPEGImages", ALL).as_pascal_voc(annotations_directory_path=str(folder / "Annotations"))


def write_labelme(folder: Path, masks: bool = False) -> None:
    """A JSON beside each picture: rectangles, or the outlines of masks."""
    in_supervision(folder, ALL, masks).as_labelme(annotations_directory_path=str(folder))


def write_labelme_masks(folder: Path) -> None:
    write_labelme(folder, masks=True)


def write_objects(folder: Path) -> None:
    for split, names in PARTS.items():
        draw(folder / split, names)
        rows = []
        for name in names:
            boxes = [[x, y, x + width, y + height] for _, (x, y, width, height) in FIGURES[name]]
            objects = {"bbox": boxes, "category": [what for what, _ in FIGURES[name]]}
            rows.append({"file_name": name, "objects": objects})
        _write_lines(folder / split / "metadata.jsonl", rows)


QUERIES = ("Which thing is {}?", "Where is something {}?")


def write_reasonseg(folder: Path) -> None:
    """As github.com/dvlab-research/LISA gives ReasonSeg."""
    for split, names in (("train", ALL[:4]), ("val", ALL[4:5]), ("test", ALL[5:7])):
        draw(folder / split, names)
        for name in names:
            what, (x, y, width, height) = FIGURES[name][0]
            points = [[x, y], [x + width - 1, y], [x + width - 1, y + height - 1], [x, y + height - 1]]
            shapes = [{"label": "target", "shape_type": "polygon", "points": points}]
            content = {
                "text": [query.format(COLOURS[what]) for query in QUERIES],
                "is_sentence": True,
                "shapes": shapes,
            }
            (folder / split / name).with_suffix(".json").write_text(json.dumps(content))


def write_pairs(folder: Path) -> None:
    draw(folder / "images", ALL)
    for name, figures in FIGURES.items():
        for what in {what for what, _ in figures}:
            file = folder / "masks" / f"the_{COLOURS[what]}_{what}" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            seen = np.any([mask_of(box) for other, box in figures if other == what], axis=0)
            Image.fromarray(seen.astype(np.uint8) * 255).save(file)


# --- Questions and chats


def questions(names: Sequence[str], folder: str = "images/") -> pandas.DataFrame:
    """Three about each picture, answered by a word, by a number, and by yes or no."""
    rows = []
    for name in names:
        shown = [what for what, _ in sorted(FIGURES[name], key=lambda figure: figure[1])]  # from the left
        asked = {"What is on the left?": shown[0] if shown else "nothing", "How many things are there?": len(shown)}
        asked["Is there a cup?"] = "yes" if "cup" in shown else "no"
        rows += [{"image": f"{folder}{name}", "question": q, "answer": str(a)} for q, a in asked.items()]
    return pandas.DataFrame(rows)


def write_csv(folder: Path) -> None:
    draw(folder / "images", ALL)
    questions(ALL).to_csv(folder / "questions.csv", index=False)


def write_tsv(folder: Path) -> None:
    draw(folder / "images", ALL)
    for split, names in PARTS.items():
        questions(names).to_csv(folder / f"{split}.tsv", sep="\t", index=False)


def write_json(folder: Path) -> None:
    draw(folder / "images", ALL)
    _write_list(folder / "questions.json", questions(ALL).to_dict("records"))


def write_jsonl(folder: Path) -> None:
    draw(folder / "images", ALL)
    for split, names in PARTS.items():
        _write_lines(folder / f"{split}.jsonl", questions(names).to_dict("records"))


def write_imagefolder(folder: Path) -> None:
    for split, names in PARTS.items():
        draw(folder / split, names)
        table = questions(names, "").rename(columns={"image": "file_name"})
        table.to_csv(folder / split / "metadata.csv", index=False)


def write_parquet(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    draw(folder / "drawn", ALL)
    for split, names in PARTS.items():
        table = questions(names, "")
        table["image"] = [{"bytes": (folder / "drawn" / name).read_bytes(), "path": name} for name in table["image"]]
        table.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    shutil.rmtree(folder / "drawn")


def write_llava(folder: Path) -> None:
    """As LLaVA's docs/Finetune_Custom_Data.md has it (github.com/haotian-liu/LLaVA)."""
    draw(folder / "images", ALL)
    rows = []
    for name in ALL:
        turns = []
        for question, answer in _asked(name):
            marker = "" if turns else "<image>\n"
            turns += [{"from": "human", "value": f"{marker}{question}"}, {"from": "gpt", "value": answer}]
        rows.append({"id": Path(name).stem, "image": f"images/{name}", "conversations": turns})
    _write_list(folder / "chats.json", rows)


def write_messages(folder: Path) -> None:
    draw(folder / "images", ALL)
    for split, names in PARTS.items():
        rows = []
        for name in names:
            messages = []
            for question, answer in _asked(name):
                text = {"type": "text", "text": question}
                content = [text] if messages else [{"type": "image"}, text]
                messages += [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
            rows.append({"images": [f"images/{name}"], "messages": messages})
        _write_lines(folder / f"{split}.jsonl", rows)


def _asked(name: str) -> list[tuple[str, str]]:
    return list(questions([name])[["question", "answer"]].itertuples(index=False, name=None))[:2]


def _write_list(file: Path, rows: list[dict]) -> None:
    file.write_text("[" + ",\n ".join(map(json.dumps, rows)) + "]")


def _write_lines(file: Path, rows: list[dict]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@dataclass(frozen=True)
class World:
    """How a section's dataset is written, which of its files the page shows the beginning of, and what a run says.

    `tested` are the pictures of its part to test on, or how many are held out where it has none.
    """

    write: Callable[[Path], None]
    file: str
    read_as: str
    tested: list[str] | int


TABLE, TWO = "a table of questions", PARTS["test"]
WORLDS = {  # by the heading of their section
    "COCO": World(write_coco, "annotations/instances_train.json", "COCO", TWO),
    "COCO as Roboflow exports it": World(write_roboflow, "train/_annotations.coco.json", "COCO", TWO),
    "YOLO": World(write_yolo, "labels/train/3.txt", "YOLO", TWO),
    "Pascal VOC": World(write_voc, "Annotations/1.xml", "Pascal VOC", 2),
    "labelme": World(write_labelme, "1.json", "labelme", 2),
    "Hugging Face `objects`": World(write_objects, "train/metadata.jsonl", "", TWO),
    "CSV": World(write_csv, "questions.csv", TABLE, 2),
    "TSV": World(write_tsv, "train.tsv", TABLE, TWO),
    "JSON": World(write_json, "questions.json", TABLE, 2),
    "JSON lines": World(write_jsonl, "train.jsonl", TABLE, TWO),
    "An imagefolder": World(write_imagefolder, "train/metadata.csv", TABLE, TWO),
    "Parquet": World(write_parquet, "train-00000-of-00001.parquet", TABLE, TWO),
    "ShareGPT and LLaVA": World(write_llava, "chats.json", "conversations", 2),
    "Messages": World(write_messages, "train.jsonl", "messages", TWO),
    "ReasonSeg": World(write_reasonseg, "train/1.json", "ReasonSeg", ["6.png", "7.png"]),
    "Masks in COCO": World(write_coco_masks, "annotations/instances_train.json", "COCO", ["7.png"]),
    "Masks in labelme": World(write_labelme_masks, "1.json", "labelme", 1),
    "Pairs of pictures": World(write_pairs, "", "pairs of pictures and masks", 1),
}
