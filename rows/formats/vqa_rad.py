"""VQA-RAD's original JSON, one list of questions beside a folder of images -> rows."""

import json
import math
from pathlib import Path
from typing import Any

import datasets

from ..conventions import PROBLEM
from ..errors import BadRow, DataError, start_of
from ..loading import require_columns
from ..paths import inside
from .read import Read
from .records import JSON, first_record, found_in, root_of

TITLE = "VQA-RAD's original JSON"
# A question that begins so wants yes or no, or one of two things that it names.
CLOSED = set("am are can could did do does had has have is may might should was were will would".split())
TEXTS = ("qid", "image_name", "question", "answer", "answer_type", "question_type", "phrase_type")
# VQA-RAD's and SLAKE's words, and VQA v2's: whether a question is closed.
ANSWER_TYPES = {"closed": True, "open": False, "yes/no": True, "number": False, "other": False}
OWN = {"qid", "image_name", "phrase_type"}  # of `TEXTS`: other lists of questions have none of them together


def recognises(place: Path) -> bool:
    """Whether there is VQA-RAD's list of questions, whose pictures are in `images` beside it."""
    return found_in(place, JSON[:1], _is_original)


def read_questions(place: Path) -> Read:
    """The rows of `load_question_file`, with `id` and `image_id` as all readers give them, split by `official_split`.

    Raises `DataError` if there is no such file, or two of them.
    """
    root = root_of(place)
    there = [place] if place.is_file() else sorted(place.glob("*.json"))
    files = list(filter(_is_original, there))
    files = files or [file for file in there if not first_record(file)]  # of a broken one it is said what is wrong
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise DataError(f"{str(place)!r} has to have one file of VQA-RAD's questions: {found}")
    rows = load_question_file(files[0], root / "images")
    images = len(rows.unique("image_name"))
    rows = rows.add_column("id", rows["qid"][:]).add_column("image_id", rows["image_name"][:])
    return Read(official_split(rows), f"{len(rows):,} questions, {images:,} images")


def _is_original(file: Path) -> bool:
    return OWN <= first_record(file).keys()


def load_question_file(file: Path, images: Path) -> datasets.Dataset:
    """Rows of `TEXTS`, `image` and `PROBLEM`, the image being `images/<image_name>`, or None where that lies outside.

    Numbers become text. A row with something else, such as a list, is there, too, with the reason in `PROBLEM`; one
    without a `qid` is named by its place in the file, "file.json#3".

    Raises `DataError` if the file is no list in JSON, or no row has one of `TEXTS`.
    """
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON: {error}") from error
    if not isinstance(rows, list):
        raise DataError(f"{file} is no list of questions")
    rows = [row if isinstance(row, dict) else {} for row in rows]
    problems = ["; ".join(_problem(key, row.get(key)) for key in TEXTS if _problem(key, row.get(key))) for row in rows]
    texts = {key: [_text(row.get(key)) for row in rows] for key in TEXTS if any(key in row for row in rows)}
    require_columns(datasets.Dataset.from_dict(texts), TEXTS, str(file))
    texts["qid"] = [qid or f"{file.name}#{number}" for number, qid in enumerate(texts["qid"], start=1)]
    columns = {**texts, PROBLEM: problems, "image": [inside(images, name) for name in texts["image_name"]]}
    types = {key: datasets.Value("string") for key in columns} | {"image": datasets.Image(decode=False)}
    return datasets.Dataset.from_dict(columns, datasets.Features(types))


def official_split(rows: datasets.Dataset) -> dict[str, datasets.Dataset]:
    """The `train` and `test` part of `load_question_file`'s rows, as their `phrase_type` has it."""
    is_test = [phrase.startswith("test_") for phrase in rows["phrase_type"]]
    return {
        split: rows.select([i for i, test in enumerate(is_test) if test is wanted])
        for split, wanted in (("train", False), ("test", True))
    }


def is_closed(answer_type: str | None, answer: str) -> bool:
    """Whether a question is closed, by one of `ANSWER_TYPES`, or, where its file has none, by its answer.

    Raises `BadRow` for another word.
    """
    known = str(answer_type or "").strip().lower()
    if known and known not in ANSWER_TYPES:
        raise BadRow(f"the answer_type {start_of(known)} is none of {', '.join(ANSWER_TYPES)}")
    return ANSWER_TYPES[known] if known else answer.lower() in ("yes", "no")


def domain_of(question: str) -> str:
    """ "closed" or "open", by its first word: the original file's `answer_type` in 2,217 of its 2,248 rows."""
    first = question.lower().split()[:1]
    return "closed" if CLOSED & set(first) else "open"


def _text(value: Any) -> str:
    return "" if value is None or _problem("", value) else str(value).strip()


def _problem(key: str, value: Any) -> str:
    if value is None or type(value) is int or (type(value) is float and math.isfinite(value)):
        return ""
    if not isinstance(value, str):
        return f"{key!r} is {value if isinstance(value, float) else f'a {type(value).__name__}'} and not a text"
    halves = any("\ud800" <= sign <= "\udfff" for sign in value)
    return f"{key!r} has half a surrogate pair, which no text has" if halves else ""
