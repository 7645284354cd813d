"""Pictures with transparent pixels become what is seen of them on a background; imports nothing of this project."""

from PIL import Image, ImageChops


def on_background(picture: Image.Image, background: str = "white") -> Image.Image:
    """An RGB copy of a picture, composited on a `background`: a colour as Pillow names it.

    A pixel of alpha `a` (0-1) becomes `a * colour + (1 - a) * background`, rounded (Porter and Duff's "over",
    SIGGRAPH 1984), so that the colour that a file has under an invisible pixel is not seen. Transparent are an alpha
    channel, in a palette or beside grey, too, and the one colour that a PNG or GIF declares to be so. A picture
    without is `picture.convert("RGB")`, as is one whose pixels are all opaque.
    """
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    if picture.mode == "La":  # grey times alpha, which Pillow makes RGBA without its alpha
        picture = picture.convert("LA")
    layer = picture.convert("RGBA")
    seen = layer.convert("RGB")
    seen.paste(background, mask=ImageChops.invert(layer.getchannel("A")))
    seen.info.pop("transparency", None)  # or the same colour would be taken for transparent again
    return seen
