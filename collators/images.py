"""Pictures of a batch: opened upright, each once, and named in what goes wrong with them."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_utils import load_image

from ..rows.errors import BadRow
from ..rows.images import fault_of, images_of


def open_image(image: Any) -> Image.Image:
    """An RGB image, rotated by its EXIF tag, of anything that `vlm_recipes.rows.images.images_of` knows.

    Raises `BadRow`, or an `OSError` of its file, for what is none or cannot be read.
    """
    if fault := fault_of(image):
        raise BadRow(fault)
    if isinstance(image, Mapping):
        image = io.BytesIO(image["bytes"]) if image.get("bytes") is not None else image["path"]
    elif isinstance(image, torch.Tensor):
        pixels = image.cpu().numpy()
        image = pixels if pixels.ndim == 2 or pixels.shape[2] == 3 else pixels.transpose(1, 2, 0)
    try:
        if isinstance(image, np.ndarray):
            return Image.fromarray(image).convert("RGB")
        return load_image(image if isinstance(image, Image.Image) else Image.open(image))
    except (ValueError, OSError):
        raise
    except Exception as error:  # decoders raise anything: SyntaxError (PNG), DecompressionBombError, …
        raise BadRow(f"image cannot be read: {error}") from error


def open_images(row: dict[str, Any]) -> list[Image.Image]:
    """A row's `images`, or its `image`, opened; none for a row without."""
    return [open_image(image) for image in images_of(row)]


def open_only_image(row: dict[str, Any]) -> Image.Image:
    """The one image of a row, opened; `BadRow` for none and for several."""
    images = images_of(row)
    if len(images) != 1:
        raise BadRow(f"{len(images)} images, where the model reads one")
    return open_image(images[0])


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
