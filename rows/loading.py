"""One split of a Hub dataset or a local folder, as `datasets` reads it, with what it would not say."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import datasets
from huggingface_hub.constants import HF_HUB_CACHE

from ..models.upstream import cast_pictures
from .errors import DataError, one_line
from .paths import files_of, inside, picture_columns
from .prepared import state_of


def load_all(name: str, config: str | None) -> dict[str, datasets.Dataset]:
    """Load all splits of a Hub dataset or local folder, their images not yet decoded.

    An image whose file lies outside of the folder is None, and so is each that a Hub dataset names by a path. Raises
    `DataError` if the dataset is missing, or a file of its rows cannot be read.
    """
    folder = Path(name)
    try:
        cache = cache_of(folder) if folder.is_dir() else None
        if cache is not None and not os.path.isdir(cache):  # else the same lines have been read before
            check_lines(folder)
        dataset = datasets.load_dataset(name, config, cache_dir=cache)
    except Exception as error:  # builders raise anything: IndexError for an empty metadata.jsonl
        if isinstance(error, datasets.exceptions.DatasetGenerationError):  # says nothing itself
            error = error.__cause__ or error
        reason = one_line(str(error).splitlines()[0] if str(error) else type(error).__name__)
        files = ", ".join(str(file.relative_to(folder)) for file in sorted(folder.rglob("*.jsonl"))[:3])
        where = f" (its rows are in {files})" if files and ".jsonl" not in reason else ""
        raise DataError(f"cannot load the dataset {name!r}: {reason}{where}") from error
    return {split: within_folder(with_pictures(rows), folder) for split, rows in dataset.items()}


def load_split(name: str, config: str | None, split: str, columns: Iterable[str]) -> datasets.Dataset:
    """One split of what `load_all` loads; raises `DataError`, too, if the split or one of `columns` is missing."""
    return one_of(load_all(name, config), split, columns, name)


def one_of(splits: dict[str, datasets.Dataset], split: str, columns: Iterable[str], name: str) -> datasets.Dataset:
    """One of a dataset's splits; raises `DataError` where it, or one of its `columns`, is missing."""
    if split not in splits:
        raise DataError(f"{name!r} has no split {split!r}, only {', '.join(map(repr, splits))}")
    require_columns(splits[split], columns, name)
    return splits[split]


def apart(train: str, *others: str) -> tuple[str, ...]:
    """The names of these splits; raises `DataError` where one of the `others` is that of training."""
    if train in others:
        raise DataError(f"the split {train!r} is to be trained on and to be judged by: name another one for either")
    return (train, *others)


def require_columns(dataset: datasets.Dataset, columns: Iterable[str], name: str) -> None:
    """Raise `DataError` if `dataset` lacks one of `columns`."""
    if missing := [column for column in columns if column not in dataset.column_names]:
        raise DataError(f"{name!r} has no column {missing[0]!r}, only {', '.join(map(repr, dataset.column_names))}")


KEYS = 1000  # different ones in a file: each becomes a column


def cache_of(folder: Path) -> str:
    """A cache of its own for each state of a folder.

    `datasets` knows a folder with a dataset card by its last name and the card alone: it would give the rows from
    before an edit, or those of another folder of that name.
    """
    return str(Path(datasets.config.HF_DATASETS_CACHE, "folders", state_of([folder.resolve()])[:16]))


def check_lines(folder: Path) -> None:
    """Raise `ValueError` naming the file and line in `folder` that is no JSON object, or has too many keys.

    `datasets` does not name them, ends the process over 100,000 brackets, and takes hours for a million keys.
    """
    names: set[str] = set()

    def as_dict(pairs: list[tuple]) -> dict:
        names.update(name for name, _ in pairs)
        if len(names) > KEYS:
            raise ValueError(f"more than {KEYS:,} different keys up to here")
        return dict(pairs)

    for file in sorted(folder.rglob("*.jsonl")):
        names.clear()
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")  # as `datasets` takes its mark
                    row = json.loads(text.strip() if line.strip() else "{}", object_pairs_hook=as_dict)
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"{file}, line {number}: {error}") from error
                if not isinstance(row, dict):
                    raise ValueError(f"{file}, line {number}: its JSON is no object")


UNNAMED = {"bytes": None, "path": ""}  # an image that is refused, where a row with None for it would be a text's


AS_STORED = [("bytes", datasets.Value("binary")), ("path", datasets.Value("string"))]  # a picture, by `datasets`


def with_pictures(dataset: datasets.Dataset) -> datasets.Dataset:
    """`image` and `images` as pictures also where a table has texts there, or `{bytes, path}` without a type."""
    for column in ("image", "images"):
        feature = dataset.features.get(column)
        several, one = hasattr(feature, "feature"), getattr(feature, "feature", feature)
        if isinstance(one, dict) and one.keys() & dict(AS_STORED):
            due = [] if list(one.items()) == AS_STORED else [datasets.Image(decode=False)]  # then no byte is copied
        elif isinstance(one, datasets.Value) and "string" in one.dtype:
            due = [datasets.Value("string"), datasets.Image(decode=False)]  # a string_view becomes no picture at once
        else:
            continue
        for kind in due:
            dataset = dataset.cast_column(column, datasets.List(kind) if several else kind)
        dataset = cast_pictures(dataset, column, decode=True)
    return dataset


def within_folder(dataset: datasets.Dataset, folder: Path) -> datasets.Dataset:
    """Find pictures in the dataset's own `folder`; one whose file lies neither there nor in a cache of downloads goes.

    That is to be refused by name. `datasets` would look for a relative path in the folder that the process was begun
    in, and open any other.
    """
    caches = (datasets.config.HF_DATASETS_CACHE, HF_HUB_CACHE)
    for column in picture_columns(dataset):
        moved: dict[str, str | None] = {}
        for path in files_of(dataset, column):
            if not os.path.isabs(path) and "://" not in path:  # a URL is refused as no file
                moved[path] = inside(folder, path)
            elif os.path.isabs(path) and not any(inside(root, path) for root in (folder, *caches)):
                moved[path] = None
        if moved:
            stored = cast_pictures(dataset, column, decode=False)
            left = UNNAMED if column == "image" and "images" in dataset.column_names else None
            chosen = {"column": column, "places": moved, "left": left}
            dataset = stored.map(_moved, fn_kwargs=chosen, features=dataset.features)
    return dataset


def _moved(row: dict, column: str, places: dict[str, str | None], left: dict | None) -> dict:
    def found(image: dict | None) -> dict | None:
        if not image or image["bytes"] is not None or image["path"] not in places:
            return image
        place = places[image["path"]]
        return left if place is None else {**image, "path": place}

    return {column: list(map(found, row[column])) if isinstance(row[column], list) else found(row[column])}
