"""labelme's JSON, one a picture (github.com/wkentaro/labelme) -> rows of boxes, or of masks.

Read with `json` alone: supervision 0.31 leaves out circles and masks with a warning, and stops at the first bad file
without its name. It writes and judges in the tests.
"""

import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import datasets

from ..boxes import BoxFormat
from ..conventions import ANNOTATED_SIZE, PROBLEM, Row
from ..errors import BadRow, DataError
from ..paths import inside
from ..prepared import prepared, state_of
from .files import files_under, picture_folders, split_of, storable
from .labelme_shapes import shape_of
from .read import (
    ANNOTATED,
    BOXES,
    MASKS,
    SUFFIXES,
    TEXT,
    Read,
    annotated_size,
    asked,
    counted,
    counted_masks,
    dataset_of,
    json_of,
    of_each_text,
    picture_at,
    shown,
    text_of,
)

TITLE = "labelme"
FORMAT = BoxFormat("xyxy", "pixels")
PLACES = ("*.json", "*/*.json", "*/*/*.json")
LOOKED_INTO = 3  # files of each of them
LARGEST = 10**8  # bytes of a file that is looked into


def recognises(place: Path) -> bool:
    """Whether a folder has JSON files, at most two folders down, with labelme's `shapes` and `imagePath`."""
    return any(_is_labelme(place, file) for pattern in PLACES for file in islice(place.glob(pattern), LOOKED_INTO))


def read_boxes(place: Path) -> Read:
    """A row for each JSON file, with its picture and the boxes of its shapes, and one for a picture without a JSON.

    A rectangle has two corners in any order, a circle a centre and a point on it; of a polygon and a mask it is the
    box around it. Shapes with one label and `group_id` are one object, as labelme has it. A point, a line and a
    linestrip have no area: they refuse their picture. The picture is `imagePath`, as the JSON's folder has it, or one
    of that name or the JSON's own, beside it or in `images/` beside its folder; its copy in the file, `imageData`, is
    not used. The splits are the words for splits in the folders' names. A file that cannot be read is a row of its
    own, refused, and so is a picture without one: nobody has said that nothing is on it. Raises `DataError` where
    there is no file.
    """
    splits = _prepared(place, _with_boxes, BOXES)
    return Read(splits, counted(splits), FORMAT)


def read_masks(place: Path) -> Read:
    """A row for each picture and label there: the label is the `text`, its `segments` are the target."""
    splits = _prepared(place, _with_segments, {**MASKS, "kind": TEXT})
    return Read(asked(splits), counted_masks(splits))


def _prepared(place: Path, become: Callable[[Row, Row], list[Row]], columns: Row) -> dict[str, datasets.Dataset]:
    files, pictures = files_under(place, ".", (".json",)), files_under(place, ".", SUFFIXES)
    if not files:
        raise DataError(f"{str(place)!r} has no JSON files beside its pictures")
    folders, splits = set(map(os.path.dirname, files)), {}
    alone = {os.path.splitext(file)[0] for file in files}
    for path in sorted([*files, *pictures]):
        stem, end = os.path.splitext(path)
        if end.lower() == ".json" or os.path.dirname(path) in folders and stem not in alone:
            splits.setdefault(split_of(path), []).append(path)
    what = [TITLE, become.__name__, str(place), state_of([place])]
    return {
        split: prepared([*what, paths], partial(_read, place, paths, set(pictures), become, columns))
        for split, paths in sorted(splits.items())
    }


def _read(
    place: Path,
    paths: list[str],
    pictures: set[str],
    become: Callable[[Row, Row], list[Row]],
    columns: Row,
    scratch: Path,
) -> datasets.Dataset:
    found = []
    for path in paths:
        row: Row = {"id": storable(path), "image_id": storable(path)}
        content: Row = {}
        try:
            if row["id"] != path:
                raise BadRow("the name of its file is not in UTF-8: rename it")
            if not path.lower().endswith(".json"):
                raise BadRow("there is no JSON file of this name: one without shapes says that nothing is there")
            content = _content(place, path)
            row["image_id"] = _picture_of(path, content, pictures)
            row["image"] = picture_at(place, row["image_id"])
            row[ANNOTATED_SIZE] = annotated_size(content.get("imageWidth"), content.get("imageHeight"))
        except BadRow as error:
            row[PROBLEM] = str(error)
        found.append((row, content))
    uses = Counter(row["image_id"] for row, content in found if content)
    rows = []
    for row, content in found:
        if content and uses[row["image_id"]] > 1:
            row.setdefault(PROBLEM, f"{uses[row['image_id']]} JSON files are about {shown(row['image_id'])}: keep one")
        try:
            if content or row["id"] not in uses:  # else a picture of another name than its JSON's
                rows += [row] if row.get(PROBLEM) else become(row, content)
        except BadRow as error:
            rows.append({**row, PROBLEM: str(error)})
    return dataset_of(rows, {**ANNOTATED, **columns})


def _content(place: Path, path: str) -> Row:
    """A file's JSON with its shapes checked."""
    if not inside(place, path):
        raise BadRow("its JSON is a link that leaves the dataset's folder")
    try:
        content = json_of(place / path)
    except DataError as error:
        raise BadRow(f"its JSON cannot be read: {error.__cause__}") from error
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise BadRow("its JSON has no list 'shapes', as labelme's have")
    content["shapes"] = [shape_of(shape, f"shape {i}") for i, shape in enumerate(content["shapes"], start=1)]
    return content


def _picture_of(path: str, content: Row, pictures: set[str]) -> str:
    """The path of a JSON's picture, or where it is due; Windows' are written with `\\`."""
    told = text_of(content.get("imagePath"), "its imagePath").replace("\\", "/")
    beside, *others = picture_folders(path)
    names = [told, os.path.basename(told), *(f"{Path(path).stem}{suffix}" for suffix in SUFFIXES)]
    paths = [os.path.normpath(os.path.join(folder, name)) for folder in (beside, *others) for name in names]
    return next((path for path in paths if path in pictures), paths[0])


def _with_boxes(row: Row, content: Row) -> list[Row]:
    objects: dict[Any, list[Row]] = {}
    for number, shape in enumerate(content["shapes"]):
        alone = ("alone", number) if shape["group"] is None else shape["group"]
        objects.setdefault((shape["label"], alone), []).append(shape)
    boxes = [list(zip(*(shape["box"] for shape in shapes), strict=True)) for shapes in objects.values()]
    around = [[min(left), min(top), max(right), max(bottom)] for left, top, right, bottom in boxes]
    return [{**row, "objects": {"bbox": around, "category_name": [label for label, _ in objects]}}]


def _with_segments(row: Row, content: Row) -> list[Row]:
    segments: dict[str, list[Row]] = {}
    for shape in content["shapes"]:
        kept = ("which", "shape_type", "points", "mask")
        segments.setdefault(shape["label"], []).append({key: shape[key] for key in kept if shape[key] is not None})
    return of_each_text(row, segments)


def _is_labelme(place: Path, file: Path) -> bool:
    path = inside(place, str(file.relative_to(place)))
    if not path or not os.path.isfile(path) or os.path.getsize(path) > LARGEST:
        return False
    try:
        content = json_of(Path(path))
    except DataError:
        return False
    own = isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content
    return own and "is_sentence" not in content  # ReasonSeg's
