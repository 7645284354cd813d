"""Pictures of a batch: each opened once, and named in what goes wrong with them."""

from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from ..rows.errors import BadRow
from ..rows.images import images_of, may_be_same
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

    A row is a query about its image, or an image with `queries`. Rows with the same `image_id` have the same image;
    those after the first need none, and `ValueError` is raised where one has another, as far as one sees unopened.
    """
    places, shown, image_index, queries = {}, [], [], []
    for row in rows:
        image_id = row.get("image_id")
        place = places.setdefault(id(row) if image_id is None else image_id, len(shown))
        if place == len(shown):
            shown.append(row)
        elif (own := named(row, images_of, row)) and not _alike(own, images_of(shown[place])):
            this, first = (one.get("id", "without id") for one in (row, shown[place]))
            raise ValueError(f"row {this!r}: its image_id {image_id!r} has other images in row {first!r}")
        own = row.get("queries") or [row]
        queries += own
        image_index += [place] * len(own)
    return shown, image_index, queries


def _alike(some: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether two rows have as many images, of which none is seen to be another without decoding it."""
    return len(some) == len(others) and all(map(may_be_same, some, others))


def named(row: dict[str, Any], function: Callable, *arguments) -> Any:
    """What the function returns; the row is named in what it raises."""
    try:
        return function(*arguments)
    except (ValueError, OSError) as error:
        raise ValueError(f"row {row.get('id', 'without id')!r}: {error}") from error


def blank(sizes: Sequence[Sequence[int]]) -> list[Image.Image]:
    """Black images of these sizes (width, height in pixels), for what does not depend on what they show."""
    return [Image.new("RGB", tuple(size)) for size in sizes]
