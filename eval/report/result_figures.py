"""The report's figures of results: beside published numbers, by group, with constraints on answers and without."""

import textwrap
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from .page import short
from .plotting import BLUE, GREY, INK, LARGEST, ORANGE, new_figure, shortened
from .tables import Published, PublishedRow, ResultRow

BAR, TOTAL_BAR, FADED = "#a9cdea", "#6ba9d8", "#b9c3cc"
PUBLISHED_DRAWN = 4  # metrics side by side; the table has all
BASELINE = {"linestyle": "", "marker": "|", "markersize": 11, "color": INK, "markeredgewidth": 2}
HOLLOW = {"linestyle": "", "markerfacecolor": "white"}
QUESTION_BASELINE = HOLLOW | {"marker": "D", "markersize": 5.5, "markeredgecolor": INK, "markeredgewidth": 1.2}
FREE = HOLLOW | {"marker": "o", "markersize": 9.5, "markeredgecolor": ORANGE, "markeredgewidth": 1.8}
CONSTRAINED = {"marker": "o", "color": BLUE, "markersize": 5.5, "linestyle": ""}


def published_figure(published: Published | None, rows: Sequence[PublishedRow]) -> Figure | None:
    """One panel of bars for each of the first metrics, one bar per row, what was measured here in colour."""
    metrics = published.metric_names[:PUBLISHED_DRAWN] if published else ()
    if not metrics or not rows:
        return None
    figure, panels = new_figure(1, len(metrics), 1 + 0.36 * len(rows), sharey=True)
    for panel, metric in zip(panels, metrics, strict=True):
        for position, (_, values, _, own) in enumerate(rows):
            value = values.get(metric)
            known = value is not None and np.isfinite(value)
            color = BLUE if own and position == 0 else GREY if own else FADED
            panel.barh(position, value if known else 0, color=color, height=0.68)
            text = f" {value:.3g}" if known else " –"
            panel.text(max(value, 0) if known else 0, position, text, va="center", fontweight="bold" if own else None)
        lines = textwrap.wrap(metric.replace("_", "_ "), 52 // len(metrics))  # at underscores
        panel.set_title("\n".join(lines).replace("_ ", "_"), fontsize=11 if len(metrics) < 3 else 8)
        panel.set_yticks(range(len(rows)), [shortened(name) for name, *_ in rows])
        panel.margins(x=0.6 / 4 * len(metrics))
        panel.grid(axis="y", visible=False)
    panel.invert_yaxis()
    return figure


def groups_figure(rows: Sequence[ResultRow], headline: str) -> Figure | None:
    """A bar per group with its 95% interval and its baselines, the value beside it; the totals at the foot."""
    rows = list(map(drawable, rows))
    if not np.isfinite([row.value for row in rows]).any():
        return None
    figure, [panel], positions = panels_over_groups(rows, [1])
    for position, row in zip(positions, rows, strict=True):
        panel.barh(position, row.value, color=TOTAL_BAR if row.is_total else BAR, height=0.7)
        draw_interval(panel, position, row.low, row.high)
        panel.vlines(row.baseline, position - 0.42, position + 0.42, color="white", linewidth=4.2)
        panel.vlines(row.baseline, position - 0.4, position + 0.4, color=INK, linewidth=2)
        panel.plot(row.question_baseline, position, **QUESTION_BASELINE)
        write_at_right(panel, position, row.value, bold=True)
    handles = [
        Patch(color=BAR, label=shortened(headline)),
        Line2D([], [], color=INK, linewidth=1.3, label="95% interval"),
        Line2D([], [], **BASELINE, label="trivial baseline"),
    ]
    if any(np.isfinite(row.question_baseline) for row in rows):
        handles.append(Line2D([], [], **QUESTION_BASELINE, label="per-question baseline"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    panel.set_title(f"{shortened(headline)} by group")
    in_shares(panel, [number for row in rows for number in (row.value, row.low, row.high)])
    return figure


def free_constrained_figure(rows: Sequence[ResultRow], headline: str) -> Figure | None:
    """Per group the metric without and with constraints on the answer; beside it their difference, row by row."""
    rows = list(map(drawable, rows))
    if not np.isfinite([row.free for row in rows]).any():
        return None
    figure, [both, difference], positions = panels_over_groups(rows, [1.5, 1])
    figure.get_layout_engine().set(wspace=0.06)
    difference.axvline(0, color=GREY, linewidth=1.2)
    for position, row in zip(positions, rows, strict=True):
        both.plot([row.free, row.value], [position] * 2, color=FADED, linewidth=3, zorder=1)
        both.plot(row.free, position, **FREE)
        both.plot(row.value, position, **CONSTRAINED)
        draw_interval(difference, position, row.gain_low, row.gain_high)
        difference.plot(row.gain, position, **CONSTRAINED)
        write_at_right(difference, position, row.gain, bold=row.is_total, sign="+" if row.gain > 0 else "")
    handles = [
        Line2D([], [], **FREE, label="free"),
        Line2D([], [], **CONSTRAINED, label="constrained"),
        Line2D([], [], color=INK, linewidth=1.3, label="95% interval of the paired difference"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    both.set_title(shortened(headline))
    difference.set_title("constrained − free")
    difference.margins(x=0.1)
    difference.xaxis.set_major_locator(MaxNLocator(3))
    in_shares(both, [number for row in rows for number in (row.value, row.free)])
    return figure


def drawable(row: ResultRow) -> ResultRow:
    """The row with NaN, which is not drawn, for what is none or cannot be shown."""
    numbers = {name: value for name, value in vars(row).items() if name not in ("name", "is_total")}
    shown = {key: value if value is not None and abs(value) < LARGEST else np.nan for key, value in numbers.items()}
    return replace(row, **shown)


def panels_over_groups(rows: Sequence[ResultRow], ratios: Sequence[float]) -> tuple[Figure, list[Axes], list[float]]:
    """A figure with panels side by side over the same groups, named with their n, and where each stands in them."""
    figure, panels = new_figure(1, len(ratios), 1.25 + 0.44 * len(rows), sharey=True, width_ratios=ratios)
    positions = [i + 0.35 * row.is_total for i, row in enumerate(rows)]  # the totals a little apart
    labels = [shortened(row.name) + (f"\nn = {row.n:,.0f}" if np.isfinite(row.n) else "") for row in rows]
    panels[0].set_yticks(positions, labels)
    panels[0].set_ylim(positions[-1] + 0.6, -0.6)
    for panel in panels:
        panel.grid(axis="y", visible=False)
        panel.spines["left"].set_visible(False)
        panel.tick_params(axis="y", length=0)
    return figure, panels, positions


def draw_interval(panel: Axes, position: float, low: float, high: float) -> None:
    """A line from end to end, with a short stroke at both."""
    panel.plot([low, high], [position] * 2, color=INK, linewidth=1.3, marker="|", markersize=6, markeredgewidth=1.3)


def write_at_right(panel: Axes, position: float, value: float, bold: bool, sign: str = "") -> None:
    """A number as the tables have it, in line with the row, in a column right of the panel."""
    text, weight = "–" if np.isnan(value) else sign + short(value), "bold" if bold else "normal"
    panel.text(1.03, position, text, transform=panel.get_yaxis_transform(), va="center_baseline", fontweight=weight)


def in_shares(panel: Axes, values: Sequence[float]) -> None:
    """Show 0 to 1 where all values lie there."""
    if np.nanmin(values) >= 0 and np.nanmax(values) <= 1:
        panel.set_xlim(0, 1)
