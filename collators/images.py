"""Pictures of a batch: opened upright, each once, and named in what goes wrong with them."""

from collections.abc import Callable
from os import PathLike
from typing import Any

from PIL import Image
from transformers.image_utils import load_image


def open_image(image: Image.Image | str | PathLike[str]) -> Image.Image:
    """An RGB image, rotated by its EXIF tag. Nothing but an image or a local path: a row must not fetch URLs."""
    return load_image(image if isinstance(image, Image.Image) else Image.open(image))


def open_images(row: dict[str, Any]) -> list[Image.Image]:
    """A row's `images`, or its `image`, opened; none for a row without."""
    images = row["images"] if "images" in row else [row["image"]] if row.get("image") is not None else []
    return [open_image(image) for image in images or []]


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
