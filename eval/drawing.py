"""What is true in green, what was predicted in orange: boxes and masks drawn on a copy of an image."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_cdt

from ..rows.background import on_background
from .metrics.boxes import Box

TRUE_COLOR, PREDICTED_COLOR, IGNORED_COLOR = (0, 158, 80), (255, 96, 0), (128, 128, 128)
LEGEND_TEXT, LEGEND_BACKGROUND = (20, 20, 20), (255, 255, 255)
LEGEND_SHARE = 0.12  # of the image's area: a legend that would hide more than this is left out
TRUE_SHARE, PREDICTED_SHARE = 0.18, 0.32  # of a mask's colour over the picture
IGNORED_SHARES = 0.75, 0.3  # on the stripes and between them
SMALLEST, LARGEST = 256, 1024  # pixels of the longer side of a picture that is `fitted`
PixelBox = tuple[int, int, int, int]


def draw_boxes(
    image: Image.Image,
    true_boxes: Iterable[Box],
    predicted_boxes: Iterable[Box] | None,
    true_names: Iterable[str] = (),
    predicted_names: Iterable[str] = (),
) -> Image.Image:
    """Return an RGB copy of `image` with its true boxes in green, its predicted ones in orange and a small legend.

    Boxes are `[x1, y1, x2, y2]` in pixels of `image`, corners in any order; what lies outside the image is drawn at
    its border, and a box with a NaN is left out. Where a prediction is exact, both colours of the line are seen. Where
    boxes have names, one each, a true one's stands above its box and a predicted one's below. Without a prediction to
    compare with (None), there is no legend.
    """
    drawn = on_background(image)
    canvas, width = ImageDraw.Draw(drawn), max(2, round(max(drawn.size) / 80))
    kinds = [(list(true_boxes), true_names, TRUE_COLOR, width)]
    predicted = [] if predicted_boxes is None else list(predicted_boxes)
    kinds += [(predicted, predicted_names, PREDICTED_COLOR, max(1, width // 2))]
    for boxes, _, color, thickness in kinds:
        for box in visible_boxes(boxes, drawn.size):
            canvas.rectangle(box, outline=color, width=thickness)
    for boxes, names, color, _ in kinds:
        for one, name in zip(boxes, names, strict=False):  # there may be no names
            for box in visible_boxes([one], drawn.size):
                draw_name(canvas, drawn.size, box, name, color)
    true, predicted = (visible_boxes(boxes, drawn.size) for boxes, *_ in kinds)
    draw_legend(canvas, drawn.size, true, None if predicted_boxes is None else predicted)
    return drawn


def draw_name(
    canvas: ImageDraw.ImageDraw, size: tuple[int, int], box: PixelBox, name: str, color: tuple[int, int, int]
) -> None:
    """A name on its colour, above a true box or below a predicted one; inside of one that has no room there."""
    font_size = max(8, round(max(size) / 24))
    font, text = ImageFont.load_default(size=font_size), " ".join(name.encode(errors="replace").decode().split())
    width, height = math.ceil(font.getlength(text)) + font_size // 2, font_size + font_size // 4
    if not text or width > size[0] or height > size[1]:
        return
    x1, y1, _, y2 = box
    above, below = y1 - height >= 0, y2 + height < size[1]
    top = (y1 - height if above else y1) if color == TRUE_COLOR else (y2 + 1 if below else y2 - height)
    left, top = min(x1, size[0] - width), min(max(top, 0), size[1] - height)
    canvas.rectangle((left, top, left + width - 1, top + height - 1), fill=color)
    canvas.text((left + font_size // 4, top + height / 2), text, fill=LEGEND_BACKGROUND, font=font, anchor="lm")


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
    predicted_masks: Sequence[np.ndarray] | None,
    ignore: np.ndarray | None = None,
) -> Image.Image:
    """Return an RGB copy of `image` with its masks outlined and faintly filled, `ignore` hatched, and a small legend.

    Masks are bool, `[height, width]` of the image; any other raises ValueError. The copy is `fitted`. Where a
    prediction is exact, both colours of the outline are seen. Without one to compare with (None), the legend has no
    more than what is true and ignored.
    """
    given = {"true": true_masks, "predicted": () if predicted_masks is None else predicted_masks}
    given |= {"ignored": () if ignore is None else (ignore,)}
    for name, masks in given.items():
        for mask in masks:
            if mask.shape != image.size[::-1] or mask.dtype != bool:
                expected = f"bool of shape {image.size[::-1]}, the image's height and width"
                raise ValueError(f"{name} mask: {mask.dtype} of shape {mask.shape} instead of {expected}.")
    copy = fitted(image)
    size, pixels = copy.size, np.asarray(copy).astype(np.float32)
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
    true, predicted = ([Image.fromarray(mask).getbbox() for mask in masks] for masks in (true, predicted))
    predicted = None if predicted_masks is None else predicted
    draw_legend(ImageDraw.Draw(drawn), size, true, predicted, ignored=bool(ignored))
    return drawn


def fitted(image: Image.Image) -> Image.Image:
    """An RGB copy whose longer side has 256 to 1024 pixels.

    A small picture is enlarged by a whole factor, so that a line does not hide it, and a large one reduced.
    """
    factor = min(LARGEST / max(image.size), 1) * math.ceil(SMALLEST / max(image.size))
    size = tuple(max(1, round(side * factor)) for side in image.size)
    resampling = Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS
    return on_background(image).resize(size, resampling, reducing_gap=1.0)


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
    predicted: list[PixelBox] | None,
    ignored: bool = False,
) -> None:
    """Name the colours in the corner that covers the least of the boxes, or nowhere if the image is too small.

    Without a prediction to compare with, and nothing ignored, one colour would be all that it names: there is none.
    """
    if predicted is None and not ignored:
        return
    labels = [("true" if true else "none true", TRUE_COLOR)]
    labels += [] if predicted is None else [("predicted" if predicted else "none predicted", PREDICTED_COLOR)]
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
            for x1, y1, x2, y2 in true + (predicted or [])
        )

    right, bottom = size[0] - width, size[1] - height
    x, y = min([(0, 0), (right, 0), (0, bottom), (right, bottom)], key=covered)
    canvas.rectangle((x, y, x + width - 1, y + height - 1), fill=LEGEND_BACKGROUND)
    for row, (text, color) in enumerate(labels):
        top = y + padding + row * line
        canvas.rectangle((x + padding, top, x + padding + font_size - 1, top + font_size - 1), fill=color)
        middle = top + font_size / 2
        canvas.text((x + 2 * padding + font_size, middle), text, fill=LEGEND_TEXT, font=font, anchor="lm")
