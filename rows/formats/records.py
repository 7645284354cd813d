"""Files of records, as tables and conversations have them: which there are, of which split, and what JSON says."""

import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import DataError, start_of
from ..paths import inside
from .files import split_in, storable

JSON = (".json", ".jsonl", ".ndjson")
SHARD = re.compile(r"[-_.]\d+-of-\d+$")
SPACE = re.compile(r"[ \t\r\n]*")
BEGINNING = 2**20  # bytes that have to hold a file's first record, for it to be recognised
BLOCK = 2**16  # characters read at once
LOOKED_AT = 20  # files of a folder, at most, to recognise it
Record = tuple[str, Any, str]  # what it is called in its file (", line 12"), what it says, why it cannot be read or ""


def root_of(place: Path) -> Path:
    """The dataset's folder: where the file lies that is named as the dataset."""
    return place if place.is_dir() else place.parent


def _files(place: Path, endings: tuple[str, ...]) -> list[Path]:
    """The files with these endings in a folder and in its own folders; those of the folder itself come first."""
    if place.is_file():
        return [place] if place.suffix.lower() in endings else []
    if not place.is_dir():
        return []
    folders = [place, *sorted(Path(entry.path) for entry in os.scandir(place) if entry.is_dir())]
    folders = [folder for folder in folders if inside(place, str(folder.absolute()))]
    entries = [[entry for entry in os.scandir(folder) if entry.name.lower().endswith(endings)] for folder in folders]
    files = [entry for own in entries for entry in sorted(own, key=lambda entry: entry.name)]
    return [Path(entry.path) for entry in files if not entry.name.startswith(".") and entry.is_file()]


def found_in(place: Path, endings: tuple[str, ...], fits: Callable[[Path], bool]) -> bool:
    """Whether the file, or one of the first in the folder, `fits`; never raises, whatever their bytes."""
    try:
        files = [file for file in _files(place, endings) if _is_inside(file, place)]
        alike = Counter(file.suffix.lower() for file in files)  # beside 10,000 files of labelme a table comes first
        files.sort(key=lambda file: (not split_of(file, root_of(place)), alike[file.suffix.lower()]))
        return any(fits(file) for file in files[:LOOKED_AT])
    except (OSError, ValueError):  # a folder that may not be read, a null byte in its name
        return False


def _is_inside(file: Path, place: Path) -> bool:
    return file == place or inside(place, str(file.absolute())) is not None


def split_of(file: Path, root: Path) -> str:
    """`train` of qa_train.csv, train-00000-of-00002.parquet and train/metadata.csv; "" for another name."""
    return split_in(file.stem) or ("" if file.parent == root else split_in(file.parent.name))


def files_by_split(
    place: Path, endings: tuple[str, ...], fits: Callable[[Path], bool], due: str
) -> dict[str, list[Path]]:
    """The files that hold rows, by their split, in the order of their names; "all" for a single one without.

    Raises `DataError` where none `fits`; for one that does not though it is called like a split, or as one that does;
    for one that lies outside of the folder; and for two forms of the same split. `due` says what a file needs.
    """
    root, found, others = root_of(place), {}, []
    for file in _files(place, endings):
        split, name = split_of(file, root), file.relative_to(root)
        if not _is_inside(file, place):
            if split:
                raise DataError(f"{str(name)!r} is a link that leaves {str(root)!r}: put the file itself there")
        elif fits(file):
            found.setdefault(split or storable(str(name.with_suffix(""))), []).append(file)
        else:
            others.append(file)
    fitting = [file for files in found.values() for file in files]
    alike, same = {file.suffix.lower() for file in fitting}, {file.name for file in fitting}
    for file in others:
        if file.name in same or (
            file.parent == root and split_of(file, root) and (not alike or file.suffix.lower() in alike)
        ):
            raise DataError(f"{str(file)!r} is called as what holds a split, and cannot be read as one: {due} are due")
    if not found:
        raise DataError(f"{str(place)!r} has no rows: {due} are due, in files {', '.join(endings)}")
    for split, files in found.items():
        if len(files) > 1 and not all(SHARD.search(file.stem) for file in files):
            names = ", ".join(repr(str(file.relative_to(root))) for file in files[:3])
            raise DataError(f"{names} are all of the split {split!r}: leave one of them")
    only = next(iter(found))
    return found if len(found) > 1 or split_in(only) else {"all": found[only]}


def first_record(file: Path) -> Mapping[str, Any]:
    """The first object in the beginning of a file of JSON, whatever else is there; an empty one if there is none."""
    try:
        with file.open("rb") as stream:
            records = json_records(io.BytesIO(stream.read(BEGINNING)))
            return next((record for _, record, problem in records if not problem), {})
    except (OSError, ValueError):
        return {}


def described(place: Path) -> str:
    """What is in the files of JSON of a folder, for an error where none was recognised; "" where there are none."""
    told = ""
    for file in [file for file in _files(place, JSON) if file.parent == root_of(place)][:3]:
        keys = ", ".join(map(start_of, list(first_record(file))[:5]))
        told += f"; {file.name!r} " + (f"begins with {keys}" if keys else "is no list and no lines of JSON objects")
    return told


def json_file(file: Path) -> Iterator[Record]:
    """The records of a file of JSON, see `json_records`."""
    with file.open("rb") as stream:
        yield from json_records(stream)


def json_records(stream: BinaryIO) -> Iterator[Record]:
    """The objects of a JSON list, or of JSON lines, one after another: no more of a file than one is in memory.

    A line that is none, and a member of a list that is no object, are there with the reason. Raises `ValueError` for
    a list that is not JSON.
    """
    begins = stream.read(BLOCK).removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")[:1]
    stream.seek(0)
    if begins == b"[":
        for number, value in enumerate(_listed(io.TextIOWrapper(stream, encoding="utf-8-sig")), start=1):
            yield f"#{number}", value, "" if isinstance(value, dict) else f"{start_of(str(value))} is no JSON object"
        return
    for number, line in enumerate(stream, start=1):
        try:
            if text := line.decode("utf-8-sig").strip():
                value = json.loads(text)
                problem = "" if isinstance(value, dict) else f"{start_of(text)} is no JSON object"
                yield f", line {number}", value, problem
        except (ValueError, RecursionError) as error:
            yield f", line {number}", {}, f"the line is not JSON: {error}"


def _listed(stream: io.TextIOWrapper) -> Iterator[Any]:
    """The members of a JSON list."""
    decode, text, number, another = json.JSONDecoder().raw_decode, stream.read(BLOCK), 1, True
    at = SPACE.match(text).end() + 1
    while True:
        try:
            at = SPACE.match(text, at).end()
            if text[at : at + 1] == "]" and (number == 1 or not another):
                if (text[at + 1 :] + stream.read()).strip(" \t\r\n"):
                    raise DataError("something follows after its list")
                return
            value, end = decode(text, at)
            end = SPACE.match(text, end).end()
            if text[end : end + 1] not in (",", "]"):  # the number 1 may be the beginning of 12
                raise json.JSONDecodeError("no comma, and no end of the list", text, end)
        except RecursionError as error:
            raise DataError(f"number {number} of its list is nested too deeply") from error
        except json.JSONDecodeError as error:
            if not (more := stream.read(max(BLOCK, len(text) - at))):
                raise DataError(f"number {number} of its list is not JSON: {error.msg}") from error
            text, at = text[at:] + more, 0
            continue
        yield value
        another = text[end] == ","
        at, number = end + another, number + 1
