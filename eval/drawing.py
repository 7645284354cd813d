"""What is true in green, what was predicted in orange: boxes and masks drawn on a copy of an image."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_cdt

from .metrics.boxes import Box

TRUE_COLOR, PREDICTED_COLOR, IGNORED_COLOR = (0, 158, 80), (255, 96, 0), (128, 128, 128)
LEGEND_TEXT, LEGEND_BACKGROUND = (20, 20, 20), (255, 255, 255)
LEGEND_SHARE = 0.12  # of the image's area: a legend that would hide more than this is left out
TRUE_SHARE, PREDICTED_SHARE = 0.18, 0.32  # of a mask's colour over the picture
IGNORED_SHARES = 0.75, 0.3  # on the stripes and between them
SMALLEST, LARGEST = 256, 1024  # pixels of the longer side of a picture with masks
PixelBox = tuple[int, int, int, int]


def draw_boxes(image: Image.Image, true_boxes: Iterable[Box], predicted_boxes: Iterable[Box]) -> Image.Image:
    """Return an RGB copy of `image` with its true boxes in green, its predicted ones in orange and a small legend.

    Boxes are `[x1, y1, x2, y2]` in pixels of `image`, corners in any order; what lies outside the image is drawn at
    its border, and a box with a NaN is left out. Where a prediction is exact, both colours of the line are seen.
    """
    drawn = image.convert("RGB")
    canvas, width = ImageDraw.Draw(drawn), max(2, round(max(drawn.size) / 80))
    true, predicted = (visible_boxes(boxes, drawn.size) for boxes in (true_boxes, predicted_boxes))
    for boxes, color, thickness in ((true, TRUE_COLOR, width), (predicted, PREDICTED_COLOR, max(1, width // 2))):
        for box in boxes:
            canvas.rectangle(box, outline=color, width=thickness)
    draw_legend(canvas, drawn.size, true, predicted)
    return drawn


def visible_boxes(boxes: Iterable[Box], size: tuple[int, int]) -> list[PixelBox]:
    """Boxes as whole pixels inside the image, corners in order, without those that have a NaN."""
    inside = []
    for box in boxes:
        if not any(map(math.isnan, box)):
            within = [round(min(max(side, 0), size[i % 2] - 1)) for i, side in enumerate(box)]
            (x1, x2), (y1, y2) = sorted(within[::2]), sorted(within[1::2])
            inside.append((x1, y1, x2, y2))
    return inside


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
    given = {"true": true_masks, "predicted": predicted_masks, "ignored": [] if ignore is None else [ignore]}
    for name, masks in given.items():
        for mask in masks:
            if mask.shape != image.size[::-1] or mask.dtype != bool:
                expected = f"bool of shape {image.size[::-1]}, the image's height and width"
                raise ValueError(f"{name} mask: {mask.dtype} of shape {mask.shape} instead of {expected}.")
    factor = min(LARGEST / max(image.size), 1) * math.ceil(SMALLEST / max(image.size))
    size = tuple(max(1, round(side * factor)) for side in image.size)
    resampling = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
    pixels = np.asarray(image.convert("RGB").resize(size, resampling, reducing_gap=1.0)).astype(np.float32)
    true, predicted, ignored = ([resized(mask, size) for mask in masks if mask.any()] for masks in given.values())
    width = max(size) // 128  # of a predicted mask's outline and of a stripe; a true one's outline is twice that
    stripes = np.add.outer(np.arange(size[1]), np.arange(size[0])) // width % 4 == 0
    for mask in ignored:
        blend(pixels, mask & stripes, IGNORED_COLOR, IGNORED_SHARES[0])
        blend(pixels, mask & ~stripes, IGNORED_COLOR, IGNORED_SHARES[1])
    layers = (true, TRUE_COLOR, TRUE_SHARE, 2 * width), (predicted, PREDICTED_COLOR, PREDICTED_SHARE, width)
    for masks, color, share, _ in layers:
        if masks:
            blend(pixels, np.logical_or.reduce(masks), color, share)
    for masks, color, _, thickness in layers:
        for mask in masks:
            pixels[outline(mask, thickness)] = color
    drawn = Image.fromarray(pixels.round().astype(np.uint8))
    boxes = ([Image.fromarray(mask).getbbox() for mask in masks] for masks in (true, predicted))
    draw_legend(ImageDraw.Draw(drawn), size, *boxes, ignored=bool(ignored))
    return drawn


def resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask of the drawn size; one too thin to cover half of any drawn pixel keeps all that it touches."""
    if size == mask.shape[::-1]:
        return mask
    covered = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX))
    return covered >= 128 if (covered >= 128).any() else covered > 0


def outline(mask: np.ndarray, thickness: int) -> np.ndarray:
    """The mask's pixels that are at most `thickness` from a pixel outside of it or outside of the image."""
    inside = np.pad(mask, 1)
    return (inside & (distance_transform_cdt(inside, metric="chessboard") <= thickness))[1:-1, 1:-1]


def blend(pixels: np.ndarray, where: np.ndarray, color: tuple[int, int, int], share: float) -> None:
    """Mix a share of a colour into float pixels, in place."""
    pixels[where] += share * (np.array(color, dtype=np.float32) - pixels[where])


def draw_legend(
    canvas: ImageDraw.ImageDraw,
    size: tuple[int, int],
    true: list[PixelBox],
    predicted: list[PixelBox],
    ignored: bool = False,
) -> None:
    """Name the colours in the corner that covers the least of the boxes, or nowhere if the image is too small."""
    labels = [("true" if true else "none true", TRUE_COLOR)]
    labels += [("predicted" if predicted else "none predicted", PREDICTED_COLOR)]
    labels += [("ignored", IGNORED_COLOR)] if ignored else []
    font_size = max(8, round(max(size) / 24))
    font = ImageFont.load_default(size=font_size)
    padding, line = font_size // 3, font_size + font_size // 3
    width = round(max(font.getlength(text) for text, _ in labels)) + font_size + 3 * padding
    height = line * len(labels) + padding
    if width > size[0] or height > size[1] or width * height > LEGEND_SHARE * size[0] * size[1]:
        return

    def covered(corner: tuple[int, int]) -> int:
        x, y = corner
        return sum(
            max(0, min(x + width, x2) - max(x, x1)) * max(0, min(y + height, y2) - max(y, y1))
            for x1, y1, x2, y2 in true + predicted
        )

    right, bottom = size[0] - width, size[1] - height
    x, y = min([(0, 0), (right, 0), (0, bottom), (right, bottom)], key=covered)
    canvas.rectangle((x, y, x + width - 1, y + height - 1), fill=LEGEND_BACKGROUND)
    for row, (text, color) in enumerate(labels):
        top = y + padding + row * line
        canvas.rectangle((x + padding, top, x + padding + font_size - 1, top + font_size - 1), fill=color)
        middle = top + font_size / 2
        canvas.text((x + 2 * padding + font_size, middle), text, fill=LEGEND_TEXT, font=font, anchor="lm")
