"""How the report's page shows what it is given: numbers short, text escaped, cut and without hidden characters."""

import io
import math
import os
import re
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from ...rows.background import on_background

DATA_PAGE = "data.html"  # beside the report, in a run's folder
TEXT_LIMIT = 800  # characters of any one text that the page shows
EXACT, THUMBNAIL = 160, 480  # pixels of a picture's longer side up to which it is shown as it is, and at the most
# Control, bidirectional and lone surrogate characters, which would steer the page (or its encoding) unseen
HIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(value: Any) -> Any:
    """Text as the page may show it: cut at `TEXT_LIMIT`, hidden characters spelled out; Jinja2 then escapes it."""
    if isinstance(value, Markup | int | float):
        return value
    text = str(value)
    shown = HIDDEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text[:TEXT_LIMIT])
    return shown if len(text) <= TEXT_LIMIT else f"{shown}… ({len(text) - TEXT_LIMIT:,} more characters)"


def short(value: float) -> str:
    """A number to three or four digits."""
    if not math.isfinite(value):
        return str(value)
    value = round(value, 12) + 0.0  # a difference of floats that is none, and -0.0
    if value and not 0.001 <= abs(value) < 1e6:
        return f"{value:.2e}"
    return f"{value:,.3f}" if abs(value) < 10 else f"{value:,.2f}" if abs(value) < 100 else f"{value:,.1f}"


def picture_address(image: Image.Image) -> Markup:
    """The image as a `data:` address: a small one exactly, since each of its pixels can be seen, else a thumbnail."""
    exact, picture, buffer = max(image.size) <= EXACT, on_background(image), io.BytesIO()
    picture.thumbnail((THUMBNAIL, THUMBNAIL), reducing_gap=2.0)
    picture.save(buffer, format="PNG" if exact else "JPEG", quality=82)
    return Markup(f"data:image/{'png' if exact else 'jpeg'};base64,{b64encode(buffer.getvalue()).decode()}")


def replace_file(path: Path, data: bytes) -> Path:
    """Write a file in one step, as seen by its readers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    unfinished.write_bytes(data)
    os.replace(unfinished, path)
    return path


def write_page(path: Path, template: str, **shown: Any) -> Path:
    """Fill one of the templates, which also says when, and replace the file."""
    written = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return replace_file(path, PAGES.get_template(template).render(written=written, **shown).encode())


PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    finalize=visible,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
PAGES.filters.update(short=short, picture=picture_address, base64=lambda data: Markup(b64encode(data).decode()))
