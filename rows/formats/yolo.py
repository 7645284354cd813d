"""YOLO's text files, a line for each box, and their YAML -> rows of boxes, one a picture.

Read by ourselves, after docs.ultralytics.com/datasets/detect: supervision 0.31 stops at the first bad line and names
neither it nor its file, takes a class without a name, and opens what a path or link leads to outside of the folder.
It writes and judges in the tests.
"""

import os
from collections import Counter
from functools import partial
from itertools import islice
from pathlib import Path

import datasets

from ..boxes import BoxFormat
from ..conventions import PROBLEM, Row
from ..errors import BadRow
from ..paths import inside
from ..prepared import prepared, state_of
from .files import split_in, storable
from .read import (
    BOXES,
    PICTURE,
    Read,
    counted,
    dataset_of,
    finite,
    picture_at,
    shown,
    text_of,
)
from .yolo_files import Layout, content_of, is_label, label_of, layout_of, yaml_files

TITLE = "YOLO"
FORMAT = BoxFormat("cxcywh", "relative")
PLACES = ("labels/*.txt", "labels/*/*.txt", "*/labels/*.txt", "*.txt")  # of label files
LOOKED_INTO = 20  # files of each of them
TWICE = "two pictures have this name but for its end: keep one"


def recognises(place: Path) -> bool:
    """Whether a folder has YOLO's YAML, or labels beside its pictures; or a file is such a YAML."""
    files = [place] if os.path.isfile(place) else yaml_files(place)
    if any(split_in(key) == key for file in files for key in content_of(file) or {}):
        return True
    seen = (file for pattern in PLACES for file in islice(place.glob(pattern), LOOKED_INTO))
    return any(is_label(place, str(file.relative_to(place))) for file in seen)


def read_boxes(place: Path) -> Read:
    """A row for each picture, with its boxes as `FORMAT` says.

    `place` is a folder or its YAML. The splits are what the YAML names: folders, or lists of pictures. Without one the
    classes are named in `classes.txt`, and the splits are the folders in `images/`, or those that have `images/`, or
    all is one. Labels are in `labels/` where the pictures are in `images/`, else beside them. An outline (a class and
    three points or more, as for segmentation and oriented boxes) is read as the box around it, which is what
    Ultralytics trains detection on; after a box, so many numbers as the YAML's `kpt_shape` says are left out. A
    picture without a label file has no box, as in Ultralytics; how many there are is said. Raises `DataError` for a
    YAML that cannot be read, classes without names, and a folder without pictures.
    """
    layout = layout_of(place)
    state = state_of([layout.root])
    splits = {}
    for split, found in layout.splits.items():
        what = [TITLE, str(layout.root), split, found, layout.names, layout.keypoints, state]
        splits[split] = prepared(what, partial(_read, layout, *found))
    unlabelled = sum(not there for rows in splits.values() for there in rows["labelled"])
    counts = counted(splits) + (f", {unlabelled} without a label file" if unlabelled else "")
    return Read(splits, counts + "".join(f", no {missing}" for missing in layout.missing), FORMAT)


def _read(layout: Layout, pictures: list[str], alone: list[str], scratch: Path) -> datasets.Dataset:
    rows, labels = [], {picture: label_of(picture) for picture in pictures}
    shared = Counter(labels.values())
    for picture, label in labels.items():
        row: Row = {"id": storable(label), "image_id": storable(picture), "labelled": True}
        try:
            if shared[label] > 1:
                row["id"] = storable(picture)
                raise BadRow(TWICE)
            if row["image_id"] != picture:
                raise BadRow("the name of its file is not in UTF-8: rename it")
            row["image"] = picture_at(layout.root, picture)
            row["labelled"] = os.path.lexists(layout.root / label)
            row["objects"] = _objects(layout, label) if row["labelled"] else {"bbox": [], "category_name": []}
        except BadRow as error:
            row[PROBLEM] = str(error)
        rows.append(row)
    for label in alone:
        row = {"id": storable(label), "image_id": storable(str(Path(label).with_suffix(""))), "labelled": True}
        rows.append({**row, PROBLEM: f"there is no picture of this name, like {storable(Path(label).stem)}.jpg"})
    return dataset_of(rows, {"image": PICTURE, **BOXES, "labelled": datasets.Value("bool")})


def _objects(layout: Layout, label: str) -> Row:
    """The boxes of a file and the names of their classes; `BadRow` names the line that is no such thing."""
    if not inside(layout.root, label):
        raise BadRow("its label file is a link that leaves the dataset's folder")
    try:
        lines = (layout.root / label).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        raise BadRow(f"its label file cannot be read: {error}") from error
    objects = {"bbox": [], "category_name": []}
    for number, line in enumerate(lines, start=1):
        if fields := line.split():
            name, box = _object(fields, layout, f"line {number}")
            objects["category_name"].append(name)
            objects["bbox"].append(box)
    return objects


def _object(fields: list[str], layout: Layout, which: str) -> tuple[str, list[float]]:
    try:
        category, *numbers = map(finite, fields)
    except ValueError as error:
        raise BadRow(f"{which}: {shown(' '.join(fields))} is no list of finite numbers") from error
    if category not in layout.names:
        raise BadRow(f"{which}: there is no class {fields[0]}, only {shown(sorted(layout.names))}")
    name = text_of(layout.names[int(category)], f"{which}: the name of class {fields[0]}")
    if len(numbers) in (4, 4 + layout.keypoints):
        box = numbers[:4]
    elif len(numbers) >= 6 and len(numbers) % 2 == 0:
        left, right, top, bottom = (side for part in (numbers[::2], numbers[1::2]) for side in (min(part), max(part)))
        box = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    else:
        due = "a class and four numbers are due, or three points or more"
        confidence = ", without a prediction's confidence" if len(numbers) == 5 else ""
        raise BadRow(f"{which} has {len(fields)} fields: {due}{confidence}")
    if min(box[2:]) <= 0:
        raise BadRow(f"{which}: the box {box} has no area: {FORMAT} are due")
    return name, box
