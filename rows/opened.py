"""One image of a row, opened: upright, in RGB, on a background."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from .background import on_background
from .errors import BadRow
from .images import fault_of


def open_image(image: Any, background: str = "white") -> Image.Image:
    """An RGB image, rotated by its EXIF tag, of anything that `vlm_recipes.rows.images.images_of` knows.

    What is transparent in it is composited on the `background`, see `vlm_recipes.rows.background`. Raises `BadRow`, or
    an `OSError` of its file, for what is no image, is deeper than 8 bits or cannot be read.
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
            image = Image.fromarray(image)
        elif not isinstance(image, Image.Image):
            image = Image.open(image)
            if fault := fault_of(image):
                raise BadRow(fault)
        return on_background(ImageOps.exif_transpose(image), background)
    except (ValueError, OSError):
        raise
    except Exception as error:  # decoders raise anything: SyntaxError (PNG), DecompressionBombError, …
        raise BadRow(f"image cannot be read: {error}") from error
