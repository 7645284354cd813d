"""What readers of formats have in common: which columns they make, and how they find files and name rows."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as shown
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc

from ..boxes import BoxFormat
from ..conventions import ANNOTATED_SIZE, PROBLEM, Row
from ..errors import BadRow, DataError
from ..paths import inside

TEXT = datasets.Value("string")
SEVERAL = datasets.List(TEXT)
# The columns that every reader of a kind makes; it may add others, of which an adapter may know.
BOXES = {"objects": {"bbox": datasets.List(datasets.List(datasets.Value("float64"))), "category_name": SEVERAL}}
QUESTIONS = {"question": TEXT, "answer": TEXT}
CHATS = {"messages": datasets.List({"role": TEXT, "content": datasets.List({"type": TEXT, "text": TEXT})})}
MASKS = {"text": SEVERAL, "segments": TEXT}
ALL = {"id": TEXT, "image_id": TEXT, PROBLEM: TEXT}
PICTURE = datasets.Image(decode=False)
ANNOTATED = {"image": PICTURE, ANNOTATED_SIZE: datasets.List(datasets.Value("int64"))}
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")  # of pictures, in lower case


@dataclass(frozen=True)
class Read:
    """What is in a folder or file: its splits by the names that it has for them, and how much, in a few words.

    Rows have the columns of their kind and `ALL`; one that cannot be read is there, too, with the reason in `PROBLEM`.
    `boxes` is how the format gives them, None where it has none or does not say.
    """

    splits: dict[str, datasets.Dataset]
    counts: str  # "3 categories, 812 images"
    boxes: BoxFormat | None = None


def dataset_of(rows: Iterable[Row], columns: Mapping[str, Any]) -> datasets.Dataset:
    """Rows with these `columns` beside `ALL`; None for what a row lacks, and "" for `PROBLEM`."""
    columns = {**ALL, **columns}
    rows = [{PROBLEM: "", **row} for row in rows]
    return datasets.Dataset.from_dict(
        {name: [row.get(name) for row in rows] for name in columns}, datasets.Features(columns)
    )


def picture_at(root: Path, *names: str) -> dict[str, Any] | None:
    """A picture by the first of these paths in the folder `root` that is there, else by the first; None if outside."""
    paths = [path for name in names if (path := inside(root, name))]
    found = next((path for path in paths if Path(path).is_file()), next(iter(paths), None))
    return found and {"bytes": None, "path": found}


def json_of(file: Path, as_read: Callable[[Row], Row] | None = None) -> Any:
    """The JSON in a file, UTF-8 with or without a byte-order mark; `DataError` where it is none.

    `as_read` is given each object as soon as it is read, and may leave out what takes memory.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"), object_hook=as_read)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON: {error}") from error


def counted(splits: Mapping[str, datasets.Dataset]) -> str:
    """How many categories and pictures rows of boxes have: "3 categories, 812 images"."""
    tables = [rows.data for rows in splits.values()]
    named = [pc.list_flatten(pc.struct_field(table.column("objects"), "category_name")) for table in tables]
    categories = len({name for names in named for name in pc.unique(names).to_pylist()})
    images = sum(len(table) - table.column("image").null_count for table in tables)
    return so_many(categories, images)


def of_each_text(row: Row, segments: Mapping[str, list[Row]]) -> list[Row]:
    """A row for each text that has segments with a target; else the picture's own, refused or nothing to ask about.

    A `segmentation` is JSON already.
    """
    rows = [
        {
            **row,
            "id": f"{row['id']} {text}",
            "text": [text],
            "kind": text,
            "segments": f"[{', '.join(map(_as_json, parts))}]",
        }
        for text, parts in segments.items()
        if not all(part.get("ignored") for part in parts)
    ]
    return rows or [row]


def _as_json(segment: Row) -> str:
    outlines = segment.pop("segmentation", None)
    rest = json.dumps(segment)
    return rest if outlines is None else f'{rest[:-1]}, "segmentation": {outlines}}}'


def asked(splits: Mapping[str, datasets.Dataset]) -> dict[str, datasets.Dataset]:
    """The rows of masks with a text, or with a reason why they are refused."""
    kept = {}
    for split, rows in splits.items():
        told = pc.or_(pc.is_valid(rows.data.column("segments")), pc.not_equal(rows.data.column(PROBLEM), ""))
        kept[split] = rows.select(np.flatnonzero(told.to_numpy()))
    return kept


def counted_masks(splits: Mapping[str, datasets.Dataset]) -> str:
    """How many categories and pictures rows of masks have: "3 categories, 812 images, 2 of them without any"."""
    tables = [rows.data for rows in splits.values()]
    categories = len({text for table in tables for text in pc.unique(table.column("kind")).to_pylist()} - {None})
    images = sum(pc.count_distinct(table.column("image_id")).as_py() for table in tables)
    empty = sum(len(rows) for rows in splits.values()) - sum(len(rows) for rows in asked(splits).values())
    return so_many(categories, images) + (f", {empty} of them without any" if empty else "")


def so_many(categories: int, images: int) -> str:
    """ "3 categories, 812 images", or fewer."""
    return f"{categories} categor{'y' if categories == 1 else 'ies'}, {images} image{'s' * (images != 1)}"


def text_of(value: Any, what: str) -> str:
    """A text that is not empty; `BadRow`, which begins with `what` it is, for anything else."""
    if not isinstance(value, str) or not value.strip():
        raise BadRow(f"{what}, {shown(value)}, is empty or no text")
    if value.encode(errors="ignore").decode() != value:
        raise BadRow(f"{what}, {shown(value)}, has half of a surrogate pair")
    return value


def finite(text: str) -> float:
    """The finite number that a text is; `ValueError` for another one."""
    number = float(text)
    if not math.isfinite(number) or "_" in text:  # Python's 1_0 is ten
        raise ValueError(f"{shown(text)} is no finite number")
    return number


LONGEST_SIDE = 10**9  # pixels: more is a slip


def numbers_of(value: Any, count: int, what: str) -> list[float]:
    """A list of so many finite numbers; `BadRow`, which begins with `what` it is, for anything else."""
    if not isinstance(value, list) or len(value) != count or not all(map(_is_number, value)):
        raise BadRow(f"{what}, {shown(value)}, is no list of {count} finite numbers")
    return [float(number) for number in value]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < LONGEST_SIDE


def annotated_size(width: Any, height: Any) -> list[int] | None:
    """`[width, height]` in pixels of the picture that annotations are for; None where a file does not say it."""
    if not width or not height:  # some writers leave 0
        return None
    size = numbers_of([width, height], 2, "the size of its picture")
    return [round(side) for side in size]
