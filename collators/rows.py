"""A dataset -> rows that can be trained on. What cannot is refused here, by name, before the first step."""

import json
import random
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from accelerate import PartialState

from collators.folders import cache_of, check_lines, without_outside
from collators.images import BadRow, look_at

Row = dict[str, Any]
# What an adapter or json may raise over a row: `None.strip()` and `int(inf)` are as much the row's fault as a BadRow.
UNUSABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, OSError, SyntaxError, RecursionError)
LONGEST_REASON = 500  # characters


class DataError(ValueError):
    """The dataset as a whole cannot be used; the message says why and what to do."""


def load_split(name: str, config: str | None, split: str, columns: Iterable[str]) -> datasets.Dataset:
    """Load one split of a Hub dataset or local folder, its images not yet decoded.

    An image whose file lies outside of the folder is None. Raises `DataError` if the dataset, the split or one of
    `columns` is missing, or a file of its rows cannot be read.
    """
    folder = Path(name)
    try:
        if folder.is_dir():
            check_lines(folder)
        dataset = datasets.load_dataset(name, config, cache_dir=cache_of(folder) if folder.is_dir() else None)
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


def require_columns(dataset: datasets.Dataset, columns: Iterable[str], name: str) -> None:
    """Raise `DataError` if `dataset` lacks one of `columns`."""
    if missing := [column for column in columns if column not in dataset.column_names]:
        raise DataError(f"{name!r} has no column {missing[0]!r}, only {', '.join(map(repr, dataset.column_names))}")


def usable_rows(
    splits: dict[str, datasets.Dataset],
    adapt: Callable[[Row], Row],
    output_dir: str,
    max_rejected: float,
    num_proc: int | None = None,
) -> tuple[list[datasets.Dataset], list[Row]]:
    """Adapt every row and check its image; return each split's usable rows, and all refused ones.

    `adapt` gets the row with its `image` undecoded and `image_size`, `[width, height]` in pixels as displayed (EXIF
    rotation applied); it returns the new row with at least `id` and raises `BadRow` (or another of `UNUSABLE`) for
    one it cannot use. The image column is carried over untouched and decoded when a row is read; `image_hash` is what
    `collators.images.look_at` found.
    Refused rows are `{split, id, reason}`, also written to `rejected.jsonl` in `output_dir`, one a line.

    Raises `DataError` if no row is usable, or if more than `max_rejected` of them (a share, 0–1) are not.
    """
    usable, refused = [], []
    for split, dataset in splits.items():
        rows, bad = _check(dataset, adapt, split, num_proc)
        usable.append(rows)
        refused += bad
    if PartialState().is_main_process:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in refused)
        (Path(output_dir) / "rejected.jsonl").write_text(lines, encoding="utf-8")
    total = sum(map(len, splits.values()))
    example = f", for example {refused[0]['id']!r}: {refused[0]['reason']}" if refused else ""
    for split, rows in zip(splits, usable, strict=True):
        if not len(rows):
            raise DataError(f"none of the {len(splits[split])} rows of {split!r} can be used{example}")
    if len(refused) > max_rejected * total:
        raise DataError(
            f"{len(refused)} of {total} rows were refused, more than max_rejected={max_rejected:g} allows; "
            f"see {output_dir}/rejected.jsonl{example}"
        )
    return usable, refused


def _check(
    dataset: datasets.Dataset, adapt: Callable[[Row], Row], split: str, num_proc: int | None
) -> tuple[datasets.Dataset, list[Row]]:
    dataset = dataset.cast_column("image", datasets.Image(decode=False))
    if not len(dataset):
        return dataset, []
    checked = dataset.map(
        partial(_adapt, adapt=adapt),
        with_indices=True,
        remove_columns=dataset.column_names,
        num_proc=num_proc,
        desc=f"checking {split}",
    )
    usable = [i for i, reason in enumerate(checked["refused"]) if not reason]
    refused = [
        {"split": split, "id": row["id"], "reason": row["refused"]}
        for row in checked.select_columns(["id", "refused"])
        if row["refused"]
    ]
    if not usable:
        return dataset.select([]), refused
    columns = {key: None for row in map(json.loads, checked["row"]) if row for key in row}
    adapted = checked.map(
        lambda row: {**columns, **(json.loads(row["row"]) or {})},
        remove_columns=checked.column_names,
        writer_batch_size=len(checked),  # the types come from the first batch: 1,000 refused rows would have none
    )
    # Side by side before the selection, so that the images are not written a second time.
    rows = datasets.concatenate_datasets([adapted, dataset.select_columns("image")], axis=1).select(usable)
    return rows.cast_column("image", datasets.Image()), refused


def _adapt(row: Row, index: int, adapt: Callable[[Row], Row]) -> Row:
    row_id = next((row[key] for key in ("id", "image_id", "qid") if row.get(key) is not None), f"row {index}")
    try:
        size, image_hash = look_at(row["image"])
        adapted = {**adapt({**_decoded(row), "image_size": size}), "image_hash": image_hash}
        text, reason = _as_json({key: value for key, value in adapted.items() if key != "image"}), ""
    except BadRow as error:
        text, reason = "null", str(error) or "refused without a reason"
    except UNUSABLE as error:
        text, reason = "null", f"{type(error).__name__}: {error}"
    return {"id": str(row_id), "refused": one_line(reason), "row": text}


def _decoded(row: Row) -> Row:
    """A row with its other pictures, such as a mask."""
    try:
        return {**row}
    except Exception as error:  # decoders raise anything, as in `check_image`
        raise BadRow(f"a picture beside the image cannot be read: {error}") from error


def _as_json(row: Row) -> str:
    text = json.dumps(row, ensure_ascii=False)
    text.encode()  # a ValueError for half a surrogate pair, which JSON can spell and no dataset can hold
    return text


def one_line(text: str) -> str:
    """A text as one line to print: what no terminal shows, or what turns its line around, is spelt out."""
    shown = text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in shown)


def start_of(text: str) -> str:
    """What an error shows of a value."""
    return repr(text if len(text) <= 60 else text[:59] + "…")


def hold_out(dataset: datasets.Dataset, fraction: float, by: str, seed: int) -> tuple[datasets.Dataset, ...]:
    """Split off about `fraction` of the groups that share a value in the column `by`, at least one if `fraction` > 0.

    Returns `(rest, held out)`; no group is in both. The draw depends on the groups' names and the seed alone.
    """
    keys = dataset[by]
    groups = sorted(set(keys), key=lambda key: (key is not None, key))  # rows without one are a group
    random.Random(seed).shuffle(groups)
    held = set(groups[: max(1, round(fraction * len(groups)))] if fraction > 0 else [])
    return tuple(
        dataset.select([i for i, key in enumerate(keys) if (key in held) is wanted]) for wanted in (False, True)
    )
