"""VQA-RAD's original JSON, one list of questions beside a folder of images -> rows."""

import json
import math
from pathlib import Path
from typing import Any

import datasets

from ..errors import DataError
from ..loading import require_columns
from ..paths import inside

# A question that begins so wants yes or no, or one of two things that it names.
CLOSED = set("am are can could did do does had has have is may might should was were will would".split())
TEXTS = ("qid", "image_name", "question", "answer", "answer_type", "question_type", "phrase_type")


def load_question_file(file: Path, images: Path) -> datasets.Dataset:
    """Rows of `TEXTS` and `{image, problem}`, the image being `images/<image_name>`, or None where that lies outside.

    Numbers become text. A row with something else, such as a list, is there, too, with the reason in `problem` (else
    ""), for the adapter to refuse it; one without a `qid` is named by its place in the file, "file.json#3".

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
    columns = {**texts, "problem": problems, "image": [inside(images, name) for name in texts["image_name"]]}
    types = {key: datasets.Value("string") for key in columns} | {"image": datasets.Image(decode=False)}
    return datasets.Dataset.from_dict(columns, datasets.Features(types))


def official_split(rows: datasets.Dataset) -> dict[str, datasets.Dataset]:
    """The `train` and `test` part of `load_question_file`'s rows, as their `phrase_type` has it."""
    is_test = [phrase.startswith("test_") for phrase in rows["phrase_type"]]
    return {
        split: rows.select([i for i, test in enumerate(is_test) if test is wanted])
        for split, wanted in (("train", False), ("test", True))
    }


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
