"""COCO's JSON (`images`, `annotations`, `categories`) -> rows of boxes, one a picture, or of masks.

Read with `json` alone: supervision 0.31 stops at the first bad name without a row's number, drops annotations of no
picture without a word, takes NaN for a side, and decodes the masks of every picture while it loads; pycocotools checks
nothing. Both write and judge in the tests.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import datasets

from ..boxes import BoxFormat
from ..conventions import PROBLEM, Row
from ..errors import BadRow
from ..prepared import prepared
from .coco_content import category_of, content_of
from .coco_files import Folders, files_in, is_coco, json_files
from .read import (
    ANNOTATED,
    BOXES,
    MASKS,
    TEXT,
    Read,
    asked,
    counted,
    counted_masks,
    dataset_of,
    numbers_of,
    of_each_text,
)

TITLE = "COCO"
SEEN = 5  # JSON files of a folder, the largest, are looked into to recognise it
FORMAT = BoxFormat("xywh", "pixels")


def recognises(place: Path) -> bool:
    """Whether a file is one of COCO's, or a folder has one, at most one folder down."""
    return any(map(is_coco, sorted(json_files(place), key=lambda file: -file.stat().st_size)[:SEEN]))


def read_boxes(place: Path) -> Read:
    """A row for each picture, with its boxes as `FORMAT` says; without annotations it has none.

    `place` is a JSON file or a folder with some: in `annotations/` (those named `instances…` where there are some),
    beside the pictures of each split (Roboflow), or alone. Pictures are looked for beside their file, in the folder
    itself, and in either's `images/` and folder of the split's name. What `iscrowd` marks is no object to be found:
    it is left out, as COCO's own evaluation does; a picture on which nothing else is marked is refused. An annotation
    of no picture is a row of its own, refused. Raises `DataError` for a file that is no JSON or not COCO's, and two
    categories in use with one name.
    """
    splits = _prepared(place, _read_boxes)
    crowds = sum(sum(filter(None, rows["crowds"])) for rows in splits.values())
    return Read(splits, counted(splits) + (f", {crowds} crowds left out" if crowds else ""), FORMAT)


def read_masks(place: Path) -> Read:
    """A row for each picture and category there: the category's name is the `text`, its `segments` are the target.

    Files and pictures as for `read_boxes`. What `iscrowd` marks is ignored; a picture on which nothing else is of a
    category is not asked about it.
    """
    splits = _prepared(place, _read_masks)
    return Read(asked(splits), counted_masks(splits))


def _prepared(place: Path, read: Callable) -> dict[str, datasets.Dataset]:
    splits = {}
    for split, (file, folders) in files_in(place).items():
        what = [TITLE, read.__name__, split, str(file), str(folders.root), folders.state(place)]
        splits[split] = prepared(what, partial(read, file, folders))
    return splits


def _read_boxes(file: Path, folders: Folders, scratch: Path) -> datasets.Dataset:
    names, pictures = content_of(file, folders, _without_segmentation)
    rows = []
    for row, annotations in pictures:
        try:
            if not row.get(PROBLEM):
                row |= _objects(annotations, names)
        except BadRow as error:
            row[PROBLEM] = str(error)
        rows.append(row)
    return dataset_of(rows, {**ANNOTATED, **BOXES, "crowds": datasets.Value("int64")})


def _objects(annotations: list[tuple[str, Row]], names: dict[int | str, Any]) -> Row:
    """The boxes of a picture and their categories' names, and how many crowds are left out."""
    objects, crowds = {"bbox": [], "category_name": []}, 0
    for which, annotation in annotations:
        name, crowd = category_of(which, annotation, names)
        box = numbers_of(annotation.get("bbox"), 4, f"{which}: its bbox")
        if min(box[2:]) <= 0:
            raise BadRow(f"{which}: its bbox {box} has no area: {FORMAT} are due")
        if crowd:
            crowds += 1
        else:
            objects["bbox"].append(box)
            objects["category_name"].append(name)
    if crowds and not objects["bbox"]:
        raise BadRow("nothing but crowds is marked on it, which are left out: it would be said to show nothing")
    return {"objects": objects, "crowds": crowds}


def _without_segmentation(content: Row) -> Row:
    """Outlines are most of a file, and no boxes."""
    content.pop("segmentation", None)
    return content


def _read_masks(file: Path, folders: Folders, scratch: Path) -> datasets.Dataset:
    names, pictures = content_of(file, folders, _with_text)
    rows = []
    for row, annotations in pictures:
        segments: dict[str, list[Row]] = {}
        try:
            for which, annotation in () if row.get(PROBLEM) else annotations:
                name, crowd = category_of(which, annotation, names)
                segment = {"which": which, "ignored": crowd, "segmentation": annotation.get("segmentation", "null")}
                segments.setdefault(name, []).append(segment)
        except BadRow as error:
            row[PROBLEM], segments = str(error), {}
        rows += of_each_text(row, segments)
    return dataset_of(rows, {**ANNOTATED, **MASKS, "kind": TEXT})


def _with_text(content: Row) -> Row:
    """Outlines as JSON: as numbers they take five times the memory."""
    if "segmentation" in content:
        content["segmentation"] = json.dumps(content["segmentation"])
    return content
