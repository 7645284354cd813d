"""Annotated images on disk -> masks: labelme-like polygons beside each image, or a mask given as a picture."""

import itertools
import json
from collections import Counter
from numbers import Real
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image, ImageDraw

from ..conventions import IGNORED_PIXEL, Row
from ..errors import BadRow, DataError, start_of
from ..paths import inside
from ..segments import segments_mask
from .files import split_in
from .read import Read
from .records import LOOKED_AT

TITLE = "ReasonSeg"
IMAGES = (".jpg", ".jpeg", ".png")
TWICE = b"two images"  # in place of an annotation
TOLERANCE = 1  # pixels by which a point may lie outside of its image


def recognises(place: Path) -> bool:
    """Whether a folder has splits of JSON files that hold queries (`text`) beside `shapes`."""
    return any(map(_has_queries, _folders(place)))


def _folders(place: Path) -> list[Path]:
    return sorted({file.parent for file in place.glob("*/*.json")})


def _has_queries(folder: Path) -> bool:
    """Whether one of the first files says so: the very first may be broken."""
    for file in itertools.islice(sorted(folder.glob("*.json")), LOOKED_AT):
        try:
            if inside(folder, file.name) and {"text", "shapes"} <= parse_annotation(file.read_bytes()).keys():
                return True
        except (BadRow, OSError):
            continue
    return False


def read_masks(place: Path) -> Read:
    """All of a folder's splits, see `load_annotated_folder`; a folder of other JSON, such as a model's, is none."""
    folders = [folder for folder in _folders(place) if split_in(folder.name) or _has_queries(folder)]
    splits = {folder.name: load_annotated_folder(folder) for folder in folders}
    return Read(splits, ", ".join(f"{len(rows):,} images in {split}" for split, rows in splits.items()))


def load_annotated_folder(folder: Path) -> datasets.Dataset:
    """Rows `{id, image, annotation}` of images and JSON files paired by name; `DataError` if there is no such folder.

    The image is not decoded, `annotation` is the file's bytes. What lacks the other half is there, too, with an image
    that does not exist or None for an annotation, so that it can be refused by name; so is a link that leaves the
    folder.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {str(folder)!r}")
    if misnamed := [path for path in folder.iterdir() if path.name.encode(errors="ignore").decode() != path.name]:
        raise DataError(f"the name of {ascii(str(misnamed[0]))} is not in UTF-8: rename the file")
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGES)
    images = {path.stem: path for path in pictures}
    twice = {name for name, count in Counter(path.stem for path in pictures).items() if count > 1}
    notes = [path for path in folder.glob("*.json") if path.is_file() and inside(folder, path.name)]
    annotations = {path.stem: path.read_bytes() for path in notes}
    names = sorted(images.keys() | annotations.keys())
    rows = {
        "id": names,
        "image": [inside(folder, images[name].name if name in images else f"{name}{IMAGES[0]}") for name in names],
        "annotation": [TWICE if name in twice else annotations.get(name) for name in names],
    }
    return datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image(decode=False))


def parse_annotation(annotation: bytes | None) -> dict[str, Any]:
    """The JSON of an annotation in UTF-8 or else, as in some of ReasonSeg's files, cp1252; `BadRow` without one."""
    if annotation is None:
        raise BadRow("no JSON of this name beside the image")
    if annotation == TWICE:
        raise BadRow("two images of this name beside one JSON")
    try:
        try:
            text = annotation.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = annotation.decode("cp1252")
        parsed = json.loads(text)
    except UnicodeDecodeError as error:
        raise BadRow("its JSON is neither in UTF-8 nor in cp1252") from error
    except (ValueError, RecursionError) as error:
        raise BadRow(f"its JSON cannot be read: {error}") from error
    if not isinstance(parsed, dict):
        raise BadRow("its JSON is no object")
    return parsed


def read_annotated(row: Row) -> tuple[list[str], bool, str, np.ndarray]:
    """The queries about an image, whether they are sentences, of which kind they are, and what they want: its mask.

    Of a row of `load_annotated_folder`, or one with `text` (a sentence unless `is_sentence` says no) and `mask`, or
    with `text` (no sentence) and `segments`, of readers of masks; with its `image_size`. The kind is the annotation's
    or the row's `kind`, or "long query" and "short query". Raises `BadRow`.
    """
    if "annotation" in row:
        annotation = parse_annotation(row["annotation"])
        if not isinstance(annotation.get("shapes"), list):
            raise BadRow("no list of shapes")
        mask = polygon_mask(annotation["shapes"], row["image_size"])
    else:
        annotation = {key: row[key] for key in ("text", "kind", "is_sentence") if row.get(key) is not None}
        if row.get("segments"):
            annotation.setdefault("is_sentence", False)
            mask = segments_mask(row["segments"], row["image_size"])
        else:
            mask = picture_mask(row["mask"], row["image_size"])
    texts = annotation.get("text") or []
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise BadRow("no text, or an empty one")
    if not isinstance(annotation.get("kind", ""), str | None):
        raise BadRow("its kind is no text")
    is_sentence = annotation.get("is_sentence", True)
    kind = annotation.get("kind") or ("long query" if is_sentence else "short query")
    return [text.strip() for text in texts], is_sentence, kind, mask


