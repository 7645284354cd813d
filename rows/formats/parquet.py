"""Parquet's columns of texts and pictures, whose bytes stay where they are."""

import itertools
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import DataError
from ..pictures import content_id
from .records import Record

PARTS = ["bytes", "path"]  # of a picture
SOME = 1000  # rows that are Python's objects at once


def open_table(file: Path, cache: Path) -> datasets.Dataset:
    """A file's rows, read from the disk where they are needed; `DataError` for one that is broken."""
    try:
        return datasets.Dataset.from_parquet(str(file), cache_dir=str(cache))
    except Exception as error:  # builders raise anything
        raise DataError(f"{str(file)!r} cannot be read as Parquet: {error.__cause__ or error}") from error


def _pictures_of(table: datasets.Dataset, known: Sequence[str]) -> pa.ChunkedArray:
    """The first of a table's `known` columns of pictures: paths, files' bytes, or both as `{"bytes", "path"}`."""
    names = [name for name in table.column_names if name.strip().lower() in known]
    return table.data.table.column(min(names, key=lambda name: known.index(name.strip().lower())))


def _parts(pictures: pa.ChunkedArray | pa.Array) -> tuple[Any, Any]:
    """The bytes and the paths of pictures, either None where a table has no such column; nothing is copied."""
    kind = pictures.type
    if pa.types.is_struct(kind):
        return tuple(pc.struct_field(pictures, name) if kind.get_field_index(name) >= 0 else None for name in PARTS)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return pictures, None
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return None, pictures
    raise DataError(f"its pictures are of the type {kind}: paths, bytes, or both as {{bytes, path}} are due")


def records_of(table: datasets.Dataset, texts: Set[str], pictures: Sequence[str]) -> Iterator[Record]:
    """A table's columns `texts`, the names of classes where it has numbers, and `image`, of the columns `pictures`.

    This is the picture's path, or, as bytes, the hash of a picture that is in the table itself.
    """
    shown = _pictures_of(table, pictures)
    columns = [name for name in table.column_names if name.strip().lower() in texts]
    labels = {name: table.features[name] for name in columns if isinstance(table.features[name], datasets.ClassLabel)}
    for begin in range(0, len(table), SOME):
        data, paths = _parts(shown.slice(begin, SOME))
        for place, row in enumerate(table.data.table.select(columns).slice(begin, SOME).to_pylist()):
            row |= {name: of.int2str(row[name]) for name, of in labels.items() if row[name] is not None}
            path = paths[place].as_py() if paths is not None else None
            file = data[place].as_buffer() if data is not None else None
            row["image"] = content_id({"bytes": file}).encode() if file else path
            yield f", row {begin + place + 1}", row, ""


def with_bytes(rows: datasets.Dataset, tables: Iterable[datasets.Dataset], known: Sequence[str]) -> datasets.Dataset:
    """`rows` of these tables with the bytes of their pictures, of which no copy is made."""
    found = iter(rows["image"])
    chunks = []
    for pictures in (chunk for table in tables for chunk in _pictures_of(table, known).chunks):
        data, _ = _parts(pictures)
        paths = [(image or {}).get("path") for image in itertools.islice(found, len(pictures))]
        data = pa.nulls(len(pictures), pa.binary()) if data is None else data
        chunks.append(pa.StructArray.from_arrays([data, pa.array(paths, pa.string())], names=PARTS))
    whole = rows.data.table
    whole = whole.set_column(whole.column_names.index("image"), "image", pa.chunked_array(chunks))
    return datasets.Dataset(whole, info=datasets.DatasetInfo(features=rows.features), fingerprint="tables")
