"""What may be wrong with a row's picture or text, in whatever format; see `tests.support.faults`."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from struct import pack
from zlib import compress, crc32

import numpy as np
from PIL import Image

from tests.support import session
from tests.support.fault_formats import SIZE, Row, encoded, picture

Change = Callable[[Row], None]


@dataclass(frozen=True)
class Fault:
    """`refused` is what the reason says; without it, the row is used as if nothing were wrong, but for its word
    "lesion", which reads `word` then, and its picture, which is shown with `size` and a pixel of `colour`
    at `place`."""

    change: Change
    refused: str = ""
    word: str = "lesion"
    size: tuple[int, int] = SIZE
    place: tuple[int, int] = (32, 4)
    colour: tuple[int, int, int] = (0, 0, 255)


def shows(content: bytes | Path | None) -> Change:
    return lambda row: setattr(row, "picture", content)


def says(**values) -> Change:
    return lambda row: row.data.update(values)


def reads(line: bytes) -> Change:
    return lambda row: setattr(row, "line", line)


def links_to(content: bytes) -> Change:
    """A link to a file of the same content that is in no dataset's folder."""

    def change(row: Row) -> None:
        row.elsewhere = Path(tempfile.mkdtemp(dir=session.FOLDER), "outside")
        row.elsewhere.write_bytes(content)

    return change


def lacks(key: str) -> Change:
    return lambda row: row.data.pop(key) and None


def word(text: str) -> Change:
    def replaced(value):
        if isinstance(value, list):
            return [replaced(item) for item in value]
        if isinstance(value, dict):
            return {key: replaced(item) for key, item in value.items()}
        return value.replace("lesion", text) if isinstance(value, str) else value

    return lambda row: row.data.update({key: replaced(value) for key, value in row.data.items()})


@cache
def outside() -> Path:
    """A good picture that is in no dataset's folder."""
    return (
        session.once("outside", lambda folder: (folder / "outside.jpg").write_bytes(encoded(picture())))
        / "outside.jpg"
    )


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + pack(">I", 13) + header + pack(">I", crc32(header)) + pack(">I", 9) + b"IDAT"


def png_of_16_bits(channels: int) -> bytes:
    """A PNG whose samples have 16 bits, of which Pillow keeps 8: grey with transparency (2) or colours (3)."""
    kind = {2: 4, 3: 2}[channels]
    line = b"\0" + np.full(SIZE[0] * channels, 4095, ">u2").tobytes()
    parts = {b"IHDR": pack(">IIBBBBB", *SIZE, 16, kind, 0, 0, 0), b"IDAT": compress(line * SIZE[1]), b"IEND": b""}
    chunks = (pack(">I", len(data)) + name + data + pack(">I", crc32(name + data)) for name, data in parts.items())
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture(), exif=exif)


def animated(format: str) -> bytes:
    return encoded(picture(), format, save_all=True, append_images=[Image.new("RGB", SIZE, "red")] * 2)


def with_palette() -> bytes:
    image = picture().quantize(64)
    corner = image.getpixel((0, 0))
    return encoded(image, "PNG", transparency=bytes(0 if colour == corner else 255 for colour in range(64)))


WHOLE = encoded(picture())
DEEP = np.linspace(0, 65535, SIZE[0] * SIZE[1]).reshape(SIZE[::-1])
HEIC = pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + pack(">I", 8) + b"mdat"
PICTURES = {
    **{
        f"JPEG cut after {n} tenths": Fault(shows(WHOLE[: len(WHOLE) * n // 10]), "image cannot be read")
        for n in range(1, 10)
    },
    "zero bytes": Fault(shows(b""), "image cannot be read: not an image"),
    "no picture": Fault(shows(None), "image"),
    "a text named .jpg": Fault(shows(b"<html>404 not found</html>"), "image cannot be read: not an image"),
    "a HEIC named .jpg": Fault(shows(HEIC), "image cannot be read: not an image"),
    "the header of a PNG of 50,000 by 50,000": Fault(
        shows(png_header(50_000, 50_000)), "2500000000 pixels) exceeds limit"
    ),
    "the header of a PNG of 10,000 by 10,000": Fault(
        shows(png_header(10_000, 10_000)), "10000×10000 pixels is larger"
    ),
    "16 bits of grey": Fault(
        shows(encoded(Image.fromarray(DEEP.astype(np.uint16)), "PNG")), "image of mode I;16, deeper than 8 bits"
    ),
    "16 bits of each colour": Fault(shows(png_of_16_bits(3)), "image of mode RGB;16B, deeper than 8 bits"),
    "16 bits of grey and of transparency": Fault(shows(png_of_16_bits(2)), "image of mode LA;16B, deeper than 8 bits"),
    "32 bits of grey": Fault(
        shows(encoded(Image.fromarray(DEEP.astype(np.float32)), "TIFF")), "image of mode F, deeper than 8 bits"
    ),
    "a sliver": Fault(shows(encoded(Image.new("RGB", (1005, 5)), "PNG")), "1005×5 pixels is more than 200 times"),
    "a picture outside of the folder": Fault(
        lambda row: setattr(row, "picture", outside()), "no image, or one outside the dataset's folder"
    ),
    "CMYK": Fault(shows(encoded(picture().convert("CMYK")))),
    "a palette with transparency": Fault(shows(with_palette()), colour=(255, 255, 255)),
    "a picture with transparency": Fault(shows(encoded(picture().convert("RGBA"), "PNG"))),
    "an animated GIF": Fault(shows(animated("GIF"))),
    "an animated WebP": Fault(shows(animated("WEBP"))),
    "an animated PNG": Fault(shows(animated("PNG"))),
    "turned upside down by EXIF": Fault(shows(turned(3)), place=(32, 44)),
}
TURNED = Fault(shows(turned(6)), size=SIZE[::-1], place=(44, 32))
TEXTS = {
    name: Fault(word(text), word=text)
    for name, text in {
        "control characters": "le\0si\x1b[2Jo\x07n\x7f",
        "right-to-left marks": "\u202enoisel\u2066\u200f",
        "HTML": "<script>alert(1)</script>&lt;img src=x onerror=alert(1)>",
        "special tokens of other models": "<image></s>[SEG][SEP]<pad><extra_id_0>",
        "what only Python takes for a new line": "les\u2028i\x85on",
    }.items()
}
