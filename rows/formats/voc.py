"""Pascal VOC's XML files, one a picture -> rows of boxes.

Parsed by defusedxml, which expands no entities. Supervision 0.31 decodes every picture for its size, stops at the
first bad file without its name, and takes a picture without an XML for one without objects; it writes and judges in
the tests.
"""

import os
import re
from collections import Counter, defaultdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import datasets
from defusedxml.ElementTree import fromstring

from ..boxes import BoxFormat
from ..conventions import ANNOTATED_SIZE, PROBLEM, Row
from ..errors import BadRow, DataError
from ..paths import inside
from ..prepared import prepared, state_of
from .files import files_under, head_of, picture_folders, split_in, split_of, storable
from .read import (
    ANNOTATED,
    BOXES,
    SUFFIXES,
    Read,
    annotated_size,
    counted,
    dataset_of,
    finite,
    picture_at,
    shown,
    text_of,
)

TITLE = "Pascal VOC"
FORMAT = BoxFormat("xyxy", "pixels")
PLACES = ("Annotations/*.xml", "*.xml", "*/*.xml", "*/*/*.xml")
LOOKED_INTO = 5  # files of each of them
BEGINS = re.compile(rb"<annotation[\s>]")  # CVAT's own are <annotations>
LISTS = "ImageSets/Main"
FLAG = re.compile(r"\s+(-1|0|1)$")
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def recognises(place: Path) -> bool:
    """Whether a folder has XML files, at most two folders down, that begin as VOC's do."""
    seen = (file for pattern in PLACES for file in islice(place.glob(pattern), LOOKED_INTO))
    heads = (head_of(place, str(file.relative_to(place))).replace(b"\0", b"") for file in seen)  # UTF-16 has zeros
    return any(BEGINS.search(head) for head in heads)


def read_boxes(place: Path) -> Read:
    """A row for each XML file, with its picture and boxes as `FORMAT` says, and one for a picture without an XML.

    The splits are those that `ImageSets/Main/` lists (`train.txt`; `trainval.txt` where there are not its parts), or
    the words for splits in the folders' names. A picture has the name of its XML, else the one told in it, and is
    beside it, or in `JPEGImages/` or `images/` beside its folder. VOC counts pixels from 1 and includes the last one:
    a box's first corner is moved by one pixel, so that `[1, 1, width, height]` is the whole picture, which is how
    supervision reads it. A corner of 0, of tools that count from there, stays. Objects that are `difficult` or
    `truncated` are boxes as others are. A file that cannot be read is a row of its own, refused, and so is a picture
    without one: nobody has said that nothing is on it. Raises `DataError` where there is no file.
    """
    splits, unlisted = _splits(place)
    what = [TITLE, str(place), state_of([place])]
    found = {split: prepared([*what, pairs], partial(_read, place, pairs)) for split, pairs in splits.items()}
    return Read(found, counted(found) + (f", {unlisted} in none of {LISTS}" if unlisted else ""), FORMAT)


def _splits(place: Path) -> tuple[dict[str, list[tuple[str, list[str]]]], int]:
    """Each split's XML files with the pictures of their name, and how many files no list of a split has."""
    files = files_under(place, ".", (".xml",))
    if not files:
        raise DataError(f"{str(place)!r} has no XML files, like Annotations/000005.xml")
    named = defaultdict(list)
    for picture in files_under(place, ".", SUFFIXES):
        named[os.path.splitext(picture)[0]].append(picture)
    lists = _lists(place, set(files))
    if lists:
        splits = {split: [f"Annotations/{name}.xml" for name in names] for split, names in lists.items()}
        listed = {file for names in splits.values() for file in names}
        files = [file for file in files if file.startswith("Annotations/")]
        unlisted = len(set(files) - listed)
    else:
        splits, unlisted = defaultdict(list), 0
        for file in files:
            splits[split_of(file)].append(file)
        known = {os.path.join(folder, Path(file).stem) for file in files for folder in picture_folders(file)}
        folders = set(map(os.path.dirname, known))
        for stem, pictures in named.items():
            if stem not in known and os.path.dirname(stem) in folders:
                splits[split_of(stem)] += pictures
    paired = {split: [(file, _of_its_name(file, named)) for file in sorted(splits[split])] for split in sorted(splits)}
    return paired, unlisted


