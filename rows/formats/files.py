"""Files in a dataset's folder: which there are, how they begin, and of which split they are."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..paths import inside

ANNOTATIONS, PICTURES = ("annotations", "labels", "xmls"), ("JPEGImages", "images")  # folders side by side


def files_under(root: Path, folder: str, suffixes: Iterable[str]) -> list[str]:
    """The paths in `root` of files with these suffixes (lower case) in a folder of it and the folders there; sorted.

    None of a folder that is not there, or lies outside.
    """
    found, suffixes = [], tuple(suffixes)
    if inside(root, folder):
        for where, _, names in os.walk(root / folder):
            within = os.path.relpath(where, root)
            found += [Path(within, name).as_posix() for name in names if name.lower().endswith(suffixes)]
    return sorted(found)


def head_of(root: Path, path: str, count: int = 2000) -> bytes:
    """So many bytes of a file in `root`; none of one that is not there, outside, or a pipe, which would not end."""
    file = inside(root, path)
    if not file or not os.path.isfile(file) or not os.access(file, os.R_OK):
        return b""
    with open(file, "rb") as opened:
        return opened.read(count)


def storable(name: str) -> str:
    """The name of a file as a column can hold it: what is not UTF-8 is spelt out."""
    return name.encode(errors="backslashreplace").decode()


SPLIT = re.compile(r"(?<![a-z])(train|training|val|valid|validation|dev|test|testing)(?![a-z])", re.IGNORECASE)


def split_in(name: str) -> str:
    """The word for a split in the name of a file or folder, "train" in "instances_train2017"; "" without one."""
    found = SPLIT.search(name)
    return found[1].lower() if found else ""


def split_of(path: str) -> str:
    """The first word for a split in the names of a file's folders; "all" without one."""
    return next(filter(None, map(split_in, Path(path).parent.parts)), "all")


def picture_folders(file: str) -> Iterator[str]:
    """Where the picture of an annotation's file may be: beside it, and in a folder of pictures beside its own."""
    parts = list(Path(file).parent.parts)
    yield os.path.join("", *parts)
    for place, part in enumerate(parts):
        if part.lower() in ANNOTATIONS:
            for other in PICTURES:
                yield os.path.join(*parts[:place], other, *parts[place + 1 :])
