"""Whatever splits a dataset has -> the rows to train, to validate and to test on, always by image."""

from collections.abc import Mapping
from itertools import chain
from typing import Any

import datasets
from accelerate import PartialState

from ..models.upstream import cast_pictures
from .conventions import PROBLEM, SPLIT, Row
from .errors import BadRow, DataError
from .images import images_of
from .loading import apart
from .pictures import content_id
from .splits import hold_out, hold_out_two

TRAIN, VALIDATION, TEST = ("train", "training", "raw"), ("val", "validation", "valid", "dev"), ("test", "testing")
SAME = (TRAIN, VALIDATION, TEST)  # names of one part
WHOLE = "all"  # what readers call the split of a dataset that has no names for any


def parts_of(
    splits: Mapping[str, datasets.Dataset], settings: Any, seed: int, validation: str = "val"
) -> dict[str, datasets.Dataset]:
    """The parts `train` and `test` of a dataset, whatever splits it has; `validation` where it has one beside them.

    `settings` name two splits (`dataset_train_split`, `dataset_test_split`), `validation` a third, by any of the names
    of `SAME`. Where they name none to test on and the dataset has none, that to validate on is taken; of one with a
    single split, `test_fraction` of its images is held out. Both is said in a line, and so is which splits are not
    read.

    Raises `DataError` where the dataset has not what the settings name, or the two are the same, where they name
    splits of a dataset that has a single one, and where they give a share of what is not divided.
    """
    named = {"dataset_train_split": settings.dataset_train_split, "dataset_test_split": settings.dataset_test_split}
    train, test = (_of_this_name(splits, name or TEST[0]) for name in apart(*named.values()))
    if len(splits) == 1 and (train or WHOLE in splits):
        (name,) = splits
        _refuse_names(settings, name, train)
        rest, held_out = by_image(splits[name], settings.test_fraction, seed)
        _say(f"one split, {name!r}: {len(held_out):,} of its {len(splits[name]):,} rows are held out to test on")
        return {"train": rest, "test": held_out}
    settings.refuse_without_effect("test_fraction", f"there are the splits {', '.join(splits)}")
    if test is None and settings.dataset_test_split is None:
        test = _of_this_name(splits, VALIDATION[0])
        if test is not None:
            _say(f"no split {TEST[0]!r}: {test!r} is tested on")
    for (setting, name), found in zip(named.items(), (train, test), strict=True):
        if found is None:
            have = ", ".join(map(repr, splits))
            raise DataError(f"no split {name or TEST[0]!r}, only {have}: --{setting} names it")
    apart(train, test)
    own = _of_this_name(splits, validation)
    if validated := own not in (None, train, test):
        settings.refuse_without_effect("validation_fraction", f"{own!r} is validated on")
    chosen = {"train": train} | ({"validation": own} if validated else {}) | {"test": test}
    if unread := sorted(splits.keys() - chosen.values()):
        _say(f"not read: {', '.join(map(repr, unread))}")
    return {part: splits[name] for part, name in chosen.items()}


def divided(splits: Mapping[str, datasets.Dataset]) -> dict[str, datasets.Dataset]:
    """The parts of a dataset, of a single one those that its column `split` tells; without that column.

    Rows that could not be read, and do not tell, are trained on, that is, refused there. A column without any word of
    `SAME` is something else, and a line says so. Raises `DataError` where some of its words are of `SAME`, others not.
    """
    bare = {name: rows.remove_columns(SPLIT) if SPLIT in rows.column_names else rows for name, rows in splits.items()}
    ((name, rows),) = splits.items() if len(splits) == 1 else ((WHOLE, None),)
    words = rows[SPLIT][:] if rows is not None and SPLIT in rows.column_names else []
    words = [str("" if word is None else word).strip().lower() for word in words]
    part_of = {word: names[0] for names in SAME for word in names if word in words}
    if not part_of:
        if any(words):
            _say(f"the column {SPLIT!r} is not read: it says {next(filter(None, words))!r}, and names no part")
        return bare
    told: dict[str, list[int]] = {}
    problems = rows[PROBLEM][:] if PROBLEM in rows.column_names else [""] * len(rows)
    for place, (word, problem) in enumerate(zip(words, problems, strict=True)):
        part = TRAIN[0] if problem and not word else part_of.get(word)
        if part is None:
            known = ", ".join(chain.from_iterable(SAME))
            raise DataError(f"the column {SPLIT!r} says {word!r}, and elsewhere {next(iter(part_of))!r}: use {known}")
        told.setdefault(part, []).append(place)
    return {part: bare[name].select(places) for part, places in told.items()}


