"""One row and its pictures: what an adapter makes of it, or why it is refused."""

from collections.abc import Callable

import datasets

from .conventions import Row
from .errors import BadRow, one_line
from .pictures import content_id, inspect_picture

# What an adapter may raise over a row: `None.strip()` and `int(inf)` are as much the row's fault as a BadRow.
UNUSABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, OSError, SyntaxError, RecursionError)


def check_row(
    row: Row, index: int, adapt: Callable[[Row], Row], features: datasets.Features | None = None
) -> tuple[str, str, Row]:
    """Adapt one row and check its picture or pictures, undecoded as `{"bytes", "path"}`, see `usable_rows`.

    Other pictures are decoded for the adapter where `features` name them. Returns the row's id, why it is refused (""
    where it is not), and what it became, without pictures.
    """
    row_id = next((row[key] for key in ("id", "image_id", "qid") if row.get(key) is not None), f"row {index}")
    try:
        sizes, hashes = _inspected(row)
        adapted = {"id": str(row_id), **sizes, **adapt({**_decoded(row, features), "id": row_id, **sizes}), **hashes}
        return str(row_id), "", {key: value for key, value in adapted.items() if key not in ("image", "images")}
    except BadRow as error:
        return str(row_id), one_line(str(error) or "refused without a reason"), {}
    except UNUSABLE as error:
        return str(row_id), one_line(f"{type(error).__name__}: {error}"), {}


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


def _decoded(row: Row, features: datasets.Features | None) -> Row:
    """A row with its other pictures, such as a mask."""
    try:
        return features.decode_example(row) if features else row
    except Exception as error:  # decoders raise anything, as in `inspect_picture`
        raise BadRow(f"a picture beside the image cannot be read: {error}") from error
