"""The report's figures of the training itself: the loss with its parts, and gradient norms."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from .plotting import (
    BLUE,
    GREY,
    HEIGHT,
    INK,
    ORANGE,
    WIDTH,
    Curve,
    Log,
    color_of,
    curve,
    draw_curve,
    panels_over_steps,
    shortened,
    use_log_scale,
)

SMOOTHED_POINTS = 60  # train losses from this many on get a running mean


def loss_figure(log_history: Log) -> Figure | None:
    """Train loss (with a running mean once it is long) and validation loss, its parts, and the learning rate.

    A part is what is logged as `loss_<part>`; a log without any has no panel for them.
    """
    train, validation = curve(log_history, "loss"), curve(log_history, "eval_loss")
    rates = curve(log_history, "learning_rate")
    parts = loss_parts(log_history)
    if not len(train[0]) and not len(validation[0]):
        return None
    ratios = [2.4] + [2] * bool(parts) + [1] * bool(len(rates[0]))
    figure, panels = panels_over_steps(ratios, title="Loss")
    if parts:
        figure.set_size_inches(WIDTH, HEIGHT + 1.5)
    window = mean_window(train)
    draw_smoothed(panels[0], train, f"train (mean of {window} logs)" if window > 1 else "train", BLUE)
    draw_curve(panels[0], validation, "validation", ORANGE)
    panels[0].set_ylabel("loss")
    use_log_scale(panels[0], np.concatenate([train[1], validation[1]]), from_ratio=20)
    panels[0].legend(loc="best")
    if parts:
        draw_parts(panels[1], parts)
    if len(rates[0]):
        draw_curve(panels[-1], rates, None, GREY)
        panels[-1].set(ylabel="learning rate", ylim=(0, None))
        panels[-1].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    return figure


def loss_parts(log_history: Log) -> dict[str, Curve]:
    """The curves of the keys that begin with `loss_`, by what follows it, in the order in which they were logged."""
    keys = dict.fromkeys(key for entry in log_history for key in entry if key.startswith("loss_"))
    curves = {key.removeprefix("loss_"): curve(log_history, key) for key in keys}
    return {name: points for name, points in curves.items() if len(points[0])}


def draw_parts(panel: Axes, parts: dict[str, Curve]) -> None:
    """One curve per part, over a range that a few values near 0 do not stretch where it is logarithmic."""
    for index, (name, points) in enumerate(parts.items()):
        draw_smoothed(panel, points, shortened(name), color_of(index + 2))
    panel.set_ylabel("parts")
    use_log_scale(panel, np.concatenate([values for _, values in parts.values()]), from_ratio=20)
    if panel.get_yscale() == "log":
        positive = [values[values > 0] for _, values in parts.values()]
        panel.set_ylim(bottom=0.8 * min(np.percentile(values, 1) for values in positive if len(values)))
    panel.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2, ncols=4)


def mean_window(points: Curve) -> int:
    """Over how many values of a curve its running mean goes; 1 for a short curve, which is shown as it is."""
    return len(points[0]) // 20 if len(points[0]) >= SMOOTHED_POINTS else 1


def draw_smoothed(panel: Axes, points: Curve, label: str, color: str) -> None:
    """Plot a curve; a long one faintly, with its running mean over it."""
    (steps, values), window = points, mean_window(points)
    if window == 1:
        draw_curve(panel, points, label, color)
        return
    draw_curve(panel, points, None, color, alpha=0.3, linewidth=1)
    mean = np.convolve(values, np.full(window, 1 / window), mode="valid")
    panel.plot(steps[window // 2 :][: len(mean)], mean, label=label, color=color)  # a gap where a value is not finite


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
            label = shortened(key.removeprefix("grad_norm/")) + zero
            draw_curve(panels[0], points, label, color_of(index - 1), linewidth=1.3)
    panels[0].set_ylabel("L2 norm")
    use_log_scale(panels[0], np.concatenate([values for _, values in curves.values()]), from_ratio=3)
    figure.legend(loc="outside lower center", ncols=3)
    if with_clipped:
        draw_curve(panels[1], clipped, None, GREY)
        panels[1].set(ylabel="clipped", ylim=(-0.05, 1.05))
        panels[1].yaxis.set_major_formatter(PercentFormatter(1))
    return figure
