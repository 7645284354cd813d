"""Masks drawn on a copy of an image: true ones in green, predicted ones in orange, ignored pixels hatched."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import distance_transform_cdt

from .drawing import PREDICTED_COLOR, TRUE_COLOR, draw_legend

IGNORED_COLOR = (128, 128, 128)
TRUE_SHARE, PREDICTED_SHARE = 0.18, 0.32  # of a mask's colour over the picture
IGNORED_SHARES = 0.75, 0.3  # on the stripes and between them
SMALLEST, LARGEST = 256, 1024  # pixels of the drawn picture's longer side


def draw_masks(
    image: Image.Image,
    true_masks: Sequence[np.ndarray],
    predicted_masks: Sequence[np.ndarray],
    ignore: np.ndarray | None = None,
) -> Image.Image:
    """Return an RGB copy of `image` with its masks outlined and faintly filled, `ignore` hatched, and a small legend.

    Masks are bool, `[height, width]` of the image; any other raises ValueError. The copy's longer side has 256 to 1024
    pixels: a small picture is enlarged by a whole factor, so that an outline does not hide it, a large one reduced.
    Where a prediction is exact, both colours of the outline are seen.
    """
    named = [("true", mask) for mask in true_masks] + [("predicted", mask) for mask in predicted_masks]
    for name, mask in named + ([] if ignore is None else [("ignored", ignore)]):
        if mask.shape != image.size[::-1] or mask.dtype != bool:
            expected = f"bool of shape {image.size[::-1]}, the image's height and width"
            raise ValueError(f"{name} mask: {mask.dtype} of shape {mask.shape} instead of {expected}.")
    size = drawn_size(image.size)
    resampling = Image.Resampling.NEAREST if size[0] > image.size[0] else Image.Resampling.LANCZOS
    pixels = np.asarray(image.convert("RGB").resize(size, resampling, reducing_gap=1.0)).astype(np.float32)
    true_masks = [resized(mask, size) for mask in true_masks if mask.any()]
    predicted_masks = [resized(mask, size) for mask in predicted_masks if mask.any()]
    width = max(size) // 128  # of a predicted mask's outline and of a stripe; a true one's outline is twice that
    labels = [("true" if true_masks else "none true", TRUE_COLOR)]
    labels.append(("predicted" if predicted_masks else "none predicted", PREDICTED_COLOR))
    if ignore is not None and ignore.any():
        ignored = resized(ignore, size)
        stripes = np.add.outer(np.arange(size[1]), np.arange(size[0])) // width % 4 == 0
        blend(pixels, ignored & stripes, IGNORED_COLOR, IGNORED_SHARES[0])
        blend(pixels, ignored & ~stripes, IGNORED_COLOR, IGNORED_SHARES[1])
        labels.append(("ignored", IGNORED_COLOR))
    for masks, color, share in (
        (true_masks, TRUE_COLOR, TRUE_SHARE),
        (predicted_masks, PREDICTED_COLOR, PREDICTED_SHARE),
    ):
        if masks:
            blend(pixels, np.logical_or.reduce(masks), color, share)
    for masks, color, thickness in (
        (true_masks, TRUE_COLOR, 2 * width),
        (predicted_masks, PREDICTED_COLOR, width),
    ):
        for mask in masks:
            pixels[outline(mask, thickness)] = color
    drawn = Image.fromarray(pixels.round().astype(np.uint8))
    draw_legend(ImageDraw.Draw(drawn), size, labels, [bounding_box(mask) for mask in true_masks + predicted_masks])
    return drawn


def drawn_size(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height with a longer side of 256 to 1024 pixels; from a smaller one a whole multiple."""
    factor = min(LARGEST / max(size), 1) * math.ceil(SMALLEST / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask of the drawn size; one too thin to cover half of any drawn pixel keeps all that it touches."""
    if size == mask.shape[::-1]:
        return mask
    covered = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX))
    return covered >= 128 if (covered >= 128).any() else covered > 0


def outline(mask: np.ndarray, thickness: int) -> np.ndarray:
    """The mask's pixels that are at most `thickness` from a pixel outside of it or outside of the image."""
    x1, y1, x2, y2 = bounding_box(mask)
    inside = np.pad(mask[y1:y2, x1:x2], 1)
    near = inside & (distance_transform_cdt(inside, metric="chessboard") <= thickness)
    edge = np.zeros_like(mask)
    edge[y1:y2, x1:x2] = near[1:-1, 1:-1]
    return edge


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """`(x1, y1, x2, y2)` of a mask that is not empty, the second corner just outside."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def blend(pixels: np.ndarray, where: np.ndarray, color: tuple[int, int, int], share: float) -> None:
    """Mix a share of a colour into float pixels, in place."""
    pixels[where] += share * (np.array(color, dtype=np.float32) - pixels[where])
