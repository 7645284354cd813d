"""A dataset -> rows that can be trained on. What cannot is refused here, by name, before the first step."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import datasets
from accelerate import PartialState

from ..models.upstream import cast_pictures
from .conventions import Row
from .errors import BadRow, DataError, one_line
from .pictures import content_id, inspect_picture

# What an adapter or json may raise over a row: `None.strip()` and `int(inf)` are as much the row's fault as a BadRow.
UNUSABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, OSError, SyntaxError, RecursionError)


def usable_rows(
    splits: dict[str, datasets.Dataset],
    adapt: Callable[[Row], Row],
    output_dir: str,
    max_rejected: float,
    num_proc: int | None = None,
) -> tuple[list[datasets.Dataset], list[Row]]:
    """Adapt every row and check its picture or pictures; return each split's usable rows, and all refused ones.

    `adapt` gets the row with the `id` that it is refused by and its `image` undecoded with `image_size`, `[width,
    height]` in pixels as displayed (EXIF rotation applied), or `images`, a list, with `image_ids` and `image_sizes`;
    it returns the new row and raises `BadRow` (or another of `UNUSABLE`) for one it cannot use. Pictures are carried
    over untouched and decoded when a row is read; `image_hash` or `image_hashes` is what
    `vlm_recipes.rows.pictures.inspect_picture` found.
    Processes of one machine take turns, so that all but the first find what it has made.
    Refused rows are `{split, id, reason}`, also written to `rejected.jsonl` in `output_dir`, one a line.

    Raises `DataError` if no row is usable, or if more than `max_rejected` of them (a share, 0–1) are not, and if
    `images` are no pictures.
    """
    usable, refused = [], []
    with PartialState().local_main_process_first():
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
    column = "images" if "images" in dataset.column_names and "image" not in dataset.column_names else "image"
    if column == "images" and not isinstance(getattr(dataset.features[column], "feature", None), datasets.Image):
        raise DataError(f"'images' of {split!r} has {dataset.features[column]}, and no lists of pictures")
    dataset = cast_pictures(dataset, column, decode=False)
    if not len(dataset):
        return dataset, []
    checked = dataset.map(
        partial(check_row, adapt=adapt),
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
    rows = datasets.concatenate_datasets([adapted, dataset.select_columns(column)], axis=1).select(usable)
    return cast_pictures(rows, column, decode=True), refused


def check_row(row: Row, index: int, adapt: Callable[[Row], Row]) -> Row:
    """Adapt one row and check its picture or pictures, undecoded as `{"bytes", "path"}`, see `usable_rows`.

    Returns its `id`, why it is `refused` ("" where it is not), and as `row` what it became, in JSON, without pictures.
    """
    row_id = next((row[key] for key in ("id", "image_id", "qid") if row.get(key) is not None), f"row {index}")
    try:
        sizes, hashes = _inspected(row)
        adapted = {"id": str(row_id), **sizes, **adapt({**_decoded(row), "id": row_id, **sizes}), **hashes}
        adapted = {key: value for key, value in adapted.items() if key not in ("image", "images")}
        text, reason = json.dumps(adapted, ensure_ascii=False), ""
        text.encode()  # a ValueError for half a surrogate pair, which JSON can spell and no dataset can hold
    except BadRow as error:
        text, reason = "null", str(error) or "refused without a reason"
    except UNUSABLE as error:
        text, reason = "null", f"{type(error).__name__}: {error}"
    return {"id": str(row_id), "refused": one_line(reason), "row": text}


def _inspected(row: Row) -> tuple[Row, Row]:
    """The size of a row's picture and its hash, or those of its pictures; a fault of one of several has its place."""
    if "image" in row:
        size, image_hash = inspect_picture(row["image"])
        return {"image_size": size}, {"image_hash": image_hash}
    found = []
    for number, image in enumerate(row["images"] or (), start=1):
        try:
            found.append(inspect_picture(image))
        except BadRow as error:
            raise BadRow(f"{error} (picture {number} of {len(row['images'])})") from error
    named = {"image_ids": [content_id(image) for image in row["images"] or ()]}
    return {**named, "image_sizes": [size for size, _ in found]}, {"image_hashes": [one for _, one in found]}


def _decoded(row: Row) -> Row:
    """A row with its other pictures, such as a mask."""
    try:
        return {**row}
    except Exception as error:  # decoders raise anything, as in `inspect_picture`
        raise BadRow(f"a picture beside the image cannot be read: {error}") from error
