"""Drawn scenes, queries and outlines of what these mean in the format of ReasonSeg (LISA, arXiv 2308.00692)."""

import io
import json
from os import PathLike
from pathlib import Path

import numpy as np

from demo.worlds.scenes.queries import Query, ask
from demo.worlds.scenes.scene import Points, Scene, draw_scene

IGNORED, FLAGGED = 0.10, 0.05  # the shares of annotations with a region that does not count and with a mere mark


def make_shape(label: str, name: str, points: Points) -> dict:
    """A polygon, in pixels, as ReasonSeg writes it."""
    shape = {"label": label, "labels": [label], "shape_type": "polygon", "image_name": f"{name}.png"}
    return shape | {"points": [list(point) for point in points], "group_id": None, "group_ids": [None], "flags": {}}


def annotate(query: Query, name: str, size: int, rng: np.random.Generator) -> dict:
    """An annotation of the target; sometimes a square on its rim is to be ignored, or a stroke of two points added.

    The `kind` of a query is not in ReasonSeg.
    """
    outline = query.figure.points
    shapes = [make_shape("target", name, outline)]
    if rng.random() < IGNORED:
        half, (x, y) = size / 20, outline[rng.integers(len(outline))]
        square = [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]
        inside = [(round(min(max(x, 0), size), 2), round(min(max(y, 0), size), 2)) for x, y in square]
        shapes.append(make_shape("ignore", name, inside))
    if rng.random() < FLAGGED:
        shapes.insert(0, make_shape("flag", name, [outline[0], outline[len(outline) // 2]]))
    return {"text": list(query.texts), "is_sentence": query.is_sentence, "shapes": shapes, "kind": query.kind}


def encode(annotation: dict) -> bytes:
    """JSON in cp1252 if a text has a character outside ASCII, as in some files of ReasonSeg; UTF-8 otherwise."""
    return json.dumps(annotation, ensure_ascii=False, indent=1).encode("cp1252")


def picture_bytes(scene: Scene) -> bytes:
    buffer = io.BytesIO()
    scene.render().save(buffer, format="PNG")
    return buffer.getvalue()


def add_broken(folder: Path, broken: int, size: int, seed: int) -> None:
    """Add annotations that a reader has to refuse, in turn for one of five reasons."""
    for index in range(broken):
        rng = np.random.default_rng([seed, 3, index])
        scene, name = draw_scene(rng, size), f"broken_{index}"
        query = ask(scene, rng)[0]
        annotation = {"text": list(query.texts), "is_sentence": query.is_sentence, "shapes": [], "kind": query.kind}
        outline, reason, json_name = query.figure.points, index % 5, name
        if reason == 0:  # a target of two points
            outline = outline[:2]
        elif reason == 1:  # far outside the picture
            outline = [(x + 10 * size, y + 10 * size) for x, y in outline]
        elif reason == 2:
            del annotation["text"]
        elif reason == 3:  # image and annotation have different names
            name, json_name = f"{name}_1", f"{name}_2"
        annotation["shapes"] = [make_shape("target", name, outline)]
        content = encode(annotation)
        (folder / f"{name}.png").write_bytes(picture_bytes(scene))
        (folder / f"{json_name}.json").write_bytes(content[: len(content) // 2] if reason == 4 else content)


def draw_scenes(
    folder: str | PathLike[str], train: int, val: int, test: int, size: int = 64, seed: int = 0, broken: int = 0
) -> None:
    """Write so many pictures to `train/`, `val/` and `test/`, each four times, with one query; same seed, same bytes.

    A picture's four copies have the same bytes. `broken` annotations that a reader has to refuse are added to
    `train/`. Raises FileExistsError where one of the three folders is there already.
    """
    for split, (name, pictures) in enumerate({"train": train, "val": val, "test": test}.items()):
        directory = Path(folder) / name
        directory.mkdir(parents=True)
        for index in range(pictures):
            rng = np.random.default_rng([seed, split, index])
            scene = draw_scene(rng, size)
            content = picture_bytes(scene)
            for number, query in enumerate(ask(scene, rng)):
                stem = f"{index:05}_{number}"
                (directory / f"{stem}.png").write_bytes(content)
                (directory / f"{stem}.json").write_bytes(encode(annotate(query, stem, size, rng)))
    add_broken(Path(folder) / "train", broken, size, seed)
