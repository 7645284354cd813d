"""Annotated pictures for the tests of formats: drawn, written by supervision, and judged as a recipe does."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import supervision
from PIL import Image

from vlm_recipes.rows.boxes import named_boxes
from vlm_recipes.rows.formats.read import Read
from vlm_recipes.rows.formats.reasonseg import read_annotated
from vlm_recipes.rows.usable import usable_rows

CLASSES = ["cup", "bottle", "box"]
SIZE = (64, 48)
Boxes = dict[str, list[tuple[str, list[float]]]]  # of each picture's name: category and [x1, y1, x2, y2] in pixels
BOXES: Boxes = {
    "a.png": [("bottle", [3.5, 2, 20, 40.25]), ("cup", [30, 5, 60, 44])],
    "b.png": [("cup", [0, 0, 64, 48])],
    "empty.png": [],
}


def picture(file: Path, size: tuple[int, int] = SIZE) -> Path:
    """A picture with pixels of its own."""
    file.parent.mkdir(parents=True, exist_ok=True)
    source = np.random.default_rng(list(str(file).encode()))
    Image.fromarray(source.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(file)
    return file


def as_supervision(folder: Path, boxes: Boxes) -> supervision.DetectionDataset:
    """Pictures drawn in `folder`, with these boxes, as supervision has them in memory."""
    paths = [str(picture(folder / name)) for name in boxes]
    annotations = {}
    for path, found in zip(paths, boxes.values(), strict=True):
        corners = np.array([box for _, box in found], dtype=np.float32).reshape(-1, 4)
        numbers = np.array([CLASSES.index(name) for name, _ in found], dtype=int)
        annotations[path] = supervision.Detections(xyxy=corners, class_id=numbers)
    return supervision.DetectionDataset(classes=CLASSES, images=paths, annotations=annotations)


def judged(read: Read, folder: Path) -> tuple[dict[str, Boxes], dict[str, str]]:
    """The boxes of each split by the picture's file name, and by its id why each other row is refused."""

    def adapt(row: dict) -> dict:
        objects = row["objects"]
        boxes, names = named_boxes(objects, row["image_size"], read.boxes)
        assert row["image_id"]
        return {"image_id": row["image_id"], "boxes": boxes, "names": names}

    splits, reasons = _usable(read, folder, adapt)
    return {
        split: {Path(row["image_id"]).name: list(zip(row["names"], row["boxes"], strict=True)) for row in rows}
        for split, rows in splits.items()
    }, reasons


def judged_masks(read: Read, folder: Path) -> tuple[dict[str, dict[tuple[str, str], np.ndarray]], dict[str, str]]:
    """The masks `[H, W]` of each split by the picture's file name and the text, and why each other row is refused."""

    def adapt(row: dict) -> dict:
        (text,), is_sentence, kind, mask = read_annotated(row)
        assert row["image_id"] and kind == text and not is_sentence
        return {"image_id": row["image_id"], "text": text, "mask": mask.tolist()}

    splits, reasons = _usable(read, folder, adapt)
    return {
        split: {(Path(row["image_id"]).name, row["text"]): np.array(row["mask"], dtype=np.uint8) for row in rows}
        for split, rows in splits.items()
    }, reasons


def _usable(read: Read, folder: Path, adapt: Callable[[dict], dict]) -> tuple[dict[str, list[dict]], dict[str, str]]:
    found, reasons = {}, {}
    for split, rows in read.splits.items():
        ids = rows["id"][:]
        assert len({*ids}) == len(ids)
        (usable,), refused = usable_rows({split: rows}, adapt, str(folder / "judged"), 1.0)
        assert len(usable) + len(refused) == len(rows)
        found[split] = usable.remove_columns("image").to_list()
        reasons |= {row["id"]: row["reason"] for row in refused}
    return found, reasons