def three_parts(
    splits: Mapping[str, datasets.Dataset], settings: Any, seed: int, validation: str = "val"
) -> dict[str, datasets.Dataset]:
    """The same, always with `validation`: where a dataset has none, `validation_fraction` of its images.

    Raises `DataError`, too, where a part would have no row.
    """
    if len(splits) == 1 and (WHOLE in splits or _of_this_name(splits, settings.dataset_train_split)):
        ((name, rows),) = splits.items()
        _refuse_names(settings, name, _of_this_name(splits, settings.dataset_train_split))
        _say(f"one split, {name!r}: images to validate and to test on are held out")
        shares = settings.validation_fraction, settings.test_fraction
        parts = hold_out_two(_numbered(rows), *shares, by="images", seed=seed)
        return {part: rows.select(own["row"][:]) for part, own in parts.items()}
    apart(settings.dataset_train_split, validation)
    parts = parts_of(splits, settings, seed, validation)
    if "validation" in parts:
        return parts
    train, validated = by_image(parts["train"], settings.validation_fraction, seed)
    return {"train": train, "validation": validated, "test": parts["test"]}


def by_image(rows: datasets.Dataset, fraction: float, seed: int) -> tuple[datasets.Dataset, datasets.Dataset]:
    """`hold_out` by a row's pictures, or by `image_id` or `img_id` where it has one of each.

    Raises `DataError` where no row would be left, since all share pictures.
    """
    rest, held_out = (part["row"][:] for part in hold_out(_numbered(rows), fraction, by="images", seed=seed))
    if len(held_out) > 1 and not rest and fraction < 1:
        raise DataError(
            f"no part can be held out: each of the {len(rows):,} rows shares a picture with another, and so on to all "
            "of them. Divide them yourself, into train, val and test"
        )
    return rows.select(rest), rows.select(held_out)


def _numbered(rows: datasets.Dataset) -> datasets.Dataset:
    names = [] if "images" in rows.column_names else ["image_id", "img_id"]  # of several pictures: all as one
    known = next((name for name in names if name in rows.column_names), None)
    images = [None if image in (None, "") else str(image) for image in rows[known][:]] if known else _pictures(rows)
    return datasets.Dataset.from_dict({"images": images, "row": list(range(len(rows)))})


def _pictures(rows: datasets.Dataset) -> list[list[str]]:
    columns = [name for name in ("image", "images") if name in rows.column_names]
    for column in columns:
        rows = cast_pictures(rows, column, decode=False)
    return [_names(row) for row in rows.select_columns(columns)]


def _names(row: Row) -> list[str]:
    try:
        return [content_id(image) for image in images_of(row)]
    except (BadRow, OSError):  # to be refused by name, in whichever part
        return []


def _refuse_names(settings: Any, only: str, train: str | None) -> None:
    unread = "dataset_test_split" if train else "dataset_(train|test)_split"
    settings.refuse_without_effect(unread, f"there is one split, {only!r}")


def _of_this_name(splits: Mapping[str, datasets.Dataset], name: str) -> str | None:
    same = next((names for names in SAME if name in names), ())
    return next((known for known in (name, *same) if known in splits), None)


def _say(line: str) -> None:
    if PartialState().is_main_process:
        print(line, flush=True)
