"""Drawn endoscopy frames with questions in the format of the Hub's `SimulaMet-HOST/Kvasir-VQA`."""

import json
from os import PathLike
from pathlib import Path

import numpy as np

from demo.worlds.endoscopy.picture import render
from demo.worlds.endoscopy.questions import ask
from demo.worlds.endoscopy.scene import draw_scene

# The sizes are for `datasets` too: it takes a folder of the same name and card for the one it has already cached.
CARD = """---
dataset_info:
  splits:
  - name: raw
    num_bytes: {size}
    num_examples: {rows}
configs:
- config_name: default
  data_files:
  - split: raw
    path:
    - metadata.jsonl
    - images/*.jpg
---

# Drawn endoscopy

{rows} questions about {images} pictures, drawn by `demo/worlds/endoscopy/dataset.py` with seed {seed}. The columns,
the split and the wordings are those of SimulaMet-HOST/Kvasir-VQA; the answers are spread more evenly. A picture is
stored once, however many rows ask about it. {broken} rows, the last ones, are broken on purpose.
"""
PLACEHOLDER = 800  # one image in so many has, after its questions, a row without one
LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"


def name_image(rng: np.random.Generator) -> str:
    """An `img_id` that looks like upstream's: 25 characters, the first ones of which are the same for most."""
    return "cl8k2" + "".join(LETTERS[index] for index in rng.integers(len(LETTERS), size=20))


def add_broken(rows: list[dict], folder: Path, broken: int, rng: np.random.Generator) -> None:
    """Append rows that a loader has to refuse: in turn a missing image, half an image, no question, no answer."""
    for index in range(broken):
        row, name = dict(rows[index]), name_image(rng)
        if index % 4 < 2:
            row |= {"file_name": f"images/{name}.jpg", "img_id": name}
        if index % 4 == 1:
            picture = (folder / rows[index]["file_name"]).read_bytes()
            (folder / row["file_name"]).write_bytes(picture[: len(picture) // 2])
        elif index % 4 > 1:
            row[("question", "answer")[index % 4 - 2]] = ""
        rows.append(row)


def draw_endoscopy(folder: str | PathLike[str], *, images: int = 1600, seed: int = 0, broken: int = 4) -> None:
    """Write a folder that `datasets.load_dataset(folder)` reads as split `raw`; the same arguments, the same bytes.

    `images/` holds the pictures and `metadata.jsonl` one line for each question, so that several lines name one
    picture. `broken` rows are added that a loader has to refuse. Raises ValueError where there are not enough images.
    """
    if not 0 <= broken <= images:
        raise ValueError(f"broken={broken}: it must be 0 to images={images}, as each repeats a whole row")
    folder = Path(folder)
    (folder / "images").mkdir(parents=True)
    rows = []
    for index in range(images):
        rng = np.random.default_rng([seed, index])
        scene, name = draw_scene(rng), name_image(rng)
        source = "Kvasir-Instrument" if scene.instruments and rng.random() < 0.5 else "HyperKvasir"
        render(scene).save(folder / "images" / f"{name}.jpg", quality=88)
        pairs = list(ask(scene, rng))
        if index % PLACEHOLDER == PLACEHOLDER - 1:
            pairs.append(("none", "nan"))
        for question, answer in pairs:
            row = {"file_name": f"images/{name}.jpg", "source": source, "question": question, "answer": answer}
            rows.append(row | {"img_id": name})
    add_broken(rows, folder, broken, np.random.default_rng([seed, images]))
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(lines, encoding="utf-8")
    size = len(lines) + sum(path.stat().st_size for path in (folder / "images").iterdir())
    card = CARD.format(size=size, rows=len(rows), images=images, seed=seed, broken=broken)
    (folder / "README.md").write_text(card, encoding="utf-8")
