"""What the report's figures are made of: curves out of a training log, and panels to draw them on."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from .page import visible

Log = Sequence[Mapping[str, Any]]  # trainer.state.log_history
Curve = tuple[np.ndarray, np.ndarray]  # steps, values

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
MARKED_POINTS = 40  # curves up to this long show their points, so that a single one is seen


def color_of(place: int) -> str:
    """The colour of a curve or a part by its place among all."""
    return CURVE_COLORS[place % len(CURVE_COLORS)]


def as_number(value: Any) -> float | None:
    """`value` as a float, which may be NaN or infinite; None for what is no number."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def curve(log_history: Log, key: str) -> Curve:
    """Steps and values of `key`, in order, one value a step (the last logged), from `LARGEST` on as NaN."""
    points = {}
    for entry in log_history:
        step, value = as_number(entry.get("step")), as_number(entry.get(key))
        if step is not None and value is not None and np.isfinite(step):
            points[step] = value if abs(value) < LARGEST else np.nan
    steps = sorted(points)
    return np.array(steps, dtype=float), np.array([points[step] for step in steps], dtype=float)


def panels_over_steps(height_ratios: Sequence[float], title: str = "") -> tuple[Figure, list[Axes]]:
    """A figure with panels one above the other over the same optimizer steps."""
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    panels = figure.subplots(len(height_ratios), sharex=True, squeeze=False, height_ratios=height_ratios)[:, 0]
    panels[0].set_title(title)
    panels[-1].set_xlabel("optimizer step")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    return figure, list(panels)


def draw_curve(panel: Axes, points: Curve, label: str | None, color: str, **style: Any) -> None:
    """Plot one curve, with a red cross at the foot of the panel wherever a value is not finite."""
    steps, values = points
    finite = np.isfinite(values)
    if finite.any():
        marker = "o" if len(steps) <= MARKED_POINTS else ""
        panel.plot(steps, values, label=label, color=color, marker=marker, markersize=4, **style)
    if not finite.all():
        foot = np.full(np.sum(~finite), 0.03)
        label = f"{len(foot)} not finite"
        panel.plot(steps[~finite], foot, "x", color="#c00000", transform=panel.get_xaxis_transform(), label=label)


def use_log_scale(panel: Axes, values: np.ndarray, from_ratio: float) -> None:
    """Switch to a logarithmic axis with plain numbers if the positive values span more than `from_ratio`."""
    positive = values[values > 0]  # no NaN among them
    ratio = positive.max() / positive.min() if len(positive) else 1
    if ratio > from_ratio:
        panel.set_yscale("log", nonpositive="mask")
        show_plain_numbers(panel.yaxis, (1, 2, 5) if ratio < 300 else (1,))


def show_plain_numbers(axis: Axis, marked: Sequence[int]) -> None:
    """Name a logarithmic axis's powers of ten, and `marked` times them, as numbers."""
    axis.set_major_locator(LogLocator(subs=marked))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def shortened(name: str) -> str:
    """A name that leaves room for the figure, without characters that cannot be drawn."""
    name = visible(name)
    return name if len(name) <= 28 else f"{name[:27]}…"


def as_png(figure: Figure) -> bytes:
    """Render on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    return buffer.getvalue()
