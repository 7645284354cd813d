"""Questions in tables: CSV, TSV, a JSON list, JSON lines and Parquet, an imagefolder's metadata among them -> rows.

CSV is read by Python's own `csv`: it says at which line a row is broken, and goes on. pandas 3.1, measured, takes the
first column for an index where every row has one cell more than the header has names, fills up a row that is too
short, makes one question of four lines after a quote that is left open, and reads nothing where one row is too long.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq

from ..conventions import SPLIT, Row
from ..errors import BadRow, DataError
from . import vqa_rad
from .from_records import Find, as_text, dataset_from, prepared_splits
from .parquet import open_table, records_of, with_bytes
from .read import PICTURE, QUESTIONS, TEXT, Read
from .records import BEGINNING, JSON, Record, files_by_split, first_record, found_in, json_file

TITLE = "a table of questions"
PICTURES = "image image_path image_file image_name file_name filename file img img_path picture".split()
IDS, IMAGE_IDS = ("id", "qid", "question_id"), ("image_id", "img_id")
KEPT = ("question_type", "answer_type", "kind")
COLUMNS = {**QUESTIONS, "image": PICTURE, **dict.fromkeys(KEPT, TEXT)}
OWN = {"question", "answer", SPLIT, *KEPT, *IDS, *IMAGE_IDS}  # columns of a table that are texts
DUE = f"the columns question, answer and one of {', '.join(PICTURES)}"
SEPARATORS = (",", ";", "\t")
ENDINGS = (".csv", ".tsv", ".parquet", *JSON)
BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16, as spreadsheets write "Unicode text"


def recognises(place: Path) -> bool:
    """Whether there is a table with `DUE`, which is not VQA-RAD's own file."""
    return found_in(place, ENDINGS, _fits) and not vqa_rad.recognises(place)


def read_questions(place: Path) -> Read:
    """Rows `{id, image_id, question, answer, image}` and, where a table has them, of `KEPT`; see `DUE`.

    Names of columns may be written in capitals. Texts are as they stand in the table ("NA", "01"); numbers, true and
    false of JSON and Parquet as JSON writes them. A picture is found by its path in the folder of its table, in the
    dataset's folder or in `images` there; in Parquet it may be a file's bytes, which are not copied. `image_id` is the
    table's own (`IMAGE_IDS`), or the path in the dataset's folder, or the hash of the bytes; `id` too (`IDS`), or
    "questions.csv, line 12", behind an `image_id` of the table's own: "bowl 7 (questions.csv, line 12)".
    """
    splits = prepared_splits(TITLE, place, files_by_split(place, ENDINGS, _fits, DUE), _read)
    pictures = {name for rows in splits.values() for name in rows.unique("image_id")} - {None}
    return Read(splits, f"{sum(map(len, splits.values())):,} questions, {len(pictures):,} images")


def _read(root: Path, files: Sequence[Path], scratch: Path) -> datasets.Dataset:
    ending = files[0].suffix.lower()
    if ending in JSON:
        return dataset_from(root, files, json_file, _question, COLUMNS)
    if ending != ".parquet":
        return dataset_from(root, files, _csv_records, _question, COLUMNS)
    tables = {file: open_table(file, scratch / str(number)) for number, file in enumerate(files)}
    known = partial(records_of, texts=OWN, pictures=PICTURES)
    rows = dataset_from(root, files, lambda file: known(tables[file]), _question, COLUMNS)
    return with_bytes(rows, tables.values(), PICTURES)


def _fits(file: Path) -> bool:
    columns = {name.strip().lower() for name in _names(file)}
    return {"question", "answer"} <= columns and not columns.isdisjoint(PICTURES)


def _names(file: Path) -> Sequence[str]:
    """The names of a table's columns; none where it cannot be read."""
    try:
        if file.suffix.lower() == ".parquet":
            return pq.read_schema(file).names
        if file.suffix.lower() in JSON:
            return list(first_record(file))
        with file.open("rb") as stream:
            return _header(_as_text(io.BytesIO(stream.read(BEGINNING))))[0]
    except (OSError, ValueError, csv.Error):  # pyarrow's errors are ValueErrors
        return []


def _question(record: Mapping[str, Any], find: Find) -> Iterator[Row]:
    record = {name.strip().lower(): value for name, value in reversed(record.items())}
    for column, keys in (("image_id", IMAGE_IDS), ("id", IDS)):
        yield {column: next(filter(None, (as_text(key, record.get(key)) for key in keys)), "")}
    key = next((key for key in PICTURES if record.get(key)), "")
    name = record.get(key)
    if isinstance(name, bytes):  # its hash: the picture itself stays where it is
        yield {"picture": name.decode()}
    elif key:
        image, picture = find(as_text(key, name))
        yield {"image": image, "picture": picture}
    if missing := [name for name in ("question", "answer") if name not in record]:
        raise BadRow(f"no {missing[0]!r}")
    texts = {name: as_text(name, value) for name, value in record.items() if name in OWN}
    yield {name: text for name, text in texts.items() if name in QUESTIONS or name in KEPT and text}


# --- CSV


def _as_text(stream: Any) -> io.TextIOWrapper:
    """Bytes that are no UTF-8 are left in the text, so that the cell that they are in is refused."""
    encoding = "utf-16" if stream.read(2) in BYTE_ORDER_MARKS else "utf-8-sig"
    stream.seek(0)
    return io.TextIOWrapper(stream, encoding=encoding, errors="surrogateescape", newline="")


def _header(text: io.TextIOWrapper) -> tuple[list[str], str]:
    """The names of a table's columns, and what separates them: that of `SEPARATORS` which gives the most."""
    headers = []
    for separator in SEPARATORS:
        text.seek(0)
        headers.append((next(csv.reader(text, delimiter=separator), []), separator))
    return max(headers, key=lambda header: len(header[0]))


def _csv_records(file: Path) -> Iterator[Record]:
    with file.open("rb") as stream:
        text = _as_text(stream)
        header, separator = _header(text)
        if twice := [name for name in header if name and header.count(name) > 1]:
            raise DataError(f"two columns are called {twice[0]!r}")
        text.seek(0)
        table = csv.reader(text, delimiter=separator, strict=True)
        try:
            next(table)
        except csv.Error as error:
            raise DataError(f"the names of its columns: {error}") from error
        while True:
            first = table.line_num + 1
            try:
                if cells := next(table, None):
                    problem = f"{len(cells)} cells, where the header has {len(header)}: is a text without its quotes?"
                    record = dict(zip(header, cells, strict=False))
                    yield f", line {first}", record, problem if len(cells) != len(header) else ""
                elif cells is None:
                    return
            except csv.Error as error:
                if table.line_num > first:  # which may have swallowed other rows
                    raise DataError(f"lines {first} to {table.line_num}: {error}: is a quote left open?") from error
                yield f", line {first}", {}, f"{error}: a quote in a text is written twice"
