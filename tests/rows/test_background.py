"""What is transparent in a picture is composited, by the formula and as Pillow does it; what is opaque stays."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.rows.test_usable import picture
from vlm_recipes.rows.background import on_background

COLOURS = {"white": 255, "black": 0}
ALPHA = np.random.default_rng(1).choice([0, 1, 37, 127, 128, 200, 254, 255], (30, 40)).astype(np.uint8)


def with_alpha(mode: str) -> Image.Image:
    """A picture with all degrees of transparency, in one of the modes that have an alpha channel."""
    layered = picture().convert("LA" if mode in ("LA", "La") else "RGBA")
    layered.putalpha(Image.fromarray(ALPHA))
    return layered if layered.mode == mode else layered.convert(mode)


def palette_with_alpha() -> Image.Image:
    """A palette of 256 colours, each with an alpha of its own: as a PNG keeps it, in `info["transparency"]`."""
    paletted = picture().quantize(256)
    paletted.info["transparency"] = bytes(range(256))
    return stored(paletted)


def stored(image: Image.Image, format: str = "PNG", **settings) -> Image.Image:
    file = io.BytesIO()
    image.save(file, format, **settings)
    return Image.open(file)


def by_hand(layered: Image.Image, background: str) -> np.ndarray:
    """`a * colour + (1 - a) * background` in whole numbers, rounded."""
    values = np.asarray(layered.convert("RGBA")).astype(int)
    colour, alpha = values[..., :3], values[..., 3:]
    return (2 * (colour * alpha + COLOURS[background] * (255 - alpha)) + 255) // 510


@pytest.mark.parametrize("background", COLOURS)
@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La", "palette"])
def test_a_picture_with_transparency_is_what_the_formula_and_pillow_s_own_compositing_give(mode, background):
    if mode == "PA":
        layered = picture().quantize(64).convert("PA")
        layered.putalpha(Image.fromarray(ALPHA))
    else:
        layered = palette_with_alpha() if mode == "palette" else with_alpha(mode)
    assert layered.mode == {"palette": "P"}.get(mode, mode)
    seen = on_background(layered, background)
    known = layered.convert("LA") if mode == "La" else layered  # Pillow has no way from La to RGBA
    assert len(set(known.convert("RGBA").getchannel("A").tobytes())) > 6
    assert seen.mode == "RGB" and np.array_equal(np.asarray(seen), by_hand(known, background))
    canvas = Image.new("RGBA", layered.size, background)
    pillow = Image.alpha_composite(canvas, known.convert("RGBA")).convert("RGB")
    assert np.abs(np.asarray(seen).astype(int) - np.asarray(pillow)).max() <= 1  # it rounds twice


@pytest.mark.parametrize("background", COLOURS)
@pytest.mark.parametrize(
    ("mode", "key"), [("RGB", (200, 10, 30)), ("L", 77), ("1", 0), ("P", 3)], ids=["RGB", "L", "1", "P"]
)
def test_the_one_colour_that_a_file_declares_transparent_is_not_seen_and_all_others_are(mode, key, background):
    values = {"RGB": [key, (200, 10, 31)], "L": [77, 78], "1": [0, 1], "P": [3, 4]}[mode]
    image = Image.new(mode, (2, 1))
    if mode == "P":
        image.putpalette([value for i in range(8) for value in (i, 10 * i, 20 * i)])
    for x, value in enumerate(values):
        image.putpixel((x, 0), value)
    declared = stored(image, transparency=key)
    assert declared.info["transparency"] is not None
    hidden, other = (on_background(declared, background).getpixel((x, 0)) for x in range(2))
    assert hidden == (COLOURS[background],) * 3
    assert other == {"RGB": (200, 10, 31), "L": (78,) * 3, "1": (255,) * 3, "P": (4, 40, 80)}[mode]


def test_a_gif_with_a_transparent_colour_shows_the_background():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((0, 0), 0)
    seen = on_background(stored(image, "GIF", transparency=0))
    assert seen.getpixel((0, 0)) == (255, 255, 255) and seen.getpixel((3, 3)) == (0, 0, 255)


def test_a_colour_under_invisible_pixels_changes_nothing():
    """It is there in the file, and conversion to RGB shows it."""
    one, other = Image.new("RGBA", (8, 8), (255, 0, 0, 0)), Image.new("RGBA", (8, 8), (0, 255, 0, 0))
    assert one.convert("RGB").getpixel((0, 0)) == (255, 0, 0)
    assert on_background(one).tobytes() == on_background(other).tobytes() == bytes([255]) * 192
    assert on_background(one, "black").tobytes() == bytes(192)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "YCbCr", "HSV", "LAB", "RGBX", "RGBA", "LA", "PA"])
@pytest.mark.parametrize("background", COLOURS)
def test_an_opaque_picture_is_bit_for_bit_its_conversion_to_rgb(mode, background):
    image = picture().quantize(64).convert("PA") if mode == "PA" else picture()
    if mode in ("HSV", "LAB"):
        image = Image.frombytes(mode, image.size, image.tobytes())
    elif image.mode != mode:
        image = image.convert(mode)
    try:
        expected = image.convert("RGB")
    except ValueError:  # from LAB Pillow has no way
        with pytest.raises(ValueError, match="conversion from LAB"):
            on_background(image, background)
        return
    before = image.tobytes()
    seen = on_background(image, background)
    assert seen.mode == "RGB" and seen.tobytes() == expected.tobytes()
    seen.paste("red", (0, 0, 9, 9))
    assert image.tobytes() == before  # it was a copy


def test_what_is_composited_is_opaque_keeps_its_exif_tag_and_is_not_composited_again():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = stored(with_alpha("RGBA"), exif=exif)
    image.info["transparency"] = (0, 0, 0)  # as conversions leave it behind
    seen = on_background(image, "black")
    assert not seen.has_transparency_data and seen.getexif()[0x0112] == 6
    assert on_background(seen, "white").tobytes() == seen.tobytes()
