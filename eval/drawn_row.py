"""What a row says is true, drawn on its own picture, so that a person sees whether it is where it belongs."""

from PIL import Image, ImageOps

from ..rows.background import on_background
from ..rows.conventions import Row
from .drawing import draw_boxes, draw_masks, fitted
from .metrics.masks import decode


def draw_row(row: Row, background: str = "white") -> Image.Image | None:
    """A row's picture, upright, with its true masks, or its true boxes and their names, in green; 256 to 1024 pixels.

    Of an image with `queries` the first one's. None for a row that has neither `boxes` nor `masks`, and for one
    without one picture as a PIL image, under `image` or in `images`.

    Args:
        row: `boxes` are `[x1, y1, x2, y2]` in pixels as displayed, `categories` their names, if any; `masks`, and what
            is to be `ignore`d, are run lengths as from `vlm_recipes.eval.metrics.masks.encode`.
        background: what is transparent in the picture shows it, a colour's name.

    Raises `ValueError` for masks of another size than the picture.
    """
    of_query = (row.get("queries") or [row])[0]
    boxes, masks = of_query.get("boxes"), of_query.get("masks")
    pictures = row.get("images") or [row.get("image")]
    drawable = len(pictures) == 1 and isinstance(pictures[0], Image.Image)
    if not drawable or boxes is None and masks is None:
        return None
    upright = on_background(ImageOps.exif_transpose(pictures[0]), background)
    if masks is not None:
        ignore = of_query.get("ignore")
        return draw_masks(upright, [decode(mask) for mask in masks], None, decode(ignore) if ignore else None)
    shown = fitted(upright)
    scales = [new / old for new, old in zip(shown.size, upright.size, strict=True)] * 2
    placed = [[side * scale for side, scale in zip(box, scales, strict=True)] for box in boxes]
    return draw_boxes(shown, placed, None, of_query.get("categories") or ())
