"""What all figures of the report have in common."""

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .page import visible

BLUE, ORANGE, GREY, INK = "#0067b1", "#d55e00", "#767676", "#222222"
CURVE_COLORS = [BLUE, ORANGE, "#009e73", "#b8559a", "#b58900", "#3aa0d8", "#8c564b", "#6b6bd6"]
STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "text.parse_math": False,  # a "$" in a name is a dollar, not a formula
}
WIDTH, HEIGHT, DPI = 5.6, 3.9, 170  # inches, shown at about 100 pixels each and still legible at 70
LARGEST = 1e100  # a run that has diverged this far has no number to show


def color_of(place: int) -> str:
    """The colour of a curve or a part by its place among all."""
    return CURVE_COLORS[place % len(CURVE_COLORS)]


def shortened(name: str) -> str:
    """A name that leaves room for the figure, without characters that cannot be drawn."""
    name = visible(name)
    return name if len(name) <= 28 else f"{name[:27]}…"


def new_figure(rows: int, columns: int, height: float = HEIGHT, **grid: Any) -> tuple[Figure, list[Axes]]:
    """A figure as wide as all, and its panels."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **grid).flat)


def as_png(figure: Figure) -> bytes:
    """Render on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    return buffer.getvalue()
