"""A dataset in any format -> its splits: recognised by what is in its folder or file, else read by `datasets`."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
from accelerate import PartialState

from .beside import beside
from .boxes import BoxFormat, categories_of, is_without_boxes
from .errors import DataError
from .formats import coco, conversations, labelme, messages, pairs, reasonseg, tables, voc, vqa_rad, yolo
from .formats.objects import with_objects
from .formats.read import Read
from .formats.records import described
from .loading import apart, load_all, require_columns
from .parts import divided, parts_of

FORMATS = {  # those with a function `read_<kind>`, in the order in which they are asked
    "boxes": (coco, yolo, voc, labelme),
    "questions": (vqa_rad, tables),
    "chats": (conversations, messages),
    "masks": (reasonseg, coco, labelme, pairs),
}
BY_DATASETS = "datasets"  # as `datasets.load_dataset` reads it


def name_of(reader: ModuleType) -> str:
    """What `--dataset_format` calls a format: its file's name."""
    return reader.__name__.rpartition(".")[2]


NAMES = (BY_DATASETS, *dict.fromkeys(name_of(reader) for readers in FORMATS.values() for reader in readers))


def read_rows(kind: str, settings: Any, columns: Iterable[str]) -> Read:
    """All splits of a dataset with rows of one of the kinds of `FORMATS`; the main process says as what it was read.

    Args:
        settings: a recipe's, with `dataset_name`, `dataset_config` and `dataset_format`: the latter, one of `NAMES`,
            is needed where a folder fits two.
        columns: that a dataset which `datasets` reads has to have; of others the reader sees to it.

    Raises `DataError` where nothing can be read, and for a folder that fits two formats.
    """
    apart(settings.dataset_train_split, settings.dataset_test_split)  # before anything is read
    place, asked = Path(settings.dataset_name), settings.dataset_format
    readers = {name_of(reader): reader for reader in FORMATS[kind]}
    if asked not in (None, BY_DATASETS, *readers):
        raise DataError(f"--dataset_format {asked} has no {kind}: one of {', '.join((*readers, BY_DATASETS))}")
    fitting = [asked] if asked in readers else []
    if asked is None and place.exists():
        fitting = [name for name, reader in readers.items() if reader.recognises(place)]
    if len(fitting) > 1:
        titles = " and ".join(readers[name].TITLE for name in fitting)
        raise DataError(f"{str(place)!r} fits {titles}: name one, --dataset_format {' or '.join(fitting)}")
    if asked is None and not fitting and place.is_file():
        titles = ", ".join(f"{name} ({reader.TITLE})" for name, reader in readers.items())
        raise DataError(f"{str(place)!r} is none of {titles}: --dataset_format and one of them says what is due")
    if not fitting:
        try:
            splits = load_all(settings.dataset_name, settings.dataset_config)
            for rows in splits.values():
                require_columns(rows, columns, settings.dataset_name)
        except DataError as error:  # the file that has them may be broken, so that it was not recognised
            due = f"; --dataset_format {' or '.join(readers)} says what a dataset here has to have"
            raise DataError(f"{error}{described(place)}{due if place.exists() else ''}") from error
        splits = divided(splits)
        return Read({split: _with_ids(rows) for split, rows in splits.items()} if kind == "questions" else splits, "")
    if not place.exists():
        raise DataError(f"there is no folder or file {str(place)!r}")
    reader = readers[fitting[0]]
    settings.refuse_without_effect("dataset_config", f"{reader.TITLE} has no configurations")
    found = getattr(reader, f"read_{kind}")(place)
    found = replace(found, splits=divided(found.splits))
    if PartialState().is_main_process:
        print(f"read as {reader.TITLE}: {found.counts}", flush=True)
    return found


def _with_ids(rows: datasets.Dataset) -> datasets.Dataset:
    """Questions without a name of their own are numbered beside their image's: the same may be asked twice of it."""
    image = next((name for name in ("image_id", "img_id") if name in rows.column_names), None)
    if image is None or {"id", "qid"} & set(rows.column_names):
        return rows
    names = ("no image" if name in (None, "") else name for name in rows[image][:])
    ids = [f"{name}#{number}" for number, name in enumerate(names)]
    return beside(datasets.Dataset.from_dict({"id": ids}), rows)


def read_boxes(
    settings: Any, columns: Iterable[str], seed: int, known: str
) -> tuple[dict[str, datasets.Dataset], BoxFormat, list[str]]:
    """What `parts_of` finds of a dataset with `objects`, how it gives boxes, and the categories to train on.

    Args:
        settings: as for `read_rows`, with `box_format` and `box_unit`.
        known: a dataset of which it is known that its boxes are `BoxFormat()`.

    A split in which no picture has a box, such as a test part whose labels are kept back, is not read, and a line says
    so. Raises `DataError` where that is all splits.
    """
    found = read_rows("boxes", settings, columns)
    splits = {split: with_objects(rows) for split, rows in found.splits.items()}
    if empty := [split for split, rows in splits.items() if is_without_boxes(rows)]:
        if len(empty) == len(splits):
            raise DataError(f"{settings.dataset_name!r} has no box in any picture: are its labels where they are due?")
        PartialState().print(f"not read, as no picture there has a box: {', '.join(map(repr, empty))}", flush=True)
    parts = parts_of({split: rows for split, rows in splits.items() if split not in empty}, settings, seed)
    return parts, BoxFormat.given(settings, found.boxes, settings.dataset_name == known), categories_of(parts["train"])
