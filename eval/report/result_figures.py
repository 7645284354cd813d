"""The report's figure of results by group."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from .page import short
from .plotting import INK, LARGEST, new_figure, shortened
from .tables import ResultRow

BAR, TOTAL_BAR = "#a9cdea", "#6ba9d8"
SHOWN = ("value", "low", "high", "baseline", "question_baseline")
BEHIND_BASELINE = {"marker": "|", "color": "white", "markersize": 26, "markeredgewidth": 4.2}
BASELINE = {"marker": "|", "color": INK, "markersize": 24, "markeredgewidth": 2, "label": "trivial baseline"}
QUESTION_BASELINE = {"marker": "D", "markerfacecolor": "white", "markersize": 5.5, "markeredgecolor": INK}


def groups_figure(rows: Sequence[ResultRow], headline: str) -> Figure | None:
    """A bar per group with its 95% interval and its baselines, the value beside it; the totals at the foot."""
    numbers = [[_drawable(getattr(row.number, field)) for field in SHOWN] for row in rows]
    values, lows, highs, baselines, of_questions = np.array(numbers).reshape(-1, len(SHOWN)).T
    if not np.isfinite(values).any():
        return None
    figure, [panel] = new_figure(1, 1, 1.25 + 0.44 * len(rows))
    positions = [i + 0.35 * row.is_total for i, row in enumerate(rows)]  # the totals a little apart
    colors = [TOTAL_BAR if row.is_total else BAR for row in rows]
    panel.barh(positions, values, color=colors, height=0.7, label=shortened(headline))
    panel.hlines(positions, lows, highs, color=INK, linewidth=1.3, label="95% interval")
    panel.plot(baselines, positions, linestyle="", **BEHIND_BASELINE)
    panel.plot(baselines, positions, linestyle="", **BASELINE)
    if np.isfinite(of_questions).any():
        panel.plot(of_questions, positions, linestyle="", label="per-question baseline", **QUESTION_BASELINE)
    panel.set_yticks(positions, [f"{shortened(row.name)}\nn = {row.number.n:,}" for row in rows])
    panel.set_ylim(positions[-1] + 0.6, -0.6)
    panel.grid(axis="y", visible=False)
    panel.spines["left"].set_visible(False)
    panel.tick_params(axis="y", length=0)
    for position, value in zip(positions, values, strict=True):
        text, right = "–" if np.isnan(value) else short(value), panel.get_yaxis_transform()
        panel.text(1.03, position, text, transform=right, va="center_baseline", fontweight="bold")
    panel.set_title(f"{shortened(headline)} by group")
    ends = np.concatenate([values, lows, highs])
    if np.nanmin(ends) >= 0 and np.nanmax(ends) <= 1:
        panel.set_xlim(0, 1)
    figure.legend(loc="outside lower center", ncols=2, markerscale=0.6)
    return figure


def _drawable(number: float | None) -> float:
    """NaN, which is not drawn, for what is none or cannot be shown."""
    return number if number is not None and abs(number) < LARGEST else np.nan
