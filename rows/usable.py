"""A dataset -> rows that can be trained on. What cannot is refused here, by name, before the first step."""

import json
from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import torch
from accelerate import PartialState
from PIL import Image

from ..models.upstream import cast_pictures, fingerprint
from .beside import beside
from .check import UNUSABLE, check_row
from .conventions import Row
from .errors import DataError, one_line, start_of
from .paths import files_of, picture_columns
from .prepared import prepared, processes_for, state_of_files

OF_REFUSED = ID, REASON = "id of the row", "refused because"  # columns that no adapter's row has
BATCH = 500  # rows checked at once


def usable_rows(
    splits: dict[str, datasets.Dataset],
    adapt: Callable[[Row], Row],
    output_dir: str,
    max_rejected: float,
    num_proc: int | None = None,
) -> tuple[list[datasets.Dataset], list[Row]]:
    """Adapt every row and check its picture or pictures; return each split's usable rows, and all refused ones.

    `adapt` gets the row with the `id` that it is refused by and its `image` undecoded with `image_size`, `[width,
    height]` in pixels as displayed (EXIF rotation applied); or, where a split has a column `images`, all of the row's
    pictures as this list, one under `image` included, with `image_ids` and `image_sizes`. It returns the new row and
    raises `BadRow` (or another of `UNUSABLE`) for one it cannot use. Pictures are carried over untouched and decoded
    when a row is read; `image_hash` or `image_hashes` is what
    `vlm_recipes.rows.pictures.inspect_picture` found.
    A row whose `image_id` names another picture of its part is refused: questions are grouped by it.
    What has been checked is found by the next start, and by all other processes, see `vlm_recipes.rows.prepared`.
    Refused rows are `{split, id, reason}`, also written to `rejected.jsonl` in `output_dir`, one a line.

    Raises `DataError` if no row is usable, or if more than `max_rejected` of them (a share, 0–1) are not, and if
    `images` are no pictures.
    """
    for split, dataset in splits.items():
        if not len(dataset):
            raise DataError(f"{split!r} has no rows")
    stored = {split: _undecoded(dataset, split) for split, dataset in splits.items()}
    several = any("images" in columns for columns, _ in stored.values())
    what = [*(_known_by(dataset) for _, dataset in stored.values()), several, adapt, Image.MAX_IMAGE_PIXELS]
    checked = prepared(what, partial(_check, stored, several, adapt, num_proc))
    usable, refused, end = [], [], 0
    for split, (columns, dataset) in stored.items():
        begin, end = end, end + len(dataset)
        rows = checked.select(range(begin, end))
        reasons = rows.select_columns(list(OF_REFUSED))[:]
        for i in _of_another_picture(rows, reasons[REASON]):
            named = f"its image_id {start_of(rows[i]['image_id'])} is that of another picture"
            reasons[REASON][i] = f"{named}: each picture needs one of its own"
        bad = [
            {"split": split, "id": row_id, "reason": why} for row_id, why in zip(*reasons.values(), strict=True) if why
        ]
        rows = beside(rows.remove_columns(list(OF_REFUSED)), dataset.select_columns(columns))
        if bad:
            rows = rows.select([i for i, reason in enumerate(reasons[REASON]) if not reason])
        usable.append(reduce(partial(cast_pictures, decode=True), columns, rows))
        refused += bad
    if PartialState().is_main_process:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in refused)
        (Path(output_dir) / "rejected.jsonl").write_text(lines, encoding="utf-8")
    total = sum(map(len, splits.values()))
    example = f", for example {refused[0]['id']!r}: {refused[0]['reason']}" if refused else ""
    for split, rows in zip(splits, usable, strict=True):
        if not len(rows):
            raise DataError(f"no row of {split!r} can be used ({len(splits[split]):,} refused){example}")
    if len(refused) > max_rejected * total:
        raise DataError(
            f"{len(refused):,} of {total:,} rows were refused, more than max_rejected={max_rejected:g} allows; "
            f"see {output_dir}/rejected.jsonl{example}"
        )
    return usable, refused


def _of_another_picture(rows: datasets.Dataset, reasons: list[str]) -> list[int]:
    """The rows whose `image_id` another one of this part, not refused, has before them for another picture."""
    if not {"image_id", "image_hash"} <= set(rows.column_names):
        return []
    shown = rows.select_columns(["image_id", "image_hash"]).to_pandas()[[not reason for reason in reasons]]
    first = shown.groupby("image_id")["image_hash"].transform("first")
    return shown.index[first.notna() & (first != shown["image_hash"])].tolist()


