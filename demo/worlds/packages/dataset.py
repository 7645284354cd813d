"""Drawn food packages in the format of the Hub's `openfoodfacts/nutrition-table-detection`."""

import json
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image

from demo.worlds.packages.photo import draw_photo

CARD = """---
dataset_info:
  splits:
  - name: train
    num_bytes: {train_bytes}
    num_examples: {train}
  - name: val
    num_bytes: {val_bytes}
    num_examples: {val}
configs:
- config_name: default
  data_files:
  - split: train
    path: train/**
  - split: val
    path: val/**
---

# Drawn packages

{train} training and {val} validation pictures of food packages, drawn by `demo/worlds/packages/dataset.py` with seed
{seed}. The columns are those of openfoodfacts/nutrition-table-detection: `objects.bbox` holds (y_min, x_min, y_max,
x_max) in 0-1 of the picture as displayed, that is after its EXIF rotation. {broken} training rows are broken on
purpose.
"""
# What a loader has to refuse. `load_dataset` itself lets all of these pass.
BREAKAGES = ("truncated", "empty", "missing", "inverted", "outside", "nan", "null")
EXIF_ORIENTATION = 0x0112
UNDO = {  # the stored picture that each orientation tag turns upright
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}


def draw_packages(
    folder: str | PathLike[str], *, train: int = 2000, val: int = 200, broken: int = len(BREAKAGES), seed: int = 0
) -> None:
    """Draw `train` and `val` pictures into a folder that `datasets.load_dataset(folder)` reads as on the Hub.

    About one picture in five has several tables, in reading order; some JPEGs are rotated by EXIF, grey or CMYK.
    `broken` of the training rows, never the first, are unusable: a truncated, empty or missing file, or a box that is
    inverted, outside 0-1, NaN or null. The same arguments write the same bytes, and a smaller `train` without broken
    rows draws the first pictures of a larger one.
    """
    if not 0 <= broken < max(train, 1):
        raise ValueError(f"broken={broken}: it must be below train={train}, as the first row stays whole")
    where = np.random.default_rng((seed, 2)).permutation(np.arange(1, max(train, 1)))[:broken]
    breakages = {int(row): BREAKAGES[i % len(BREAKAGES)] for i, row in enumerate(where)}
    folder = Path(folder)
    sizes = [_draw_split(folder / "train", train, seed, 0, breakages), _draw_split(folder / "val", val, seed, 1, {})]
    card = CARD.format(train=train, val=val, train_bytes=sizes[0], val_bytes=sizes[1], broken=broken, seed=seed)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _draw_split(folder: Path, count: int, seed: int, split: int, breakages: dict[int, str]) -> int:
    """Write the pictures and `metadata.jsonl`; return the bytes written."""
    folder.mkdir(parents=True)
    lines = []
    for index in range(count):
        rng = np.random.default_rng((seed, split, index))
        photo, tables = draw_photo(rng)
        barcode = _barcode(split, index)
        scale = np.array((photo.height, photo.width, photo.height, photo.width))
        boxes = [[y_min, x_min, y_max, x_max] for x_min, y_min, x_max, y_max in tables]
        row = {
            "file_name": f"{barcode}_1.jpg",
            "image_id": f"{barcode}_1",
            "width": photo.width,
            "height": photo.height,
            "meta": {
                "barcode": barcode,
                "off_image_id": "1",
                "image_url": f"https://example.org/products/{barcode[:3]}/{barcode[3:6]}/{barcode[6:]}/1.jpg",
            },
            "objects": {
                "bbox": (np.array(boxes) / scale).round(8).tolist(),
                "category_id": [0] * len(tables),
                "category_name": ["nutrition-table"] * len(tables),
            },
        }
        path = folder / row["file_name"]
        _save(rng, photo, path)
        if index in breakages:
            _break(breakages[index], path, row["objects"]["bbox"][0])
        lines.append(json.dumps(row) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    return sum(path.stat().st_size for path in folder.iterdir())


def _save(rng: np.random.Generator, photo: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    if rng.random() < 0.12:
        orientation = int(rng.choice(list(UNDO)))
        exif[EXIF_ORIENTATION] = orientation
        photo = photo.transpose(UNDO[orientation])
    mode = rng.choice(("RGB", "L", "CMYK"), p=(0.88, 0.08, 0.04))
    photo.convert(str(mode)).save(path, quality=int(rng.integers(72, 93)), exif=exif)


def _break(how: str, path: Path, box: list[float | None]) -> None:
    if how == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "missing":
        path.unlink()
    elif how == "inverted":
        box[:] = box[2:] + box[:2]
    elif how == "outside":
        box[3] = round(box[3] + 1, 8)
    else:
        box[0] = {"nan": float("nan"), "null": None}[how]


def _barcode(split: int, index: int) -> str:
    """A valid EAN-13 from the range for a shop's own use (20 to 29), so that it is nobody's product."""
    digits = f"2{split}{index:010d}"
    weighted = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(digits))
    return f"{digits}{-weighted % 10}"
