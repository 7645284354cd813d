"""Boxes drawn on a copy of an image: what is true in green, what was predicted in orange."""

import io
import math
from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw, ImageFont

TRUE_COLOR = (0, 158, 80)
PREDICTED_COLOR = (255, 96, 0)
LEGEND_TEXT = (20, 20, 20)
LEGEND_BACKGROUND = (255, 255, 255)
LEGEND_SHARE = 0.12  # of the image's area: a legend that would hide more than this is left out

Box = Sequence[float]


def draw_boxes(image: Image.Image, true_boxes: Iterable[Box], predicted_boxes: Iterable[Box]) -> Image.Image:
    """Return an RGB copy of `image` with its true boxes in green, its predicted ones in orange and a small legend.

    Boxes are `[x1, y1, x2, y2]` in pixels of `image`, corners in any order; what lies outside the image is drawn at
    its border, and a box with a NaN is left out. Where a prediction is exact, both colours of the line are seen.
    """
    drawn = image.convert("RGB")
    if drawn is image:
        drawn = image.copy()
    true_boxes = visible_boxes(true_boxes, drawn.size)
    predicted_boxes = visible_boxes(predicted_boxes, drawn.size)
    width = line_width(drawn.size)
    canvas = ImageDraw.Draw(drawn)
    for box in true_boxes:
        canvas.rectangle(box, outline=TRUE_COLOR, width=width)
    for box in predicted_boxes:
        canvas.rectangle(box, outline=PREDICTED_COLOR, width=max(1, width // 2))
    labels = [("true" if true_boxes else "none true", TRUE_COLOR)]
    labels.append(("predicted" if predicted_boxes else "none predicted", PREDICTED_COLOR))
    draw_legend(canvas, drawn.size, labels, true_boxes + predicted_boxes)
    return drawn


def line_width(size: tuple[int, int]) -> int:
    """Width in pixels of a true box's line, about 1/80 of the image's longer side; a predicted one's is half."""
    return max(2, round(max(size) / 80))


def visible_boxes(boxes: Iterable[Box], size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """Boxes as whole pixels inside the image, corners in order."""
    right, bottom = size[0] - 1, size[1] - 1
    inside = []
    for box in boxes:
        if any(math.isnan(coordinate) for coordinate in box):
            continue
        x1, y1, x2, y2 = box
        xs = sorted(round(min(max(x, 0), right)) for x in (x1, x2))
        ys = sorted(round(min(max(y, 0), bottom)) for y in (y1, y2))
        inside.append((xs[0], ys[0], xs[1], ys[1]))
    return inside


def draw_legend(
    canvas: ImageDraw.ImageDraw,
    size: tuple[int, int],
    labels: list[tuple[str, tuple[int, int, int]]],
    boxes: list[tuple[int, int, int, int]],
) -> None:
    """Write the labels in the corner that covers the least of the boxes, or nowhere if the image is too small."""
    font_size = max(8, round(max(size) / 24))
    font = ImageFont.load_default(size=font_size)
    padding, line = font_size // 3, font_size + font_size // 3
    width = round(max(font.getlength(text) for text, _ in labels)) + font_size + 3 * padding
    height = line * len(labels) + padding
    if width > size[0] or height > size[1] or width * height > LEGEND_SHARE * size[0] * size[1]:
        return

    def covered(corner: tuple[int, int]) -> int:
        x, y = corner
        overlaps = 0
        for x1, y1, x2, y2 in boxes:
            overlaps += max(0, min(x + width, x2) - max(x, x1)) * max(0, min(y + height, y2) - max(y, y1))
        return overlaps

    right, bottom = size[0] - width, size[1] - height
    x, y = min([(0, 0), (right, 0), (0, bottom), (right, bottom)], key=covered)
    canvas.rectangle((x, y, x + width - 1, y + height - 1), fill=LEGEND_BACKGROUND)
    for row, (text, color) in enumerate(labels):
        top = y + padding + row * line
        canvas.rectangle((x + padding, top, x + padding + font_size - 1, top + font_size - 1), fill=color)
        middle = top + font_size / 2
        canvas.text((x + 2 * padding + font_size, middle), text, fill=LEGEND_TEXT, font=font, anchor="lm")


def thumbnail_jpeg(image: Image.Image, pixels: int = 480) -> bytes:
    """JPEG bytes of an RGB copy of which no side is longer than `pixels`."""
    small = image.convert("RGB") if image.mode != "RGB" else image.copy()
    small.thumbnail((pixels, pixels), reducing_gap=2.0)
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=82)
    return buffer.getvalue()
