"""A column `objects`, as datasets on the Hub spell it in several ways, -> the one that recipes know."""

from functools import partial
from pathlib import Path
from typing import Any

import datasets

from ...models.upstream import fingerprint
from ..beside import beside
from ..conventions import PROBLEM, Row
from ..errors import BadRow, DataError
from ..prepared import prepared, processes_for
from .read import BOXES, TEXT, numbers_of, shown, text_of

BOX = ("bbox", "bboxes", "boxes")
CATEGORY = ("category_name", "category", "category_id", "label", "labels")
COLUMNS = datasets.Features({**BOXES, PROBLEM: TEXT})


def with_objects(dataset: datasets.Dataset) -> datasets.Dataset:
    """The same rows with `objects` as `{bbox: [[…]], category_name: […]}`; numbers of a `ClassLabel` become its names.

    `objects` may be a list of dicts or a dict of lists, the boxes any of `BOX`, and their categories any of
    `CATEGORY`, the first with names. A row without objects (None) stays so, one that cannot be read has its reason in
    `PROBLEM`; pictures and other columns stay as they are, not copied. The boxes' order and unit are the dataset's.
    Raises `DataError` where the column, the boxes or the names are missing.
    """
    if "objects" not in dataset.column_names:
        raise DataError(f"there is no column 'objects', only {', '.join(map(repr, dataset.column_names))}")
    objects = dataset.features["objects"]
    inner = objects if isinstance(objects, dict) else getattr(objects, "feature", None)
    if not isinstance(inner, dict):
        raise DataError("the column 'objects' is neither a list of dicts nor a dict of lists, each with 'bbox'")
    kinds = {name: getattr(kind, "feature", kind) if inner is objects else kind for name, kind in inner.items()}
    box = next((name for name in BOX if name in kinds), None)
    named = [name for name in CATEGORY if name in kinds]
    category = next((name for name in named if _has_names(kinds[name])), None)
    if not box or not category:
        due = f"a name for each as {CATEGORY[0]!r}, or a ClassLabel, is due" if box else f"{BOX[0]!r} is due"
        numbers = f"{named[0]!r} are numbers without names: " if box and named else ""
        raise DataError(f"'objects' has {', '.join(map(repr, kinds))}: {numbers}{due}")
    if inner is objects and (box, category) == (BOX[0], CATEGORY[0]):
        return dataset
    names = getattr(kinds[category], "names", None)
    read = partial(_read_some, box=box, category=category, names=names)
    columns = prepared(["objects", fingerprint(dataset), box, category, names], partial(_read, dataset, read))
    return beside(columns, dataset.remove_columns("objects"))


def _has_names(kind: Any) -> bool:
    return isinstance(kind, datasets.ClassLabel) or getattr(kind, "dtype", "") in ("string", "large_string", "null")


def _read(dataset: datasets.Dataset, read: Any, scratch: Path) -> datasets.Dataset:
    return dataset.select_columns("objects").map(
        read,
        batched=True,
        input_columns="objects",
        remove_columns="objects",
        num_proc=processes_for(len(dataset)),
        cache_file_name=str(scratch / "objects.arrow"),
        features=COLUMNS,
        new_fingerprint="objects",
        desc="reading objects",
    )


def _read_some(rows: list[Any], box: str, category: str, names: list[str] | None) -> dict[str, list]:
    found, problems = [], []
    for objects in rows:
        try:
            found.append(None if objects is None else _standard(objects, box, category, names))
            problems.append("")
        except BadRow as error:
            found.append(None)
            problems.append(str(error))
    return {"objects": found, PROBLEM: problems}


def _standard(objects: Any, box: str, category: str, names: list[str] | None) -> Row:
    if isinstance(objects, list):
        if None in objects:
            raise BadRow(f"object {objects.index(None) + 1} of {len(objects)} is None")
        objects = {name: [one[name] for one in objects] for name in (box, category)}
    boxes, categories = objects[box] or [], objects[category] or []
    if len(boxes) != len(categories):
        raise BadRow(f"{len(boxes)} under {box!r} and {len(categories)} under {category!r}")
    if names is not None:
        if wrong := [number for number in categories if number is None or not 0 <= number < len(names)]:
            raise BadRow(f"{category!r} {wrong[0]} has no name: there are {len(names)}, {shown(names)}")
        categories = [names[number] for number in categories]
    numbered = enumerate(zip(boxes, categories, strict=True), start=1)
    pairs = [(numbers_of(one, 4, f"box {i}"), text_of(name, f"{category!r} {i}")) for i, (one, name) in numbered]
    return {"bbox": [one for one, _ in pairs], "category_name": [name for _, name in pairs]}
