"""Where COCO's JSON files are, and their pictures."""

import mmap
import os
import re
from pathlib import Path

from ..conventions import Row
from ..errors import DataError
from ..paths import inside
from ..prepared import state_of
from .files import split_in
from .read import picture_at

KEYS = [re.compile(rb'"%s"\s*:\s*\[' % key) for key in (b"images", b"categories", b"annotations")]


class Folders:
    """Where the pictures of a file may be: beside it or in the dataset's folder, or in folders there."""

    def __init__(self, file: Path, root: Path, split: str):
        self.file, self.root = file, root
        named = ["images", *dict.fromkeys((file.stem, file.stem.partition("_")[2] or split, split))]
        parts = ["", *named, *(f"images/{name}" for name in named), *(f"{name}/images" for name in named)]
        places = [base / part for base in dict.fromkeys((file.parent, root)) for part in parts]
        self.folders = [os.path.relpath(folder, root) for folder in places if os.path.isdir(folder)]

    def state(self, place: Path) -> str:
        """A name for what decides the rows: of a single file's folder, which may be any, what is for pictures."""
        within = [self.root / folder for folder in self.folders if folder != "."]
        return state_of([place] if place.is_dir() else [self.file, *within])

    def find(self, name: str) -> tuple[str, Row | None]:
        """A picture's path in the dataset's folder, and itself; the first place where it may be if it is missing."""
        paths = [os.path.normpath(os.path.join(folder, name)) for folder in self.folders]
        there = (path for path in paths if os.path.isfile(os.path.join(self.root, path)))
        found = next(there, paths[0])
        return found, picture_at(self.root, found)


def json_files(place: Path) -> list[Path]:
    """The JSON files of a folder and the folders in it, or the file itself."""
    if os.path.isfile(place):
        return [place]
    found = sorted(file for pattern in ("*.json", "*/*.json") for file in place.glob(pattern))
    return [file for file in found if os.path.isfile(file) and inside(place, str(file.relative_to(place)))]


def is_coco(file: Path) -> bool:
    try:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as text:
            begins = text[:100].removeprefix(b"\xef\xbb\xbf").lstrip()
            return begins.startswith(b"{") and all(key.search(text) for key in KEYS)
    except (OSError, ValueError):  # ValueError: an empty file
        return False


def files_in(place: Path) -> dict[str, tuple[Path, Folders]]:
    """The file of each split, and where its pictures may be."""
    files = [place] if os.path.isfile(place) else [file for file in json_files(place) if is_coco(file)]
    files = [file for file in files if file.name.startswith("instances")] or files
    if not files:
        raise DataError(f"{str(place)!r} has no JSON file with lists of images, annotations and categories")
    root = place if place.is_dir() else place.parent.parent if place.parent.name == "annotations" else place.parent
    paths = [file.relative_to(root) for file in files]
    words = [split_in(path.stem) or split_in(path.parent.name) for path in paths]
    stems, whole = [path.stem for path in paths], [path.with_suffix("").as_posix() for path in paths]
    names = next((names for names in (words, stems) if all(names) and len({*names}) == len(names)), whole)
    names = [words[0] or "all"] if len(files) == 1 else names
    return {name: (file, Folders(file, root, name)) for name, file in zip(names, files, strict=True)}
