"""The report's figures as PNG bytes, drawn with matplotlib's object API: no pyplot, nothing kept between calls."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from eval.group_figures import free_constrained_figure, groups_figure
from eval.panels import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    STYLE,
    WIDTH,
    Log,
    as_png,
    curve,
    draw_curve,
    panels_over_steps,
    shortened,
    use_log_scale,
)
from eval.tables import GroupRow

GROUP_COLORS = ["#0067b1", "#d55e00", "#009e73", "#b8559a", "#b58900", "#3aa0d8", "#8c564b", "#6b6bd6"]
FIGURE_NAMES = ("metric", "loss", "gradient_norms", "published", "groups", "free_constrained")
SMOOTHED_POINTS = 60  # train losses from this many on get a running mean


def draw_figures(
    log_history: Log,
    headline: str,
    baseline: tuple[str, float] | None = None,
    published_metrics: Sequence[str] = (),
    published_rows: Sequence[tuple[str, Mapping[str, float | None], bool]] = (),
    groups: Sequence[GroupRow] = (),
) -> dict[str, bytes]:
    """Draw those of `FIGURE_NAMES` that there is data for: name to PNG.

    `baseline` is a label and a value in the metric's unit; a published row is a name, its numbers, and whether it
    is this run's; `groups` are of one split.
    """
    with rc_context(STYLE):
        figures = (
            metric_figure(log_history, headline, baseline),
            loss_figure(log_history),
            gradient_figure(log_history),
            published_figure(published_metrics, published_rows),
            groups_figure(groups, headline),
            free_constrained_figure(groups, headline),
        )
        drawn = zip(FIGURE_NAMES, figures, strict=True)
        return {name: as_png(figure) for name, figure in drawn if figure is not None}


def metric_figure(log_history: Log, headline: str, baseline: tuple[str, float] | None) -> Figure | None:
    """`eval_<headline>` over time with its 95% interval and baseline; `eval_loss` below it."""
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
        (low_steps, low), (high_steps, high) = curve(log_history, f"{key}_low"), curve(log_history, f"{key}_high")
        if len(low) and np.array_equal(low_steps, high_steps):
            panel.fill_between(low_steps, low, high, color=BLUE, alpha=0.18, linewidth=0, label="95% interval")
            if len(low) == 1:  # too narrow to be seen as an area
                panel.vlines(low_steps, low, high, color=BLUE, alpha=0.35, linewidth=5)
        if baseline is not None and np.isfinite(baseline[1]):
            panel.axhline(baseline[1], color=GREY, linestyle="--", linewidth=1.4, label=baseline[0])
        panel.margins(y=0.12)
        if np.nanmin(values) >= 0:
            panel.set_ylim(bottom=0)
        panel.legend(loc="best")
    return figure


def loss_figure(log_history: Log) -> Figure | None:
    """Train loss (with a running mean once it is long) and validation loss; the learning rate below them."""
    train, validation = curve(log_history, "loss"), curve(log_history, "eval_loss")
    rates = curve(log_history, "learning_rate")
    if not len(train[0]) and not len(validation[0]):
        return None
    figure, panels = panels_over_steps([2.4, 1] if len(rates[0]) else [1], title="Loss")
    if len(train[0]) >= SMOOTHED_POINTS:
        window = len(train[0]) // 20
        mean = np.convolve(train[1], np.full(window, 1 / window), mode="valid")
        draw_curve(panels[0], train, None, BLUE, alpha=0.3, linewidth=1)
        draw_curve(panels[0], (train[0][window // 2 :][: len(mean)], mean), f"train (mean of {window} logs)", BLUE)
    else:
        draw_curve(panels[0], train, "train", BLUE)
    draw_curve(panels[0], validation, "validation", ORANGE)
    panels[0].set_ylabel("loss")
    use_log_scale(panels[0], np.concatenate([train[1], validation[1]]), from_ratio=20)
    panels[0].legend(loc="best")
    if len(rates[0]):
        draw_curve(panels[1], rates, None, GREY)
        panels[1].set(ylabel="learning rate", ylim=(0, None))
        panels[1].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    return figure


def gradient_figure(log_history: Log) -> Figure | None:
    """Gradient norms before clipping, in total and by group, and the share of steps that were clipped."""
    names = {key for entry in log_history for key in entry if key.startswith("grad_norm/")}
    groups = sorted(names - {"grad_norm/clipped_share"})
    curves = {key: curve(log_history, key) for key in ["grad_norm", *groups]}
    curves = {key: points for key, points in curves.items() if np.isfinite(points[1]).any()}
    if not curves:
        return None
    clipped = curve(log_history, "grad_norm/clipped_share")
    with_clipped = np.isfinite(clipped[1]).any()
    title = "Gradient norm before clipping"
    if with_clipped:
        title += f": {np.nanmean(clipped[1]):.0%} of steps clipped"
    figure, panels = panels_over_steps([3, 1] if with_clipped else [1], title=title)
    for index, (key, points) in enumerate(curves.items()):
        if key == "grad_norm":
            draw_curve(panels[0], points, "total", INK, linewidth=2.6)
        else:
            zero = " (always 0)" if not np.nan_to_num(points[1]).any() else ""
            color = GROUP_COLORS[(index - 1) % len(GROUP_COLORS)]
            draw_curve(panels[0], points, shortened(key.removeprefix("grad_norm/")) + zero, color, linewidth=1.3)
    panels[0].set_ylabel("L2 norm")
    use_log_scale(panels[0], np.concatenate([values for _, values in curves.values()]), from_ratio=3)
    figure.legend(loc="outside lower center", ncols=3)
    if with_clipped:
        draw_curve(panels[1], clipped, None, GREY)
        panels[1].set(ylabel="clipped", ylim=(-0.05, 1.05))
        panels[1].yaxis.set_major_formatter(PercentFormatter(1))
    return figure


def published_figure(
    metrics: Sequence[str], rows: Sequence[tuple[str, Mapping[str, float | None], bool]]
) -> Figure | None:
    """One panel of bars per metric, one bar per row, what was measured here in colour."""
    if not metrics or not rows:
        return None
    figure = Figure(figsize=(WIDTH, 1 + 0.36 * len(rows)), layout="constrained")
    names = [shortened(name) for name, _, _ in rows]
    for panel, metric in zip(figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0], metrics, strict=True):
        for position, (_, values, own) in enumerate(rows):
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
