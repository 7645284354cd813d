"""The data page of a run: one HTML file, beside the report, that shows what is in the rows."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..check import Check
from ..page import DATA_PAGE, write_page
from ..plotting import color_of
from .summary import Rows, summarize_part
from .tables import answer_table, overview, type_table

EXAMPLES_SHOWN = 12


@dataclass
class Example:
    """One row as the model gets it: its images after resizing (`seen_images`), and its texts, if any.

    `drawn` is its own picture with what is true on it (`vlm_recipes.eval.drawn_row.draw_row`), or None.
    """

    id: str
    images: Sequence[Image.Image]
    question: str = ""
    answer: str = ""
    drawn: Image.Image | None = None


def write_data_page(
    output_dir: str | os.PathLike,
    *,
    title: str,
    parts: Mapping[str, Rows],
    checks: Sequence[Check] = (),
    examples: Sequence[Example] = (),
) -> Path:
    """Write `data.html` into `output_dir`, beside the report, and return its path.

    Args:
        parts: split -> rows, the training part first: the others are compared with it. `summarize_part` says which
            columns are read.
        checks: what was found in the rows, shown before everything.
        examples: the first twelve are shown.
    """
    known = [summarize_part(name, rows) for name, rows in parts.items()]
    return write_page(
        Path(output_dir) / DATA_PAGE,
        "data.html.jinja",
        title=f"{title}: the data",
        parts=known,
        colors=[color_of(place) for place in range(len(known))],
        overview=overview(known),
        checks=checks,
        answers=answer_table(known),
        types=type_table(known),
        examples=examples[:EXAMPLES_SHOWN],
        n_examples=len(examples),
    )
