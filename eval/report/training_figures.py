"""The report's figures over the optimizer steps: the metric, the loss with its parts, and gradient norms."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ..metrics.number import keys_of
from .plotting import BLUE, GREY, HEIGHT, INK, LARGEST, ORANGE, color_of, new_figure, shortened
from .tables import Log, as_number

Curve = tuple[np.ndarray, np.ndarray]  # steps, values

MARKED_POINTS = 40  # curves up to this long show their points, so that a single one is seen
SMOOTHED_POINTS = 60  # train losses from this many on get a running mean


def metric_figure(log_history: Log, headline: str, baseline: float | None, also: Sequence[str] = ()) -> Figure | None:
    """`eval_<headline>` over time with its 95% interval and baseline, those of `also` with it; `eval_loss` below."""
    keys = {field: f"eval_{key}" for field, key in keys_of(headline).items()}
    names = [headline, *(name for name in also if name != headline)]
    curves = with_values({name: curve(log_history, f"eval_{name}") for name in names})
    loss = with_values({"eval loss": curve(log_history, "eval_loss")})
    if headline not in curves:
        curves = {}
    if not curves and not loss:
        return None
    figure, panels = panels_over_steps([2.4] * bool(curves) + [1] * bool(loss))
    if loss:
        draw_curve(panels[-1], loss["eval loss"], "eval loss", ORANGE)
        panels[-1].set_ylabel("eval loss")
    if curves:
        panel, (steps, values) = panels[0], curves[headline]
        best = np.nanargmax(values)
        panel.set_title(f"Validation {headline}: highest {values[best]:.3f} at step {steps[best]:.0f}")
        for index, (name, points) in enumerate(curves.items()):
            draw_curve(panel, points, shortened(name), color_of(index + 1) if index else BLUE)
        panel.set_ylabel(shortened(", ".join(curves)))
        (low_steps, low), (high_steps, high) = (curve(log_history, keys[end]) for end in ("low", "high"))
        if len(low) and np.array_equal(low_steps, high_steps):
            panel.fill_between(low_steps, low, high, color=BLUE, alpha=0.18, linewidth=0, label="95% interval")
            if len(low) == 1:  # too narrow to be seen as an area
                panel.vlines(low_steps, low, high, color=BLUE, alpha=0.35, linewidth=5)
        if baseline is not None and np.isfinite(baseline):
            panel.axhline(baseline, color=GREY, linestyle="--", linewidth=1.4, label="trivial baseline")
        panel.margins(y=0.12)
        if min(np.nanmin(drawn) for _, drawn in curves.values()) >= 0:
            panel.set_ylim(bottom=0)
        panel.legend(loc="best")
    return figure


def loss_figure(log_history: Log) -> Figure | None:
    """Train loss (with a running mean once it is long) and validation loss, its parts, and the learning rate.

    A part is what is logged as `loss_<part>`; a log without any has no panel for them.
    """
    train, validation, rates = (curve(log_history, key) for key in ("loss", "eval_loss", "learning_rate"))
    parts = {name: points for name, points in curves_under("loss_", log_history).items() if len(points[0])}
    if not len(train[0]) and not len(validation[0]):
        return None
    ratios = [2.4] + [2] * bool(parts) + [1] * bool(len(rates[0]))
    figure, panels = panels_over_steps(ratios, title="Loss", height=HEIGHT + 1.5 * bool(parts))
    window = mean_window(train)
    draw_smoothed(panels[0], train, f"train (mean of {window} logs)" if window > 1 else "train", BLUE)
    draw_curve(panels[0], validation, "validation", ORANGE)
    finish_panel(panels[0], "loss", [train, validation], from_ratio=20)
    panels[0].legend(loc="best")
    if parts:
        for index, (name, points) in enumerate(parts.items()):
            draw_smoothed(panels[1], points, shortened(name), color_of(index + 2))
        finish_panel(panels[1], "parts", parts.values(), from_ratio=20)
        panels[1].legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2, ncols=4)
    if len(rates[0]):
        draw_curve(panels[-1], rates, None, GREY)
        panels[-1].set(ylabel="learning rate", ylim=(0, None))
        panels[-1].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    return figure


def gradient_figure(log_history: Log) -> Figure | None:
    """Gradient norms before clipping, in total and by group, and the share of steps that were clipped."""
    groups = curves_under("grad_norm/", log_history)
    _, clipped = groups.pop("clipped_share", ((), np.empty(0)))
    total, groups = with_values({"total": curve(log_history, "grad_norm")}), with_values(dict(sorted(groups.items())))
    curves = [*total.values(), *groups.values()]
    if not curves:
        return None
    shares = clipped[np.isfinite(clipped)]  # each of all steps so far
    share = f": {shares[-1]:.0%} of steps clipped" if len(shares) else ""
    figure, [panel] = panels_over_steps([1], title=f"Gradient norm before clipping{share}")
    for name, points in total.items():
        draw_curve(panel, points, name, INK, linewidth=2.6)
    for index, (name, points) in enumerate(groups.items()):
        zero = " (always 0)" if not np.nan_to_num(points[1]).any() else ""
        draw_curve(panel, points, shortened(name) + zero, color_of(index), linewidth=1.3)
    finish_panel(panel, "L2 norm", curves, from_ratio=3)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def curve(log_history: Log, key: str) -> Curve:
    """Steps and values of `key`, in order, one value a step (the last logged), from `LARGEST` on as NaN."""
    points = {}
    for entry in log_history:
        step, value = as_number(entry.get("step")), as_number(entry.get(key))
        if step is not None and value is not None and np.isfinite(step):
            points[step] = value if abs(value) < LARGEST else np.nan
    steps = sorted(points)
    return np.array(steps, dtype=float), np.array([points[step] for step in steps], dtype=float)


def curves_under(prefix: str, log_history: Log) -> dict[str, Curve]:
    """The curves of the keys that begin with `prefix`, by what follows it, in the order in which they were logged."""
    keys = dict.fromkeys(key for entry in log_history for key in entry if key.startswith(prefix))
    return {key.removeprefix(prefix): curve(log_history, key) for key in keys}


def with_values(curves: dict[str, Curve]) -> dict[str, Curve]:
    """Those of which there is a finite value."""
    return {name: points for name, points in curves.items() if np.isfinite(points[1]).any()}


def panels_over_steps(ratios: Sequence[float], title: str = "", height: float = HEIGHT) -> tuple[Figure, list[Axes]]:
    """A figure with panels one above the other over the same optimizer steps."""
    figure, panels = new_figure(len(ratios), 1, height, sharex=True, height_ratios=ratios)
    panels[0].set_title(title)
    panels[-1].set_xlabel("optimizer step")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    return figure, panels


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


def mean_window(points: Curve) -> int:
    """Over how many values of a curve its running mean goes; 1 for a short curve, which is shown as it is."""
    return len(points[0]) // 20 if len(points[0]) >= SMOOTHED_POINTS else 1


def draw_smoothed(panel: Axes, points: Curve, label: str, color: str) -> None:
    """Plot a curve; a long one faintly, with its running mean over it."""
    (steps, values), window = points, mean_window(points)
    if window > 1:
        draw_curve(panel, points, None, color, alpha=0.3, linewidth=1)
        mean = np.convolve(values, np.full(window, 1 / window), mode="valid")  # a gap where a value is not finite
        panel.plot(steps[window // 2 :][: len(mean)], mean, label=label, color=color)
    else:
        draw_curve(panel, points, label, color)


def finish_panel(panel: Axes, label: str, curves: Iterable[Curve], from_ratio: float) -> None:
    """Name what goes up; on a logarithmic axis with plain numbers if it spans more than `from_ratio`."""
    panel.set_ylabel(label)
    positive = [values[values > 0] for _, values in curves]  # no NaN among them
    positive = [values for values in positive if len(values)]
    ratio = max(map(np.max, positive)) / min(map(np.min, positive)) if positive else 1
    if ratio > from_ratio:
        panel.set_yscale("log", nonpositive="mask")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if ratio < 300 else (1,)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.yaxis.set_minor_formatter(NullFormatter())
        # over a range that a few values near 0 do not stretch
        panel.set_ylim(bottom=0.8 * min(np.percentile(values, 1) for values in positive))
