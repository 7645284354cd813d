"""The images of one row, however it spells them; nothing is decoded or opened here."""

import os
import re
from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np
import torch
from PIL import Image

from .conventions import Row
from .errors import BadRow, start_of

NO_IMAGE = "no image, or one outside the dataset's folder"
DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # Pillow's modes whose conversion to RGB cuts all above 255
SIXTEEN_BITS = re.compile(";16[BLN]$")  # of each colour, as a file has them: Pillow opens such a file in 8
KNOWN = 'a PIL image, a path, {"bytes", "path"} or an array of H×W or H×W×3 bytes is due'


def images_of(row: Row) -> list[Any]:
    """A row's images as they are under `image` or `images`: one, or a list; none where both are missing or empty.

    An image is a PIL image, a path, `{"bytes", "path"}` as `datasets` stores one (either may be None), or an array
    `[H, W]` or `[H, W, 3]` (of torch also `[3, H, W]`) of uint8. Arrow gives all rows of a file the same keys, so one
    of the two may be empty; where both have the same images these count once.

    Raises `BadRow` for anything else, for a URL, which a row must not fetch, and for two keys with different images.
    """
    filled = {}
    for key in ("image", "images"):
        value = row.get(key)
        several = isinstance(value, list | tuple)
        images = list(value) if several else [] if value is None else [value]
        for number, image in enumerate(images, start=1):
            if fault := fault_of(image):
                raise BadRow(f"{fault} (picture {number} of {len(images)})" if several else fault)
        if images:
            filled[key] = images
    one, *other = filled.values() or [[]]
    if other and not (len(one) == len(other[0]) and all(map(same_image, one, other[0]))):
        raise BadRow("'image' and 'images' hold different pictures: leave all of them in one of the two")
    return one


def same_image(first: Any, second: Any) -> bool:
    """Whether two images are the same as far as one sees without opening a file."""
    if isinstance(first, np.ndarray | torch.Tensor):
        return isinstance(second, np.ndarray | torch.Tensor) and np.array_equal(first, second)
    if isinstance(first, PathLike) or isinstance(second, PathLike):
        return str(first) == str(second)
    return first is second or bool(type(first) is type(second) and first == second)


def may_be_same(first: Any, second: Any) -> bool:
    """Whether two images, neither of them decoded here, have the same pixels a side, or files as many bytes."""
    if isinstance(first, Image.Image) and isinstance(second, Image.Image):
        return first.size == second.size
    lengths = bytes_in(first), bytes_in(second)
    if None not in lengths:
        return lengths[0] == lengths[1]
    return type(first) is not type(second) or same_image(first, second)


def bytes_in(image: Any) -> int | None:
    """How many bytes the file of an image has; None where it has none."""
    if isinstance(image, Mapping):
        return len(image["bytes"]) if image.get("bytes") is not None else bytes_in(image.get("path"))
    return os.path.getsize(image) if isinstance(image, str | PathLike) and os.path.isfile(image) else None


def fault_of(image: Any) -> str:
    """Why something is no image that a row may have; "" for one, which may still turn out to be broken."""
    if image is None or isinstance(image, str) and not image:
        return NO_IMAGE
    if isinstance(image, Image.Image):
        mode = image.mode if image.mode in DEEP else _mode_in_file(image)
        deep = f"image of mode {mode}, deeper than 8 bits: convert it, so that you choose what is white"
        return deep if mode in DEEP or SIXTEEN_BITS.search(mode) else ""
    if isinstance(image, PathLike):
        return ""
    if isinstance(image, str):
        is_url = image.split(":", 1)[0].lower() in ("http", "https", "ftp", "data")
        return f"No such file: {start_of(image)} is a URL, which a row must not fetch" if is_url else ""
    if isinstance(image, Mapping):
        data, path = image.get("bytes"), image.get("path")
        if not (data is None or isinstance(data, bytes)) or not (path is None or isinstance(path, str | PathLike)):
            return f"an image whose 'bytes' are a {type(data).__name__} and whose 'path' is a {type(path).__name__}"
        return NO_IMAGE if data is None and not path else ""
    if isinstance(image, np.ndarray | torch.Tensor):
        kind, shape = str(image.dtype).removeprefix("torch."), tuple(image.shape)
        coloured = len(shape) == 3 and (shape[2] == 3 or isinstance(image, torch.Tensor) and shape[0] == 3)
        fits = kind == "uint8" and 0 not in shape and (len(shape) == 2 or coloured)
        return "" if fits else f"an image that is an array of {kind} and shape {shape}: {KNOWN}"
    return f"an image that is a {type(image).__name__}: {KNOWN}"


def _mode_in_file(image: Image.Image) -> str:
    """Pillow's mode of an image, as its file has it where it is not loaded yet, such as "RGB;16B"."""
    tiles = getattr(image, "tile", None)
    stored = tiles[0][3] if tiles else None
    stored = stored[0] if isinstance(stored, tuple) and stored else stored
    return stored if isinstance(stored, str) else image.mode
