"""One split of a Hub dataset or a local folder, as `datasets` reads it, with what it would not say."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import datasets
from huggingface_hub.constants import HF_HUB_CACHE
from trl import ScriptArguments

from ..models.upstream import cast_pictures
from .errors import DataError, one_line
from .paths import files_of, inside, picture_columns
from .prepared import state_of


def load_split(name: str, config: str | None, split: str, columns: Iterable[str]) -> datasets.Dataset:
    """Load one split of a Hub dataset or local folder, its images not yet decoded.

    An image whose file lies outside of the folder is None. Raises `DataError` if the dataset, the split or one of
    `columns` is missing, or a file of its rows cannot be read.
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
    if split not in dataset:
        raise DataError(f"{name!r} has no split {split!r}, only {', '.join(map(repr, dataset))}")
    require_columns(dataset[split], columns, name)
    return without_outside(dataset[split], folder)


def load_splits(settings: ScriptArguments, columns: Iterable[str]) -> dict[str, datasets.Dataset]:
    """The training and the test split that `settings` name, see `load_split`; `DataError` if they are the same."""
    return {
        split: load_split(settings.dataset_name, settings.dataset_config, split, columns)
        for split in apart(settings.dataset_train_split, settings.dataset_test_split)
    }


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
                    row = json.loads(line.decode("utf-8-sig").strip() or "{}", object_pairs_hook=as_dict)
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"{file}, line {number}: {error}") from error
                if not isinstance(row, dict):
                    raise ValueError(f"{file}, line {number}: its JSON is no object")


UNNAMED = {"bytes": None, "path": ""}  # an image that is refused, where a row with None for it would be a text's


def without_outside(dataset: datasets.Dataset, folder: Path) -> datasets.Dataset:
    """Take away, to be refused by name, pictures whose file lies neither in `folder` nor in a cache of downloads."""
    roots = (folder, datasets.config.HF_DATASETS_CACHE, HF_HUB_CACHE)
    for column in picture_columns(dataset):
        known = files_of(dataset, column)
        outside = {path for path in known if not any(inside(root, os.path.abspath(path)) for root in roots)}
        if outside:
            stored = cast_pictures(dataset, column, decode=False)
            left = UNNAMED if column == "image" and "images" in dataset.column_names else None
            chosen = {"column": column, "paths": outside, "left": left}
            dataset = stored.map(_take_away, fn_kwargs=chosen, features=dataset.features)
    return dataset


def _take_away(row: dict, column: str, paths: set[str], left: dict | None) -> dict:
    def kept(image: dict | None) -> dict | None:
        return left if image and image["bytes"] is None and image["path"] in paths else image

    return {column: list(map(kept, row[column])) if isinstance(row[column], list) else kept(row[column])}
