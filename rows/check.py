"""One row and its pictures: what an adapter makes of it, or why it is refused."""

from collections.abc import Callable
from typing import Any

import datasets

from .conventions import ANNOTATED_SIZE, PROBLEM, Row
from .errors import BadRow, one_line
from .images import NO_IMAGE, images_of
from .pictures import content_id, inspect_picture

# What an adapter may raise over a row: `None.strip()` and `int(inf)` are as much the row's fault as a BadRow.
UNUSABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, OSError, SyntaxError, RecursionError)


def check_row(
    row: Row,
    index: int,
    adapt: Callable[[Row], Row],
    features: datasets.Features | None = None,
    several: bool = False,
) -> tuple[str, str, Row]:
    """Adapt one row and check its picture or pictures, undecoded as `{"bytes", "path"}`, see `usable_rows`.

    Other pictures are decoded for the adapter where `features` name them. `several`: rows of the dataset may have any
    number of pictures, even where this one has no key `images`. Numbers that name the row or its image reach the
    adapter as texts. What a reader says of it (`PROBLEM`) comes before all
    else; a picture of another size than it was annotated at (`ANNOTATED_SIZE`) is refused. Returns the row's id, why
    it is refused ("" where it is not), and what it became, without pictures.
    """
    names = {key: str(row[key]) for key in ("id", "image_id", "img_id", "qid") if row.get(key) is not None}
    row_id = next((names[key] for key in ("id", "image_id", "qid") if key in names), f"row {index}")
    try:
        if row.get(PROBLEM):
            raise BadRow(row[PROBLEM])
        images = images_of(row)
        several = several or "images" in row
        sizes, hashes = _inspected_all(images) if several else _inspected(images)
        if (annotated := row.get(ANNOTATED_SIZE)) and annotated != sizes.get("image_size", annotated):
            said, found = ("×".join(map(str, size)) for size in (annotated, sizes["image_size"]))
            raise BadRow(f"annotated on a picture of {said}, and this one has {found}: correct either")
        shown = {"images": images} if several else {}
        asked = {**_decoded(row, features), **shown, **names, "id": row_id, **sizes}
        adapted = {"id": row_id, **sizes, **adapt(asked), **hashes}
        return row_id, "", {key: value for key, value in adapted.items() if key not in ("image", "images")}
    except BadRow as error:
        return row_id, one_line(str(error) or "refused without a reason"), {}
    except UNUSABLE as error:
        return row_id, one_line(f"{type(error).__name__}: {error}"), {}


def _inspected(images: list[Any]) -> tuple[Row, Row]:
    """The size of a row's one picture, and its hash."""
    if len(images) != 1:
        raise BadRow(f"{len(images)} pictures under 'image': name the column 'images'" if images else NO_IMAGE)
    size, image_hash = inspect_picture(images[0])
    return {"image_size": size}, {"image_hash": image_hash}


def _inspected_all(images: list[Any]) -> tuple[Row, Row]:
    """The names, sizes and hashes of a row's pictures; a fault of one of them has its place."""
    found = []
    for number, image in enumerate(images, start=1):
        try:
            found.append(inspect_picture(image))
        except BadRow as error:
            raise BadRow(f"{error} (picture {number} of {len(images)})") from error
    named = {"image_ids": [content_id(image) for image in images]}
    return {**named, "image_sizes": [size for size, _ in found]}, {"image_hashes": [one for _, one in found]}


def _decoded(row: Row, features: datasets.Features | None) -> Row:
    """A row with its other pictures, such as a mask."""
    try:
        return features.decode_example(row) if features else row
    except Exception as error:  # decoders raise anything, as in `inspect_picture`
        raise BadRow(f"a picture beside the image cannot be read: {error}") from error
