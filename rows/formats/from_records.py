"""Records of a file -> rows: the texts and pictures of one, and a dataset of all of them."""

import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import datasets

from ..conventions import PROBLEM, SPLIT, Row
from ..errors import BadRow, DataError, start_of
from ..images import fault_of
from ..paths import inside
from ..prepared import prepared, state_of
from .files import storable
from .read import TEXT, dataset_of, picture_at
from .records import Record, root_of

ROWS = 10_000  # that are Python's objects at once
Find = Callable[[str], tuple[Row | None, str]]  # a picture and its path in the dataset's folder
Make = Callable[[Row, Find], Iterator[Row]]


def prepared_splits(
    title: str, place: Path, files: Mapping[str, Sequence[Path]], read: Callable[[Path, Sequence[Path], Path], Any]
) -> dict[str, datasets.Dataset]:
    """What `read` makes of each split's files, once for each state of the folder, see `vlm_recipes.rows.prepared`.

    `read` gets the dataset's folder, the files, and a folder for what it writes on its way.
    """
    root = root_of(place)
    state = state_of([root])
    return {
        split: prepared([title, str(place), [*map(str, own)], state], partial(read, root, own))
        for split, own in files.items()
    }


def dataset_from(
    root: Path,
    files: Sequence[Path],
    records: Callable[[Path], Iterator[Record]],
    make: Make,
    columns: Mapping[str, Any],
) -> datasets.Dataset:
    """A row for each of the files' `records`: what `make` makes of it, or the reason that it raises as `BadRow`.

    `make` gets what a record says, and what finds a picture by its name. It yields a row piece by piece, names and
    pictures first: a row that is refused keeps the pieces before its fault, so that it is called as in its file, and
    no other row changes its part. A row is called by the `id` that it gives, with its place in the file behind it if
    another was called so before (LLaVA's are called by their picture), or by its place. All rows about a picture
    (`picture`, what its path or bytes are called) have the `image_id` of the first one, and the row is refused that
    would give it to a second. Raises `DataError` for a file that is broken.
    """
    rows = _named(row for file in files for row in _rows(root, file, records, make))
    columns = {**columns, SPLIT: TEXT}
    parts = [dataset_of([], columns)]
    while some := list(itertools.islice(rows, ROWS)):
        parts.append(dataset_of(some, columns))
    return datasets.concatenate_datasets(parts)


def _rows(root: Path, file: Path, records: Callable[[Path], Iterator[Record]], make: Make) -> Iterator[Row]:
    """A row for each record, named by its `place`, with the `id` that it gives itself, if any."""
    name, find = storable(str(file.relative_to(root))), picture_finder(root, file)
    try:
        for place, record, problem in records(file):
            row = {"place": f"{name}{place}"} | ({PROBLEM: problem} if problem else {})
            try:
                if isinstance(record, Mapping):
                    said = (value for key, value in record.items() if key.strip().lower() == SPLIT)
                    row[SPLIT] = as_text(SPLIT, next(said, None))
                for piece in () if problem else make(record, find):
                    row |= piece
            except BadRow as error:
                row[PROBLEM] = str(error)
            yield row
    except (OSError, ValueError) as error:
        raise DataError(f"{str(file)!r} cannot be read: {error}") from error


def _named(rows: Iterable[Row]) -> Iterator[Row]:
    places: dict[str, str] = {}  # of an id
    names: dict[str, str] = {}  # of a picture
    pictures: dict[str, str] = {}  # of an image_id
    for row in rows:
        place, picture = row.pop("place"), row.pop("picture", "")
        given = row.get("id") or (f"{row['image_id']} ({place})" if row.get("image_id") else place)
        row["id"] = given if places.setdefault(given, place) == place else f"{given} ({place})"
        if picture:
            name = row["image_id"] = names.setdefault(picture, row.get("image_id") or picture)
            if pictures.setdefault(name, picture) != picture and not row.get(PROBLEM):
                row[PROBLEM] = f"its image_id {start_of(name)} is that of another picture, {pictures[name]}"
        yield row


def picture_finder(root: Path, file: Path) -> Find:
    """What finds a picture by its path in the folder of `file`, in `root`, or in `images` there.

    It gives the picture as `vlm_recipes.rows.formats.read.picture_at` does, and its path in the dataset's folder.
    Raises `BadRow` for a URL, and for a name with a null byte, which no file has.
    """
    folder, whole = os.path.relpath(file.parent, root), root.resolve()

    @cache
    def find(name: str) -> tuple[Row | None, str]:
        if fault := fault_of(name):
            raise BadRow(fault)
        if "\0" in name:
            raise BadRow(f"the picture's name {start_of(name)} has a null byte")
        own = inside(root, os.path.join(folder, name))
        if own is None:
            return None, name
        there = {"bytes": None, "path": own}
        picture = there if os.path.isfile(own) else picture_at(root, own, name, os.path.join("images", name))
        return picture, as_text("path", os.path.relpath(picture["path"], whole))

    return find


def as_text(key: str, value: Any) -> str:
    """A text as it is, a number or true and false as JSON writes them, "" for None; `BadRow` for anything else."""
    if value is None:
        return ""
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    if not isinstance(value, str):
        kind = value if isinstance(value, float) else f"a {type(value).__name__}"
        raise BadRow(f"{key!r} is {kind}, and not a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRow(f"{key!r} is {start_of(value)}, with bytes that are not UTF-8 or half a surrogate pair") from None
    return value


def pictures_of(record: Row, find: Find, keys: Sequence[str]) -> list[tuple[Row | None, str]]:
    """The pictures that a record names under one of these keys, a path or a list of them; `BadRow` for others."""
    named = {}
    for key in keys:
        value = record.get(key)
        names = list(value) if isinstance(value, list) else [] if value in (None, "") else [value]
        if wrong := [name for name in names if not isinstance(name, str)]:
            raise BadRow(f"{key!r} has {start_of(str(wrong[0]))}, where a path is due, or a list of paths")
        if names:
            named[key] = [as_text(key, name) for name in names]
    first, *others = named or [""]
    if different := [key for key in others if named[key] != named[first]]:
        raise BadRow(f"{first!r} and {different[0]!r} name different pictures: leave all of them in one of the two")
    return [find(name) for name in named.get(first, ())]


def shown(pictures: Sequence[tuple[Row | None, str]]) -> Row:
    """The piece of a conversation's row with its pictures, which together are one `picture`."""
    return {"images": [picture for picture, _ in pictures], "picture": " ".join(name for _, name in pictures)}


def refuse_more(what: Row, known: Sequence[str], whose: str) -> None:
    """Raise `BadRow` where something has more in it than these keys, which would be lost."""
    if more := [key for key, value in what.items() if key not in known and value not in (None, "", [], {})]:
        raise BadRow(f"{whose} has {start_of(more[0])}, which is not read: only {', '.join(known)} are")
