"""The data page's figures as PNG bytes: every part in its colour over the same axes, so that a shift is seen."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ..plotting import GREY, INK, ORANGE, STYLE, WIDTH, as_png, color_of, new_figure, shortened, show_plain_numbers
from .summary import Part

LEGEND = {"loc": "outside lower center", "ncols": 2}
MARKERS = "oDs^vP"
BINS = 40
RATIOS = {"1:4": 1 / 4, "1:2": 1 / 2, "2:3": 2 / 3, "1:1": 1, "3:2": 3 / 2, "2:1": 2, "4:1": 4}
HEAT = LinearSegmentedColormap.from_list("heat", ["#ffffff", "#9fc9e8", "#0067b1", "#00203d"])
SMALL = 0.1  # where half of all areas are below this share of the image, their axis is logarithmic
NOTABLE = 0.05  # share of images that makes a size worth naming
SMALLEST = 1e-4  # what is smaller still stands at the left end of that axis


def draw_data_figures(
    parts: Sequence[Part], token_lengths: Sequence[int] = (), token_budget: int | None = None
) -> dict[str, bytes]:
    """Draw what there is data for: name to PNG."""
    figures = {}
    with rc_context(STYLE):
        if any(len(part.sizes) for part in parts):
            figures |= {"sizes": sizes_figure(parts), "aspects": aspects_figure(parts)}
        if any(part.placed for part in parts):
            figures |= {"areas": areas_figure(parts), "places": places_figure(parts)}
        if any(part.questions for part in parts):
            figures["questions"] = questions_figure(parts)
        if len(token_lengths):
            figures["tokens"] = tokens_figure(token_lengths, token_budget)
        return {name: as_png(figure) for name, figure in figures.items()}


def sizes_figure(parts: Sequence[Part]) -> Figure:
    """Width against height of every image: a marker for each size, the larger the more images have it."""
    every = np.concatenate([part.sizes for part in parts])
    figure, [panel] = new_figure(1, 1)
    low, high = every.min(), every.max()
    ends = 0, 1.15 * high
    if high > 8 * low:
        ends = low / 1.3, high * 1.3
        panel.set(xscale="log", yscale="log")
        for axis in (panel.xaxis, panel.yaxis):
            show_plain_numbers(axis, (1, 2, 5))
    panel.plot(ends, ends, color=GREY, linewidth=1, linestyle=":", zorder=1)
    panel.set(xlim=ends, ylim=ends, xlabel="width in pixels", ylabel="height in pixels")
    for place, part in enumerate(parts):
        sizes, counts = np.unique(part.sizes, axis=0, return_counts=True)
        if len(sizes):
            style = {"facecolor": "none", "alpha": 0.9} if place else {"facecolor": color_of(0), "alpha": 0.3}
            style |= {"marker": MARKERS[place % len(MARKERS)], "edgecolor": color_of(place)}
            label = _label(part.name, len(part.sizes), "image")
            panel.scatter(*sizes.T, s=8 + 280 * counts / counts.sum(), label=label, **style)
    sizes, counts = np.unique(every, axis=0, return_counts=True)
    (width, height), share = sizes[counts.argmax()], counts.max() / counts.sum()
    most = f", {share:.0%} have {width:.0f}×{height:.0f}" if share > NOTABLE else ""
    panel.set_title(f"All images have {width:.0f}×{height:.0f}" if share == 1 else f"{len(sizes):,} image sizes{most}")
    for handle in figure.legend(**LEGEND).legend_handles:
        handle.set_sizes([40])
    return figure


def aspects_figure(parts: Sequence[Part]) -> Figure:
    """Width over height on a logarithmic axis, where an image and the same one lying are equally far from a square."""
    ratios = [np.log2(part.sizes[:, 0] / part.sizes[:, 1]) for part in parts]
    furthest = max(1.1, max(abs(part).max() for part in ratios if len(part)) + 0.1)
    figure, panel = _histograms(parts, ratios, np.linspace(-furthest, furthest, BINS + 1), "image", "width : height")
    shown = {name: np.log2(ratio) for name, ratio in RATIOS.items() if abs(np.log2(ratio)) <= furthest}
    panel.set_xticks(list(shown.values()), list(shown))
    panel.set_title("Aspect ratios of images")
    return figure


def areas_figure(parts: Sequence[Part]) -> Figure:
    """How much of its image a box or mask covers, from 0 to 1."""
    of_masks = any(len(part.masks) for part in parts)
    areas = [part.masks if of_masks else part.areas for part in parts]
    every = np.concatenate(areas)
    what = "mask" if of_masks else "box"
    are_small, bins = np.median(every) < SMALL, np.linspace(0, max(1.0, every.max()), BINS + 1)
    if are_small:
        bins = np.geomspace(SMALLEST, bins[-1], BINS + 1)
        areas = [part.clip(min=SMALLEST) for part in areas]
    figure, panel = _histograms(parts, areas, bins, what, f"{what} as a share of its image")
    if are_small:
        panel.set_xscale("log")
        show_plain_numbers(panel.xaxis, (1,))
    panel.set_title(f"Sizes of {_plural(what)}: half cover less than {np.median(every):.2g} of their image")
    return figure


def places_figure(parts: Sequence[Part]) -> Figure:
    """Where in the image boxes or masks are: a heat map for each part, all of one scale."""
    shown = [part for part in parts if part.placed]
    what = "mask" if any(len(part.masks) for part in shown) else "box"
    figure, panels = new_figure(1, len(shown), 1.5 + 0.92 * WIDTH / max(len(shown), 2), sharey=True)
    highest = max(part.place.max() for part in shown) or 1.0
    for panel, part in zip(panels, shown, strict=True):
        heat = panel.imshow(part.place, cmap=HEAT, vmin=0, vmax=highest, extent=(0, 1, 1, 0))
        n = max(len(part.boxes), len(part.masks))
        of = f" of {n:,}" if part.placed < n else ""
        panel.set_title(f"{shortened(part.name)}\nn = {part.placed:,}{of}", fontsize=9)
        panel.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        panel.grid(visible=False)
    figure.suptitle(f"Where {_plural(what)} are in their images", x=0.01, ha="left", fontsize=11, fontweight="bold")
    bar = figure.colorbar(heat, ax=panels, location="bottom", shrink=0.7, aspect=36, pad=0.04)
    bar.set_label(f"share of {_plural(what)} that cover this place")
    bar.outline.set_visible(False)
    return figure


def questions_figure(parts: Sequence[Part]) -> Figure:
    """How many questions there are about one image."""
    counts = [np.array(list(part.questions.values()), dtype=int) for part in parts]
    most = max(part.max() for part in counts if len(part))
    width = -(-most // BINS)  # of a bar, in questions
    bins = np.arange(0.5, most + width + 0.5, width)
    figure, panel = _histograms(parts, counts, bins, "image", "questions about one image")
    panel.set(xlim=(0, most + width), title="Questions per image")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def tokens_figure(token_lengths: Sequence[int], token_budget: int | None) -> Figure:
    """Lengths of rows in tokens, with the budget as a line and the share of rows above it."""
    lengths = np.asarray(token_lengths, dtype=float)
    low, high = lengths.min(), lengths.max()
    figure, [panel] = new_figure(1, 1)
    panel.set(xlabel="tokens", ylabel="rows", title=f"Token lengths: longest {high:,.0f}, n = {len(lengths):,}")
    width = max(1, np.ceil((high - low + 1) / BINS))  # whole tokens, so that no bar has more of them than another
    edges = np.arange(low - 0.5, high + width, width)
    panel.hist(lengths, bins=edges, color=color_of(0), alpha=0.55)
    panel.axvline(np.median(lengths), color=INK, linewidth=1.4, label=f"median {np.median(lengths):,.0f}")
    if token_budget is not None:
        over = lengths > token_budget
        label = f"budget {token_budget:,}: {over.sum():,} ({over.mean():.1%}) are longer"
        panel.axvline(token_budget, color=ORANGE, linewidth=2, linestyle="--", label=label)
        if token_budget <= 2 * high:  # one further to the right would leave the bars no room
            high = max(high, token_budget)
    panel.set_xlim(0, 1.08 * high)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(**LEGEND)
    return figure


def _histograms(
    parts: Sequence[Part], values: Sequence[np.ndarray], bins: np.ndarray, what: str, across: str
) -> tuple[Figure, Axes]:
    """Each part's share in every bin: the first part filled, the others as outlines over it."""
    figure, [panel] = new_figure(1, 1)
    for place, (part, of_part) in enumerate(zip(parts, values, strict=True)):
        if len(of_part):
            style = {"alpha": 0.4, "fill": True} if place == 0 else {"fill": False, "linewidth": 1.8}
            shares = np.histogram(of_part, bins)[0] / len(of_part)
            panel.stairs(shares, bins, color=color_of(place), label=_label(part.name, len(of_part), what), **style)
    panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    panel.set(xlabel=across, ylabel=f"share of {_plural(what)}", ylim=(0, None))
    figure.legend(**LEGEND)
    return figure, panel


def _label(name: str, n: int, what: str) -> str:
    return f"{shortened(name)}, n = {n:,} {what if n == 1 else _plural(what)}"


def _plural(what: str) -> str:
    return {"box": "boxes"}.get(what, f"{what}s")
