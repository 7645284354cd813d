"""Draws chat rows, TRL's `messages` and `images`, as an imagefolder: scenes, and conversations about one or two."""

import json
from os import PathLike
from pathlib import Path

import numpy as np

from demo.worlds.album.talk import COUNTS, Turn, converse
from demo.worlds.scenes.dataset import picture_bytes
from demo.worlds.scenes.scene import draw_scene

CARD = """---
dataset_info:
  splits:
  - name: train
    num_bytes: {train_bytes}
    num_examples: {train}
  - name: test
    num_bytes: {test_bytes}
    num_examples: {test}
configs:
- config_name: default
  data_files:
  - split: train
    path: train/**
  - split: test
    path: test/**
---

# Drawn album

{train} training and {test} test conversations about drawn scenes, by `demo/worlds/album/dataset.py` with seed {seed}.
`file_names` lists a conversation's pictures, `messages` are TRL's, `kind` is that of the last question. {broken}
training rows, the last ones, are broken on purpose.
"""
TALKS = 2  # conversations about a picture alone


def to_messages(turns: list[Turn], pictures: int) -> list[dict]:
    """The pictures come with the first question."""
    messages = []
    for number, turn in enumerate(turns):
        shown = [{"type": "image"}] * pictures if number == 0 else []
        messages.append({"role": "user", "content": [*shown, {"type": "text", "text": turn.question}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
    return messages


def add_broken(rows: list[dict], folder: Path, broken: int) -> None:
    """Append rows to be refused: in turn for a missing picture, half of one, one too few, no answer last,
    and an empty answer."""
    for index in range(broken):
        row = json.loads(json.dumps(rows[index]))
        if index % 5 == 0:
            row["file_names"][0] = f"missing_{index}.png"
        elif index % 5 == 1:
            picture = (folder / row["file_names"][0]).read_bytes()
            row["file_names"][0] = f"half_{index}.png"
            (folder / row["file_names"][0]).write_bytes(picture[: len(picture) // 2])
        elif index % 5 == 2:
            row["messages"][0]["content"].insert(0, {"type": "image"})
        elif index % 5 == 3:
            del row["messages"][-1]
        else:
            row["messages"][-1]["content"][0]["text"] = " "
        rows.append(row)


def draw_album(
    folder: str | PathLike[str], *, train: int = 3000, test: int = 200, size: int = 64, seed: int = 0, broken: int = 5
) -> None:
    """Write so many pictures, an even number, to `train/` and `test/`, with their metadata; same seed, same bytes.

    There are two conversations about each picture, and one about each two. `broken` training rows are added that a
    reader has to refuse; small sets need `broken=0`, the default is under 1% from 200 pictures on.
    """
    folder, sizes, counts = Path(folder), {}, {}
    for split, (name, pictures) in enumerate({"train": train, "test": test}.items()):
        (folder / name).mkdir(parents=True)
        rows, pair = [], []
        for index in range(pictures):
            rng = np.random.default_rng([seed, split, index])
            scene, file = draw_scene(rng, size, (min(COUNTS), max(COUNTS))), f"{index:05}.png"
            (folder / name / file).write_bytes(picture_bytes(scene))
            pair.append((scene, file))
            shown = [pair[-1:]] * TALKS + ([pair] if len(pair) == 2 else [])
            for scenes, files in (zip(*pictures, strict=True) for pictures in shown):
                turns = converse(list(scenes), rng)
                row = {"file_names": list(files), "messages": to_messages(turns, len(files)), "kind": turns[-1].kind}
                rows.append(row)
            pair = pair if len(pair) == 1 else []
        if name == "train":
            add_broken(rows, folder / name, broken)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / name / "metadata.jsonl").write_text(lines, encoding="utf-8")
        counts[name], sizes[f"{name}_bytes"] = (
            len(rows),
            sum(file.stat().st_size for file in (folder / name).iterdir()),
        )
    (folder / "README.md").write_text(CARD.format(**counts, **sizes, seed=seed, broken=broken), encoding="utf-8")
