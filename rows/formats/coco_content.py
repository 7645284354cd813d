"""What is in one of COCO's files: the names of categories, and each picture with its annotations."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..conventions import ANNOTATED_SIZE, PROBLEM, Row
from ..errors import BadRow, DataError
from .coco_files import Folders
from .read import annotated_size, json_of, shown, text_of


def category_of(which: str, annotation: Row, names: dict[int | str, Any]) -> tuple[str, bool]:
    """The name of an annotation's category, and whether it is a crowd's."""
    number, crowd = annotation.get("category_id"), annotation.get("iscrowd", 0)
    if not _is_id(number) or number not in names:
        raise BadRow(f"{which}: its category_id {shown(number)} is none of 'categories'")
    if crowd not in (0, 1):
        raise BadRow(f"{which}: its iscrowd {shown(crowd)} is neither 0 nor 1")
    return text_of(names[number], f"the name of category {number}"), bool(crowd)


def content_of(
    file: Path, folders: Folders, as_read: Callable[[Row], Row]
) -> tuple[dict[int | str, Any], Iterator[tuple[Row, list]]]:
    """The names of a file's categories, and each picture's row, as far as it goes, with its annotations."""
    content, where = json_of(file, as_read), file.relative_to(folders.root).as_posix()
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{file} has no list {key!r}, as COCO's files have")
    annotations: dict[Any, list[tuple[str, Row]]] = {}
    stray = []
    for place, annotation in enumerate(content.pop("annotations")):
        which = f"annotation {place + 1} of the file"
        if not isinstance(annotation, dict):
            stray.append((which, f"it is {shown(annotation)} and no object"))
        elif not _is_id(number := annotation.get("image_id")):
            stray.append((which, f"its image_id {shown(number)} is neither a whole number nor a text"))
        else:
            which = f"annotation {shown(annotation['id'])}" if _is_id(annotation.get("id")) else which
            annotations.setdefault(number, []).append((which, annotation))
    names = _names(file, content["categories"], annotations)
    return names, _pictures(content["images"], annotations, stray, where, folders)


def _names(file: Path, categories: list, annotations: dict[Any, list[tuple[str, Row]]]) -> dict[int | str, Any]:
    names: dict[int | str, Any] = {}
    for category in categories:
        number = category.get("id") if isinstance(category, dict) else None
        if not _is_id(number):
            raise DataError(f"{file}: the category {shown(category)} has no whole number or text for an id")
        if number in names:
            raise DataError(f"{file}: two categories have the id {number}: give each its own")
        names[number] = category.get("name")
    # Roboflow's category 0 is the project, which may be named as a class; no box is of it.
    numbers = [note.get("category_id") for notes in annotations.values() for _, note in notes]
    used = dict.fromkeys(number for number in numbers if _is_id(number) and number in names)
    by_name: dict[str, Any] = {}
    for number in used:
        if (other := by_name.setdefault(str(names[number]), number)) != number:
            raise DataError(f"{file}: the categories {other} and {number} are both {names[number]!r}: rename one")
    return names


def _pictures(images: list, annotations: dict, stray: list, where: str, folders: Folders) -> Iterator:
    records = [image if isinstance(image, dict) else {} for image in images]
    ids = Counter(image["id"] for image in records if _is_id(image.get("id")))
    texts = Counter(map(str, ids.elements()))  # 1 and "1" name the same row
    names = [image["file_name"] for image in records if isinstance(image.get("file_name"), str)]
    files = Counter(map(os.path.normpath, names))
    for place, image in enumerate(records, start=1):
        number, file = image.get("id"), image.get("file_name")
        row: Row = {"id": f"{where}, image {place} of the file"}
        try:
            if not _is_id(number):
                raise BadRow(f"its id {shown(number)} is neither a whole number nor a text")
            if texts[str(number)] > 1:
                raise BadRow(
                    f"{texts[str(number)]} images have the id {number}, so that its annotations may be another's"
                )
            row["id"] = f"{where}#{text_of(str(number), 'its id')}"
            row["image_id"], row["image"] = folders.find(text_of(file, "its file_name").replace("\\", "/"))  # Windows'
            if (uses := files[os.path.normpath(file)]) > 1:
                raise BadRow(f"{uses} images have the file_name {shown(file)}: each may have a part of it")
            row[ANNOTATED_SIZE] = annotated_size(image.get("width"), image.get("height"))
        except BadRow as error:
            row[PROBLEM] = str(error)
        yield row, annotations.get(number, []) if _is_id(number) else []
    for number, notes in annotations.items():
        if number not in ids:
            stray += [(which, f"its image_id {shown(number)} is none of 'images'") for which, _ in notes]
    taken = Counter()
    for which, problem in stray:
        taken[which] += 1
        again = f" ({taken[which]})" if taken[which] > 1 else ""
        yield {"id": f"{where}, {which}{again}", PROBLEM: f"{which}: {problem}"}, []


def _is_id(number: Any) -> bool:
    return isinstance(number, int | str) and not isinstance(number, bool)
