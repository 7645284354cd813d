"""Pictures of a batch: each opened once, and named in what goes wrong with them."""

from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from ..rows.errors import BadRow
from ..rows.images import images_of
from ..rows.opened import open_image


def open_images(row: dict[str, Any], background: str = "white") -> list[Image.Image]:
    """A row's `images`, or its `image`, opened on a background; none for a row without."""
    return [open_image(image, background) for image in images_of(row)]


def open_only_image(row: dict[str, Any], background: str = "white") -> Image.Image:
    """The one image of a row, opened on a background; `BadRow` for none and for several."""
    images = images_of(row)
    if len(images) != 1:
        raise BadRow(f"{len(images)} images, where the model reads one")
    return open_image(images[0], background)


def by_image(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[int], list[dict[str, Any]]]:
    """Rows of a batch -> one row for each image, the number of the image of each query, and the queries.

    A row is a query about its image, or an image with `queries`; rows with the same `image_id` have the same image.
    """
    places, shown, image_index, queries = {}, [], [], []
    for row in rows:
        image_id = row.get("image_id")
        place = places.setdefault(id(row) if image_id is None else image_id, len(shown))
        if place == len(shown):
            shown.append(row)
        own = row.get("queries") or [row]
        queries += own
        image_index += [place] * len(own)
    return shown, image_index, queries


def named(row: dict[str, Any], function: Callable, *arguments) -> Any:
    """What the function returns; the row is named in what it raises."""
    try:
        return function(*arguments)
    except (ValueError, OSError) as error:
        raise ValueError(f"row {row.get('id', 'without id')!r}: {error}") from error


def blank(sizes: Sequence[Sequence[int]]) -> list[Image.Image]:
    """Black images of these sizes (width, height in pixels), for what does not depend on what they show."""
    return [Image.new("RGB", tuple(size)) for size in sizes]