def _undecoded(dataset: datasets.Dataset, split: str) -> tuple[list[str], datasets.Dataset]:
    """The columns of a dataset's pictures, and its rows with the files in them, or their bytes, as they are."""
    keys = [name for name in ("image", "images") if name in dataset.column_names]
    columns = [name for name in keys if not _is_empty(dataset.features[name])] or keys[-1:]
    if not columns:
        raise DataError(f"{split!r} has no column 'image' or 'images', only {', '.join(dataset.column_names)}")
    dataset = dataset.remove_columns([name for name in keys if name not in columns])
    if "images" in columns and not isinstance(getattr(dataset.features["images"], "feature", None), datasets.Image):
        raise DataError(f"'images' of {split!r} has {dataset.features['images']}, and no lists of pictures")
    return columns, reduce(partial(cast_pictures, decode=False), columns, dataset.with_format(None))


def _is_empty(feature: Any) -> bool:
    """Whether a column has nothing but None or empty lists, as one of another split's keys may."""
    return getattr(feature, "feature", feature) == datasets.Value("null")


def _known_by(dataset: datasets.Dataset) -> list[str]:
    """What names the rows of a dataset: what they were made from, and the files that they name as these are now."""
    files = [file["filename"] for file in dataset.cache_files]
    named = [path for column in picture_columns(dataset) for path in files_of(dataset, column)]
    return [fingerprint(dataset), *files, state_of_files(named)]


def _check(
    stored: dict[str, tuple[list[str], datasets.Dataset]],
    several: bool,
    adapt: Callable[[Row], Row],
    num_proc: int | None,
    folder: Path,
) -> datasets.Dataset:
    """All rows of all splits as `check_row` finds them, and `OF_REFUSED`, of types that hold for every one."""
    tables = []
    for number, (split, (columns, dataset)) in enumerate(stored.items()):
        checked = dataset.with_format("arrow").map(
            partial(_check_some, adapt=adapt, columns=columns, several=several, features=dataset.features),
            with_indices=True,
            with_rank=True,
            batched=True,
            batch_size=BATCH,
            remove_columns=dataset.column_names,
            num_proc=processes_for(len(dataset), num_proc),
            cache_file_name=str(folder / f"{number}.arrow"),
            features=datasets.Features({"table": datasets.Value("large_binary")}),
            new_fingerprint=f"checked{number}",
            desc=f"checking {split}",
        )
        chunks = checked.data.column("table").chunks
        tables += [pa.ipc.open_stream(table.as_buffer()).read_all() for chunk in chunks for table in chunk]
    try:
        return datasets.Dataset(pa.concat_tables(tables, promote_options="permissive"), fingerprint="checked")
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        raise DataError(f"the rows differ in what a column holds: {one_line(str(error))}") from error


def _check_some(
    table: pa.Table,
    numbers: list[int],
    rank: int | None,
    adapt: Callable[[Row], Row],
    columns: list[str],
    several: bool,
    features: datasets.Features,
) -> dict[str, list[bytes]]:
    """Some rows as `check_row` finds them: a table in Arrow's own format, with the types that these rows have."""
    if rank is not None:
        torch.set_num_threads(1)  # threads that were begun before the fork are not there to be waited for
    pictures = {column: table.column(column) for column in columns}
    rows = []
    for i, (number, row) in enumerate(zip(numbers, table.drop_columns(columns).to_pylist(), strict=True)):
        row |= {column: own[i].as_py() for column, own in pictures.items()}  # one by one: they are the most of it
        rows.append(check_row(row, number, adapt, features, several))
    try:
        made = _as_table(rows)
    except UNUSABLE:  # a lone surrogate, or a number of 100 digits
        made = _as_table([_if_it_can_be_kept(*row) for row in rows])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, made.schema) as stream:
        stream.write_table(made)
    return {"table": [sink.getvalue().to_pybytes()]}


def _as_table(rows: list[tuple[str, str, Row]]) -> pa.Table:
    columns = {key: [row.get(key) for _, _, row in rows] for key in {key: None for _, _, row in rows for key in row}}
    refused = {ID: [row_id for row_id, _, _ in rows], REASON: [reason for _, reason, _ in rows]}
    return pa.table({key: pa.array(values) for key, values in (refused | columns).items()})


def _if_it_can_be_kept(row_id: str, reason: str, row: Row) -> tuple[str, str, Row]:
    try:
        _as_table([(row_id, reason, row)])
        return row_id, reason, row
    except UNUSABLE as error:
        return one_line(row_id), one_line(f"{type(error).__name__}: {error}"), {}
