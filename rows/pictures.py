"""Which pictures can be used: of what size they are displayed, and which ones look alike."""

import base64
import hashlib
import io
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from .background import on_background
from .errors import BadRow
from .images import NO_IMAGE, fault_of

MAX_ASPECT_RATIO = 200  # Qwen2-VL's resizing refuses more
ORIENTATION, ROTATED = 0x0112, (5, 6, 7, 8)  # EXIF: these orientations exchange width and height
HASH_SIDE, COLOUR_SIDE = 16, 4  # of a picture's hash in bits, and of its colours in pixels
HASHED = 128  # pixels a side from which a picture is hashed, at least


def content_id(image: dict[str, Any]) -> str:
    """Names a picture, `{"bytes", "path"}`, by its file's bytes: the same in two rows is one image."""
    return hashlib.sha256(image["bytes"] or Path(image["path"]).read_bytes()).hexdigest()


def inspect_picture(image: dict[str, Any] | None) -> tuple[list[int], str]:
    """Decode `{"bytes", "path"}` once, at a low scale: `[width, height]` in pixels as displayed, and its hash.

    The hash is for `vlm_recipes.callbacks.preflight.near_duplicates`: 256 bits of a perceptual hash (imagehash's
    `phash`) and 4×4 RGB colours, in base64. Raises `BadRow` for an image that is missing, empty, truncated, no image,
    too large to be honest, deeper than 8 bits, or a sliver.
    """
    if not image or (image.get("bytes") is None and not image.get("path")):
        raise BadRow(NO_IMAGE)
    if image.get("bytes") is not None:
        size, hashed = _inspect_bytes(image["bytes"], Image.MAX_IMAGE_PIXELS)
    elif not os.path.isfile(image["path"]):
        raise BadRow(f"image file is missing: {os.path.basename(image['path'])}")
    else:
        status = os.stat(image["path"])
        size, hashed = _inspect_file(image["path"], status.st_size, status.st_mtime_ns, Image.MAX_IMAGE_PIXELS)
    return list(size), hashed


@lru_cache(maxsize=256)
def _inspect_file(path: str, size: int, changed: int, limit: int | None) -> tuple[tuple[int, int], str]:
    return _inspect(path, limit)


@lru_cache(maxsize=16)
def _inspect_bytes(data: bytes, limit: int | None) -> tuple[tuple[int, int], str]:
    return _inspect(io.BytesIO(data), limit)


def _inspect(source: io.BytesIO | str, limit: int | None) -> tuple[tuple[int, int], str]:
    try:
        with Image.open(source) as picture:
            width, height = picture.size
            if limit and width * height > limit:
                raise BadRow(f"image of {width}×{height} pixels is larger than {limit}")
            if isinstance(picture, ImageFile.ImageFile):  # a JPEG is read to its end, at an eighth of its size
                picture.draft(None, (max(width // 8, HASHED), max(height // 8, HASHED)))
            if fault := fault_of(picture):
                raise BadRow(fault)
            picture.load()
            hashed = _hash(picture)
            # Only now: a TIFF turns itself while loading, and its tag is gone.
            if picture.getexif().get(ORIENTATION) in ROTATED:
                width, height = height, width
    except BadRow:
        raise
    except Exception as error:  # decoders raise anything: RuntimeError (AVIF), ValueError (PPM), SyntaxError (PNG), …
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else error  # whose message has the path
        raise BadRow(f"image cannot be read: {reason}") from error
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise BadRow(f"image of {width}×{height} pixels is more than {MAX_ASPECT_RATIO} times longer than wide")
    return (width, height), hashed


def _hash(picture: Image.Image) -> str:
    """A picture's hash, whatever its format, size and quality, and whether it or its EXIF tag was turned."""
    whole = on_background(picture) if picture.mode != "RGB" or picture.has_transparency_data else picture
    smaller = whole.reduce(max(1, min(whole.size) // HASHED))  # a photograph takes as long to hash as to decode
    upright = ImageOps.exif_transpose(smaller)
    bits = imagehash.phash(upright, hash_size=HASH_SIDE).hash
    colours = upright.resize((COLOUR_SIDE, COLOUR_SIDE), Image.Resampling.BOX).tobytes()
    return base64.b64encode(np.packbits(bits).tobytes() + colours).decode()
