"""The report's figures as PNG bytes, drawn with matplotlib's object API: no pyplot, nothing kept between calls."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from .group_figures import free_constrained_figure, groups_figure
from .plotting import (
    BLUE,
    GREY,
    ORANGE,
    STYLE,
    WIDTH,
    Log,
    as_png,
    color_of,
    curve,
    draw_curve,
    panels_over_steps,
    shortened,
)
from .tables import PublishedRow, ResultRow
from .training_figures import gradient_figure, loss_figure

FIGURE_NAMES = ("metric", "loss", "gradient_norms", "published", "groups", "free_constrained")


def draw_figures(
    log_history: Log,
    headline: str,
    baseline: tuple[str, float] | None = None,
    published_metrics: Sequence[str] = (),
    published_rows: Sequence[PublishedRow] = (),
    groups: Sequence[ResultRow] = (),
    also: Sequence[str] = (),
) -> dict[str, bytes]:
    """Draw those of `FIGURE_NAMES` that there is data for: name to PNG.

    `baseline` is a label and a value in the metric's unit; published rows are from `comparison_rows`; `groups` are of
    one split; `also` names metrics to draw beside the headline over time.
    """
    with rc_context(STYLE):
        figures = (
            metric_figure(log_history, headline, baseline, also),
            loss_figure(log_history),
            gradient_figure(log_history),
            published_figure(published_metrics, published_rows),
            groups_figure(groups, headline),
            free_constrained_figure(groups, headline),
        )
        drawn = zip(FIGURE_NAMES, figures, strict=True)
        return {name: as_png(figure) for name, figure in drawn if figure is not None}


def metric_figure(
    log_history: Log, headline: str, baseline: tuple[str, float] | None, also: Sequence[str] = ()
) -> Figure | None:
    """`eval_<headline>` over time with its 95% interval and baseline, those of `also` with it; `eval_loss` below."""
    key = f"eval_{headline}"
    curves = {headline: curve(log_history, key), "eval loss": curve(log_history, "eval_loss")}
    curves = {name: points for name, points in curves.items() if np.isfinite(points[1]).any()}
    if not curves:
        return None
    figure, panels = panels_over_steps([2.4, 1][: len(curves)])
    for panel, name in zip(panels, curves, strict=True):
        draw_curve(panel, curves[name], name, BLUE if name == headline else ORANGE)
        panel.set_ylabel(name)
    if headline in curves:
        panel, (steps, values) = panels[0], curves[headline]
        best = np.nanargmax(values)
        panel.set_title(f"Validation {headline}: highest {values[best]:.3f} at step {steps[best]:.0f}")
        beside = {name: curve(log_history, f"eval_{name}") for name in also if name != headline}
        beside = {name: points for name, points in beside.items() if np.isfinite(points[1]).any()}
        for index, (name, points) in enumerate(beside.items()):
            draw_curve(panel, points, shortened(name), color_of(index + 2))
        if beside:
            panel.set_ylabel(shortened(", ".join([headline, *beside])))
        (low_steps, low), (high_steps, high) = curve(log_history, f"{key}_low"), curve(log_history, f"{key}_high")
        if len(low) and np.array_equal(low_steps, high_steps):
            panel.fill_between(low_steps, low, high, color=BLUE, alpha=0.18, linewidth=0, label="95% interval")
            if len(low) == 1:  # too narrow to be seen as an area
                panel.vlines(low_steps, low, high, color=BLUE, alpha=0.35, linewidth=5)
        if baseline is not None and np.isfinite(baseline[1]):
            panel.axhline(baseline[1], color=GREY, linestyle="--", linewidth=1.4, label=baseline[0])
        panel.margins(y=0.12)
        if min(np.nanmin(drawn) for _, drawn in [curves[headline], *beside.values()]) >= 0:
            panel.set_ylim(bottom=0)
        panel.legend(loc="best")
    return figure


def published_figure(metrics: Sequence[str], rows: Sequence[PublishedRow]) -> Figure | None:
    """One panel of bars per metric, one bar per row, what was measured here in colour."""
    if not metrics or not rows:
        return None
    figure = Figure(figsize=(WIDTH, 1 + 0.36 * len(rows)), layout="constrained")
    names = [shortened(name) for name, *_ in rows]
    for panel, metric in zip(figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0], metrics, strict=True):
        for position, (_, values, _, own) in enumerate(rows):
            value = values.get(metric)
            known = value is not None and np.isfinite(value)
            color = BLUE if own and position == 0 else GREY if own else "#b9c3cc"
            panel.barh(position, value if known else 0, color=color, height=0.68)
            text = f" {value:.3g}" if known else " –"
            panel.text(max(value, 0) if known else 0, position, text, va="center", fontweight="bold" if own else None)
        lines = textwrap.wrap(metric.replace("_", "_ "), 52 // len(metrics))  # at underscores
        panel.set_title("\n".join(lines).replace("_ ", "_"), fontsize=11 if len(metrics) < 3 else 8)
        panel.set_yticks(range(len(rows)), names)
        panel.margins(x=0.6 / 4 * len(metrics))
        panel.grid(axis="y", visible=False)
    panel.invert_yaxis()
    return figure
