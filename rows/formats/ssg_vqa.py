"""SSG-VQA's question files -> rows, one a question, and the clips that they are about."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets

from ..errors import BadRow, DataError, start_of
from ..paths import inside
from ..pictures import inspect_picture

# From SSG-VQA's question files and train.py (github.com/CAMMA-public/SSG-VQA).
HOPS = ("zero_hop.json", "one_hop.json", "single_and.json")
KINDS = ("count", "exist", "query_color", "query_type", "query_location", "query_component")
RELATIONS = ("NA", "relate_spatial")
POINT = re.compile(r"\[\s*(-?[0-9]{1,6}(?:\.[0-9]+)?)\s*,\s*(-?[0-9]{1,6}(?:\.[0-9]+)?)\s*\]")
HEADERS = 2  # lines of each file that list what is in the frame


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
    that leaves its folder. Files whose name is no number are left out, so are videos that `folder` lacks; `DataError`
    if no question is left.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {str(folder)!r}")
    rows = []
    for video in sorted(videos):
        files = [path for path in (folder / video).glob("*.txt") if re.fullmatch("[0-9]{1,9}", path.stem)]
        for file in sorted(files, key=lambda path: (int(path.stem), path.stem)):
            frame = frames / video / f"{int(file.stem):06d}.png"
            known = inside(folder, f"{video}/{file.name}") and inside(frames, f"{video}/{frame.name}")
            lines = enumerate(file.read_bytes().decode(errors="replace").split("\n"), start=1)
            for number, line in [(number, line) for number, line in lines if line.strip()][HEADERS:]:
                row_id = f"{video}/{file.stem}#{number}"
                rows.append((row_id, video, int(file.stem), str(frame) if known else None, line))
    if not rows:
        raise DataError(f"{str(folder)!r} has no questions on {', '.join(videos)}, like {videos[0]}/262.txt")
    columns = dict(zip(("id", "video", "frame", "image", "line"), map(list, zip(*rows, strict=True)), strict=True))
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image(decode=False))


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
