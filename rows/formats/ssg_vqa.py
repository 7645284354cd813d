"""SSG-VQA's question files -> rows, one a question, and the clips that they are about."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from accelerate import PartialState

from ..errors import BadRow, DataError, start_of
from ..paths import inside
from ..pictures import inspect_picture
from ..prepared import prepared, processes_for, state_of

# From SSG-VQA's question files and train.py (github.com/CAMMA-public/SSG-VQA).
HOPS = ("zero_hop.json", "one_hop.json", "single_and.json")
KINDS = ("count", "exist", "query_color", "query_type", "query_location", "query_component")
RELATIONS = ("NA", "relate_spatial")
NUMBER = re.compile("[0-9]{1,9}")  # of a frame: the name of its file
POINT = re.compile(r"\[\s*(-?[0-9]{1,6}(?:\.[0-9]+)?)\s*,\s*(-?[0-9]{1,6}(?:\.[0-9]+)?)\s*\]")
LISTS = ("Which anatomical structures are present?", "Which tools are present?")  # in the frame: no labels, but lists
TEXT = datasets.Value("string")
COLUMNS = datasets.Features(
    {"id": TEXT, "video": TEXT, "frame": datasets.Value("int64"), "image": datasets.Image(decode=False), "line": TEXT}
)
FILES = 100  # read at once


def read_line(line: str) -> dict[str, Any]:
    """A line of SSG-VQA as `{question, answer, kind, hops, point}`; `BadRow` for one of another shape.

    `point` is `[x, y]` in the pixels that the file's author used, or None.
    """
    if "\N{REPLACEMENT CHARACTER}" in line:
        raise BadRow(f"a line that is not in UTF-8: {start_of(line)}")
    fields = [field.strip() for field in line.split("|")]
    if len(fields) not in (2, 3, 5):
        raise BadRow(f"a line with {len(fields)} field{'s' * (len(fields) != 1)}: {start_of(line)}")
    (question, answer), types = fields[:2], fields[2:]
    if not question or not answer:
        raise BadRow(f"an empty {'answer' if question else 'question'}: {start_of(line)}")
    row = {"question": question, "answer": answer, "kind": "untyped", "hops": "untyped", "point": None}
    if len(types) == 1:
        point = POINT.fullmatch(types[0])
        if not point:
            raise BadRow(f"a third field that is no point [x, y]: {start_of(types[0])}")
        row["point"] = [float(number) for number in point.groups()]
    elif types:
        for word, known in zip(types, (HOPS, KINDS, RELATIONS), strict=True):
            if word not in known:
                raise BadRow(f"the type {start_of(word)} is none of {', '.join(known)}")
        row |= {"kind": types[1], "hops": types[0].removesuffix(".json")}
    return row


def load_question_folder(folder: Path, frames: Path, videos: Sequence[str]) -> datasets.Dataset:
    """Rows `{id, video, frame, image, line}` of the questions in `folder/<video>/<frame>.txt` on each of `videos`.

    `line` is for `read_line`, `id` ("VID01/262#3") ends with its number in the file, and `image`, the frame asked
    about, is `frames/<video>/<frame, six digits>.png`, there or not, or None where it or the questions' file is a link
    that leaves its folder. Two lines at a file's beginning are no questions, if they list what its frame shows
    (`LISTS`). Files whose name is no number are left out, with a line, and videos that `folder` lacks; `DataError` if
    no question is left.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {str(folder)!r}")
    videos = sorted(videos)
    others = sorted(f"{video}/{path.name}" for video in videos for path in _question_files(folder / video, False))
    if others:
        more = f" and {len(others) - 1:,} more" * (len(others) > 1)
        PartialState().print(f"not read, as its name is no frame's number: {others[0]}{more}", flush=True)
    state = state_of(place / video for place in (folder, frames) for video in videos)
    return prepared(["SSG-VQA", str(folder), str(frames), state], partial(_read, folder, frames, videos))


def _question_files(video: Path, frames: bool = True) -> list[Path]:
    return [path for path in video.glob("*.txt") if bool(NUMBER.fullmatch(path.stem)) == frames]


def _read(folder: Path, frames: Path, videos: list[str], scratch: Path) -> datasets.Dataset:
    files = [path for video in videos for path in _question_files(folder / video)]
    in_order = sorted(files, key=lambda path: (path.parent.name, int(path.stem), path.stem))
    named = datasets.Dataset.from_dict({"file": [f"{path.parent.name}/{path.stem}" for path in in_order]})
    rows = named.map(
        _read_some,
        input_columns=["file"],
        fn_kwargs={"folder": folder, "frames": frames},
        batched=True,
        batch_size=FILES,
        remove_columns=named.column_names,
        num_proc=processes_for(len(named)),
        cache_file_name=str(scratch / "lines.arrow"),
        features=COLUMNS,
        new_fingerprint="lines",
        desc="reading questions",
    )
    if not len(rows):
        raise DataError(f"{str(folder)!r} has no questions on {', '.join(videos)}, like {videos[0]}/262.txt")
    return rows


def _read_some(files: list[str], folder: Path, frames: Path) -> dict[str, list]:
    rows = []
    for file in files:
        video, number = file.split("/")
        frame = f"{video}/{int(number):06d}.png"
        known = inside(folder, f"{file}.txt") and inside(frames, frame)
        image = {"bytes": None, "path": str(frames / frame)} if known else None
        lines = enumerate((folder / f"{file}.txt").read_bytes().decode(errors="replace").split("\n"), start=1)
        asked = [(i, line) for i, line in lines if line.strip()]
        for line_number, line in [one for one in asked if one not in asked[:2] or not _is_list(one[1])]:
            rows.append((f"{file}#{line_number}", video, int(number), image, line))
    return {name: [row[i] for row in rows] for i, name in enumerate(COLUMNS)}


def _is_list(line: str) -> bool:
    return line.partition("|")[0].strip() in LISTS


def clip_of(image: str, frame: int, length: int, stride: int) -> list[str]:
    """Paths of the `length` frames, `stride` apart and oldest first, that end at `frame`, which `image` shows.

    Before the video's beginning its first frame, 0, is repeated.
    """
    numbers = [max(0, frame - stride * before) for before in reversed(range(length))]
    return [str(Path(image).with_name(f"{number:06d}.png")) for number in numbers]


def check_clip(paths: Sequence[str], length: int, root: str | Path) -> list[int]:
    """`[width, height]` in pixels of a clip; `BadRow` for another `length`, and a frame that is broken, of another
    size or outside of the folder `root`."""
    if len(paths) != length:
        raise BadRow(f"a clip of {len(paths)} frames, where the model reads {length}")
    sizes = {}
    for path in dict.fromkeys(paths):
        name = Path(path).name
        if inside(root, str(Path(path).absolute())) is None:
            raise BadRow(f"frame {name} is outside the dataset's folder")
        try:
            sizes[name] = inspect_picture({"bytes": None, "path": path})[0]
        except BadRow as error:
            raise BadRow(f"frame {name}: {str(error).removesuffix(f': {name}')}") from error
    last = Path(paths[-1]).name
    for name, (width, height) in sizes.items():
        if [width, height] != sizes[last]:
            raise BadRow(f"frame {name} is {width}×{height}, and {last} is {'×'.join(map(str, sizes[last]))}")
    return sizes[last]
