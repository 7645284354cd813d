"""Scenes of one or two large figures in COCO's format: what three kinds of figures are, and where."""

import json
from os import PathLike
from pathlib import Path

import numpy as np

from demo.worlds.scenes.scene import BACKGROUNDS, COLOURS, Figure, Scene, place

KINDS = ("circle", "bar", "pole")
SMALLEST, LARGEST = 0.3, 0.42  # the diameters of discs of a figure's area, in picture sizes
EMPTY = 0.05  # pictures without a figure, as COCO has some


def draw_coco(
    folder: str | PathLike[str], *, train: int = 2000, val: int = 200, size: int = 112, seed: int = 0
) -> None:
    """Draw `annotations/instances_{train,val}.json` beside `train/` and `val/`, pictures of `size` pixels a side.

    A figure's box is that of its outline, `[x, y, width, height]` in pixels; its segmentation is the outline.
    """
    for number, (split, count) in enumerate({"train": train, "val": val}.items()):
        images, annotations = [], []
        (Path(folder) / split).mkdir(parents=True)
        for index in range(count):
            scene = _scene(np.random.default_rng((seed, number, index)), size)
            name = f"{index:06d}.png"
            scene.render().save(Path(folder) / split / name)
            images.append({"id": index, "file_name": name, "width": size, "height": size})
            annotations += [_annotation(figure, index) for figure in scene.figures]
        annotations = [{"id": i, **own} for i, own in enumerate(annotations, start=1)]
        categories = [{"id": i, "name": kind} for i, kind in enumerate(KINDS, start=1)]
        file = Path(folder) / "annotations" / f"instances_{split}.json"
        file.parent.mkdir(exist_ok=True)
        coco = {"images": images, "annotations": annotations, "categories": categories}
        file.write_text(json.dumps(coco), encoding="utf-8")


def _scene(rng: np.random.Generator, size: int) -> Scene:
    grey = int(rng.integers(*BACKGROUNDS[rng.integers(2)]))
    count = 0 if rng.random() < EMPTY else int(rng.integers(1, 3))
    while True:
        colours, kinds = rng.permutation(list(COLOURS)).tolist(), rng.choice(KINDS, count).tolist()
        diameters = rng.uniform(SMALLEST * size, LARGEST * size, count).tolist()
        figures = [Figure(*parts) for parts in zip(colours, kinds, diameters, strict=False)]
        placed = place(figures, size, rng)
        if placed is not None:
            return Scene(size, grey, placed)


def _annotation(figure: Figure, image: int) -> dict:
    points = np.array(figure.points)
    (left, top), (width, height) = points.min(0).tolist(), np.ptp(points, axis=0).tolist()
    return {
        "image_id": image,
        "category_id": KINDS.index(figure.shape) + 1,
        "bbox": [round(side, 2) for side in (left, top, width, height)],
        "area": round(width * height, 2),
        "segmentation": [points.flatten().tolist()],
        "iscrowd": 0,
    }
