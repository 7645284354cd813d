"""The report of a run: one HTML file that needs nothing else, and its figures as PNG files beside it."""

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from PIL import Image

from eval.figures import FIGURE_NAMES, draw_figures
from eval.page import PAGES, replace_file
from eval.panels import Log, as_number

REJECTED_SHOWN = 20
Results = Mapping[str, Mapping[str, Any]]  # split -> metric -> number


@dataclass
class GalleryItem:
    """One evaluated row: its image as it should be shown (boxes drawn), its texts, and a score to rank it by."""

    id: str
    image: Image.Image | None
    question: str
    reference: str
    prediction: str
    score: float | None


@dataclass
class Published:
    """Numbers of others to stand beside this run's test results, under the same names and in the same unit."""

    metric_names: Sequence[str]
    rows: Sequence[tuple[str, Mapping[str, float], str]]  # name, metric -> value, note
    source: str


@dataclass
class ResultRow:
    """One metric of one split with what it takes to believe it; None is "not known"."""

    name: str
    value: float
    low: float | None
    high: float | None
    n: float | None
    baseline: float | None


def write_report(
    output_dir: str | os.PathLike,
    *,
    title: str,
    headline: str,
    log_history: Log,
    results: Results,
    gallery: Sequence[GalleryItem] = (),
    published: Published | None = None,
    run: Mapping[str, Any] | None = None,
    rejected: Sequence[Mapping[str, Any]] | None = None,
) -> Path:
    """Write `report.html` and `figures/*.png` into `output_dir` and return the page's path.

    `results` holds per split `n` and, for a metric `m`, also `m_low` and `m_high` (its 95% interval), `baseline_m` and
    `m_n`. `headline` names the metric shown first, and over time as `eval_<headline>`. Everything may be empty or NaN,
    as in a run that has just begun; until `run["finished"]` is true the page reloads itself. Files are replaced whole,
    so that nobody reads half of one.
    """
    output_dir, run, rejected = Path(output_dir), run or {}, rejected or []
    splits = sorted(results, key=lambda split: (split != "test", split != "validation"))
    tables = {split: metric_table(results[split], headline) for split in splits}
    split, headline_metric = find_headline(tables, log_history, headline)
    comparison = comparison_rows(published, tables.get("test", [])) if published else []
    figures = draw_figures(
        log_history,
        headline,
        baseline=baseline_line(results, log_history, headline),
        published_metrics=published.metric_names if published else (),
        published_rows=[(name, numbers, ours) for name, numbers, _, ours in comparison],
    )
    for name in FIGURE_NAMES:
        if name in figures:
            replace_file(output_dir / "figures" / f"{name}.png", figures[name])
        else:
            (output_dir / "figures" / f"{name}.png").unlink(missing_ok=True)
    page = PAGES.get_template("report.html.jinja").render(
        title=title,
        headline=headline,
        split=split,
        metric=headline_metric,
        tables=tables,
        figures=figures,
        gallery=dict(zip(("Best", "Worst"), best_and_worst(gallery), strict=True)),
        gallery_size=len(gallery),
        published=published,
        comparison=comparison,
        finished=bool(run.get("finished")),
        step=latest(log_history, "step"),
        epoch=latest(log_history, "epoch"),
        written=f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        run=run_sections(run),
        rejected=rejected[:REJECTED_SHOWN],
        rejected_size=len(rejected),
        reasons=Counter(str(row.get("reason")) for row in rejected).most_common(REJECTED_SHOWN),
    )
    return replace_file(output_dir / "report.html", page.encode())


def metric_table(values: Mapping[str, Any], headline: str) -> list[ResultRow]:
    """The metrics of one split, the headline first, each with its interval, n and baseline; no number, no row."""
    numbers = {key: number for key, value in values.items() if (number := as_number(value)) is not None}
    companions = {"n"} | {key for key in numbers if key.endswith("_n")}
    for key in numbers:
        companions |= {f"{key}_low", f"{key}_high", f"baseline_{key}"}
    return [
        ResultRow(
            name=key,
            value=numbers[key],
            low=numbers.get(f"{key}_low"),
            high=numbers.get(f"{key}_high"),
            n=numbers.get(f"{key}_n", numbers.get("n")),
            baseline=numbers.get(f"baseline_{key}"),
        )
        for key in sorted(numbers, key=lambda key: key != headline)
        if key not in companions
    ]


def latest(log_history: Log, key: str) -> float | None:
    """The last number logged under `key`."""
    return next((number for entry in reversed(log_history) if (number := as_number(entry.get(key))) is not None), None)


def find_headline(
    tables: Mapping[str, list[ResultRow]], log_history: Log, headline: str
) -> tuple[str, ResultRow | None]:
    """The headline's split and metric: from the results if they have it, else from the last evaluation logged."""
    logged = next((entry for entry in reversed(log_history) if f"eval_{headline}" in entry), {})
    last = metric_table({key.removeprefix("eval_"): value for key, value in logged.items()}, headline)
    for split, metrics in [*tables.items(), ("validation", last)]:
        if metrics and metrics[0].name == headline:
            return split, metrics[0]
    return "", None


def baseline_line(results: Results, log_history: Log, headline: str) -> tuple[str, float] | None:
    """Label and value of the curve's dashed line: the validation rows' baseline if known, else the test rows'."""
    key = f"baseline_{headline}"
    candidates = [
        ("trivial baseline", results.get("validation", {}).get(key)),
        ("trivial baseline", latest(log_history, f"eval_{key}")),
        ("trivial baseline (test)", results.get("test", {}).get(key)),
    ]
    return next(((label, number) for label, value in candidates if (number := as_number(value)) is not None), None)


def comparison_rows(published: Published, test: list[ResultRow]) -> list[tuple[str, Mapping[str, float], str, bool]]:
    """Name, numbers, note and "is ours" of this run and its baseline, then of the published rows."""
    compared = [metric for metric in test if metric.name in published.metric_names]
    rows = [(name, numbers, note, False) for name, numbers, note in published.rows]
    baselines = {metric.name: metric.baseline for metric in compared if metric.baseline is not None}
    if baselines:
        rows.insert(0, ("Trivial baseline", baselines, "on the rows of this run", True))
    if compared:
        sizes = " / ".join(dict.fromkeys(f"{metric.n:,.0f}" for metric in compared if metric.n is not None))
        note = "measured here, test split" + (f", n = {sizes}" if sizes else "")
        rows.insert(0, ("This run", {metric.name: metric.value for metric in compared}, note, True))
    return rows


def best_and_worst(
    gallery: Sequence[GalleryItem], n_best: int = 6, n_worst: int = 6
) -> tuple[list[GalleryItem], list[GalleryItem]]:
    """The best rows, best first, and the worst, worst first: no id twice, no score below every other."""

    def badness(item: GalleryItem) -> float:
        score = as_number(item.score)
        return math.inf if score is None or math.isnan(score) else -score

    unique: dict[str, GalleryItem] = {}
    for item in gallery:
        unique.setdefault(item.id, item)
    ranked = sorted(unique.values(), key=badness)
    n_best = min(n_best, math.ceil(len(ranked) / 2))
    return ranked[:n_best], ranked[n_best:][::-1][:n_worst]


def run_sections(run: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The run's plain values under "run", then each of its mappings (arguments, versions, …) under its own name."""
    sections = {"run": {key: value for key, value in run.items() if not isinstance(value, Mapping)}}
    sections |= {key: value for key, value in run.items() if isinstance(value, Mapping)}
    return {name: values for name, values in sections.items() if values}