def _lists(place: Path, files: set[str]) -> dict[str, list[str]]:
    """The names that each split's list has; other lists there are of one class each.

    A name may have spaces; a flag behind it, as in the lists of a class, is no part of one that no file has.
    """
    found = {}
    for path in files_under(place, LISTS, (".txt",)):
        stem = Path(path).stem
        if inside(place, path) and (split_in(stem) == stem or stem == "trainval"):
            lines = (place / path).read_text(encoding="utf-8-sig", errors="backslashreplace").split("\n")
            names = filter(None, map(str.strip, lines))
            found[stem] = [name if f"Annotations/{name}.xml" in files else FLAG.sub("", name) for name in names]
    whole = found.pop("trainval", None)
    if whole and not {"train", "val"} & found.keys():
        found["train"] = whole
    return {split: list(dict.fromkeys(names)) for split, names in found.items()}


def _of_its_name(file: str, named: dict[str, list[str]]) -> list[str]:
    stems = (os.path.join(folder, Path(file).stem) for folder in picture_folders(file))
    return next((named[stem] for stem in stems if stem in named), [])


def _read(place: Path, pairs: list[tuple[str, list[str]]], scratch: Path) -> datasets.Dataset:
    rows = []
    for file, pictures in pairs:
        about = pictures[0] if pictures else file
        row: Row = {"id": storable(file), "image_id": storable(about)}
        try:
            if (row["id"], row["image_id"]) != (file, about):
                raise BadRow("the name of its file is not in UTF-8: rename it")
            if not file.endswith(".xml"):
                raise BadRow("there is no XML file of this name: one without an <object> says that nothing is there")
            root = _root(place, file)
            if len(pictures) > 1:
                raise BadRow(f"{len(pictures)} pictures have this name but for its end: keep one")
            if not pictures:
                told = text_of(root.findtext("filename"), "there is no picture of its name, and <filename>")
                paths = [os.path.join(folder, told) for folder in picture_folders(file)]
                about = next((path for path in paths if os.path.isfile(place / path)), paths[0])
            row |= {"image_id": about, "image": picture_at(place, about)}
            size = [root.findtext(f"size/{side}") for side in ("width", "height")]
            row[ANNOTATED_SIZE] = annotated_size(*(_number(side, "the size of its picture") for side in size))
            row["objects"] = _objects(root)
        except BadRow as error:
            row[PROBLEM] = str(error)
        rows.append(row)
    shared = Counter(row["image_id"] for row in rows if "image" in row)
    rows = [row for row in rows if row["id"] not in shared]  # a picture of another name than its XML's
    for row in rows:
        if shared[row["image_id"]] > 1 and not row.get(PROBLEM):
            row[PROBLEM] = f"{shared[row['image_id']]} XML files are about {shown(row['image_id'])}: keep one"
    return dataset_of(rows, {**ANNOTATED, **BOXES})


def _root(place: Path, file: str) -> Element:
    if not inside(place, file):
        raise BadRow("its XML is a link that leaves the dataset's folder")
    try:
        root = fromstring((place / file).read_bytes())
    except (OSError, ValueError, SyntaxError, LookupError) as error:  # ValueError: entities; LookupError: an encoding
        raise BadRow(f"its XML cannot be read: {error}") from error
    if root.tag != "annotation":
        raise BadRow(f"its XML is of <{root.tag}>: <annotation> is due")
    return root


def _objects(root: Element) -> Row:
    objects: dict[str, list[Any]] = {"bbox": [], "category_name": []}
    for number, found in enumerate(root.iterfind("object"), start=1):
        which = f"object {number}"
        objects["category_name"].append(text_of(found.findtext("name"), f"{which}: its <name>").strip())
        x_min, y_min, x_max, y_max = (
            _number(found.findtext(f"bndbox/{side}"), f"{which}: {side}") for side in CORNERS
        )
        if None in (x_min, y_min, x_max, y_max):
            raise BadRow(f"{which} has no <bndbox> with {', '.join(CORNERS)}")
        if x_min >= x_max + 1 or y_min >= y_max + 1:
            raise BadRow(f"{which}: its corners {[x_min, y_min, x_max, y_max]} have no area: {FORMAT} are due")
        first = [side if 0 <= side < 1 else side - 1 for side in (x_min, y_min)]
        objects["bbox"].append([*first, x_max, y_max])
    return objects


def _number(text: str | None, what: str) -> float | None:
    try:
        return None if text is None else finite(text)
    except ValueError as error:
        raise BadRow(f"{what}, {shown(text)}, is no finite number") from error