def polygon_mask(shapes: list[dict[str, Any]], size: list[int]) -> np.ndarray:
    """The mask `[H, W]` of labelled polygons for an image of `size` (width, height): 0, 1 in a target, 255 ignored.

    A shape's `label` is a target unless it says "ignore"; "flag" is skipped. Points are in pixels, cut to whole ones;
    a polygon covers its outline. The largest (in pixels) is drawn first, so that a smaller one is seen on it. Source:
    ReasonSeg's rules in LISA's code. Raises `BadRow` for fewer than three points, or one outside of the image.
    """
    mask, layers = np.zeros(size[::-1], dtype=np.uint8), []
    for shape in shapes:
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
            raise BadRow(f"a shape without a text for a label: {start_of(str(shape))}")
        label = shape["label"].lower()
        if label == "flag":
            continue
        points = shape.get("points")
        if not isinstance(points, list) or not all(map(_is_point, points)):
            raise BadRow(f"a polygon ({label}) whose points are no list of [x, y]: {start_of(str(points))}")
        if len(points) < 3:
            raise BadRow(f"a polygon ({label}) of {len(points)} points")
        points = [(int(x), int(y)) for x, y in points]
        for x, y in points:
            if not (-TOLERANCE <= x <= size[0] + TOLERANCE and -TOLERANCE <= y <= size[1] + TOLERANCE):
                raise BadRow(f"a polygon ({label}) with the point ({x}, {y}) outside the image of {size[0]}×{size[1]}")
        canvas = Image.new("1", tuple(size))
        brush = ImageDraw.Draw(canvas)
        brush.polygon(points, fill=1)
        brush.line([*points, points[0]], fill=1)  # an outline of the fill's own colour is not drawn by `polygon`
        layers.append((np.array(canvas), IGNORED_PIXEL if "ignore" in label else 1))
    for layer, value in sorted(layers, key=lambda layer: -layer[0].sum()):
        mask[layer] = value
    return mask


def _is_point(point: Any) -> bool:
    finite = float("inf")
    return isinstance(point, list) and len(point) == 2 and all(isinstance(x, Real) and abs(x) < finite for x in point)


def _refuse_reordered(mask: Image.Image) -> None:
    """`BadRow` for a palette of which black is another colour than the first: by its numbers it is inside out.

    Writers that choose the palette by its picture order it as they like (PNG specification, 11.2.2); PASCAL VOC's has
    black first, and there the numbers are what counts.
    """
    palette = mask.getpalette("RGB")
    colours = {number: palette[3 * number : 3 * number + 3] for _, number in mask.getcolors()}
    black = [number for number, colour in colours.items() if colour == [0, 0, 0]]
    if black and 0 in colours and 0 not in black:
        raise BadRow(f"a mask in which black is colour {black[0]} of its palette, and not 0: save it in greys")


def picture_mask(mask: Image.Image | list, size: list[int]) -> np.ndarray:
    """The same of a picture or nested list of true and false; of 0, 1 and 255 (ignored); or of 0 and anything."""
    if isinstance(mask, Image.Image) and mask.mode == "CMYK":
        mask = mask.convert("RGB")  # its black has a channel that is not 0
    if isinstance(mask, Image.Image) and mask.mode in ("LA", "RGBA"):
        mask = mask.convert(mask.mode[:-1])  # how opaque a pixel is says nothing
    if isinstance(mask, Image.Image) and mask.mode == "P":
        _refuse_reordered(mask)
    mask = np.array(mask)
    mask = mask.max(axis=-1) if mask.ndim == 3 else mask
    if list(mask.shape) != size[::-1]:
        raise BadRow(f"a mask of (height, width) {mask.shape} for an image of {size[0]}×{size[1]}")
    ignored = (mask == IGNORED_PIXEL) & (mask == 1).any() & np.isin(mask, (0, 1, IGNORED_PIXEL)).all()
    return np.where(ignored, IGNORED_PIXEL, mask != 0).astype(np.uint8)
