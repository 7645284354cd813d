"""REAL-Colon-VQA's questions about clips of colonoscopies, with sentences for answers -> rows."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import datasets

from ..conventions import PROBLEM
from ..errors import BadRow, DataError, start_of
from ..paths import inside
from ..prepared import prepared, state_of

TEXTS = ("id", "video_id", "question", "answer", "short_answer", "question_type")


def load_real_colon(file: Path, frames: Path) -> datasets.Dataset:
    """REAL-Colon-VQA's rows `{id, video, image, frames, question, answer, short_answer, kind}`, and `PROBLEM`.

    `frames` are the clip's paths `frames/<video>_frames/<frame>.jpg`, and `image` is the last. A line that cannot be
    read is there, too, with the reason in `PROBLEM`, and so is one with a frame outside of `frames`. `DataError` if
    there is no such file.
    """
    if not file.is_file():
        raise DataError(f"there is no file {str(file)!r}")
    return prepared(["REAL-Colon-VQA", str(file), str(frames), state_of((file, frames))], partial(_read, file, frames))


def _read(file: Path, frames: Path, scratch: Path) -> datasets.Dataset:
    text = datasets.Value("string")
    columns = dict.fromkeys(("id", "video", "question", "answer", "short_answer", "kind", PROBLEM), text)
    columns |= {"image": datasets.Image(decode=False), "frames": datasets.List(text)}
    rows = []
    for number, line in enumerate(file.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        row = dict.fromkeys(columns, "") | {"id": f"{file.name}#{number}", "image": None, "frames": []}
        try:
            row |= _real_colon_row(line, frames)
        except (ValueError, RecursionError) as error:
            row[PROBLEM] = str(error)
        rows.append(row)
    return datasets.Dataset.from_dict(
        {name: [row[name] for row in rows] for name in columns}, datasets.Features(columns)
    )


def read_real_colon(row: dict[str, Any]) -> dict[str, str]:
    """A row of `load_real_colon` as `{question, answer, short_answer, kind, hops}`; `BadRow` for one without."""
    query = {key: (row[key] or "").strip() for key in ("question", "answer", "short_answer", "kind")}
    for name, text in query.items():
        if not text:
            raise BadRow(f"an empty {name}")
    return query | {"hops": ""}


def _real_colon_row(line: bytes, root: Path) -> dict[str, Any]:
    row = json.loads(line.decode("utf-8-sig"))
    if not isinstance(row, dict):
        raise BadRow("its JSON is no object")
    texts, frames = {name: row.get(name) for name in TEXTS}, row.get("frames")
    for name, text in texts.items():
        if not isinstance(text, str):
            raise BadRow(f"{name!r} is {start_of(str(text))} and not a text")
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, str) for frame in frames):
        raise BadRow(f"'frames' is {start_of(str(frames))} and not a list of names")
    "".join([*texts.values(), *frames]).encode()  # a ValueError for half a surrogate pair, which JSON can spell
    paths = [inside(root, f"{texts['video_id']}_frames/{frame}.jpg") for frame in frames]
    row = texts | {"video": texts["video_id"], "kind": texts["question_type"]}
    if not all(paths):
        return row | {"image": None, PROBLEM: "a frame outside the dataset's folder"}
    return row | {"image": {"bytes": None, "path": paths[-1]}, "frames": paths}
