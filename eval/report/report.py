"""The report of a run: one HTML file that needs nothing else, and its figures as PNG files beside it."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..metrics.confusion import Confusion
from .check import Check
from .gallery import GalleryItem, shelves
from .metric_figures import FIGURE_NAMES, draw_figures
from .page import DATA_PAGE, PAGES, replace_file
from .plotting import Log
from .tables import (
    Published,
    Results,
    baseline_line,
    comparison_rows,
    find_headline,
    group_table,
    latest,
    metric_table,
)

REJECTED_SHOWN = 20
PUBLISHED_DRAWN = 4  # metrics side by side; the table has all


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
    groups: Sequence[str] = (),
    confusions: Mapping[str, Confusion] | None = None,
    answered_split: str = "",
    also: Sequence[str] = (),
    checks: Sequence[Check] = (),
) -> Path:
    """Write `report.html` and `figures/*.png` into `output_dir` and return the page's path.

    `results` holds per split `n` and, for a metric `m`, also `m_low` and `m_high` (its 95% interval), `baseline_m` and
    `m_n`. `headline` names the metric shown first, and over time as `eval_<headline>`; `also` names those drawn over
    time beside it. `checks` stand before everything. All may be empty or NaN, as in a run that has just begun; until
    `run["finished"]` is true the page reloads itself. Files are replaced whole, so that nobody reads half of one.
    Where `vlm_recipes.eval.report.data.page` has left a page about the data, the report links to it.

    With `groups`, in the order to show, the headline is also shown by group: `<headline>_<group>` with the same
    companions and `question_baseline_…`, and where answers were constrained `free_<headline>_<group>` and
    `constrained_gain_<group>`. `confusions` holds one table per group; `answered_split` is whose rows they and the
    gallery are of.
    """
    output_dir, run, rejected = Path(output_dir), run or {}, rejected or []
    sections = {"run": {key: value for key, value in run.items() if not isinstance(value, Mapping)}}
    sections |= {key: value for key, value in run.items() if isinstance(value, Mapping)}
    results = {split: results[split] for split in sorted(results, key=lambda s: (s != "test", s != "validation"))}
    tables = {split: metric_table(values, headline, groups) for split, values in results.items()}
    split, values = find_headline(results, log_history, headline)
    group_tables = {name: group_table(part, headline, groups) for name, part in {**results, split: values}.items()}
    comparison = comparison_rows(published, metric_table(results.get("test", {}), headline)) if published else []
    figures = draw_figures(
        log_history,
        headline,
        baseline=baseline_line(results, log_history, headline),
        published_metrics=published.metric_names[:PUBLISHED_DRAWN] if published else (),
        published_rows=comparison,
        groups=group_tables[split],
        also=also,
    )
    for name in FIGURE_NAMES:
        if name in figures:
            replace_file(output_dir / "figures" / f"{name}.png", figures[name])
        else:
            (output_dir / "figures" / f"{name}.png").unlink(missing_ok=True)
    page = PAGES.get_template("report.html.jinja").render(
        title=title,
        headline=headline,
        also=also,
        split=split,
        metric=next(iter(metric_table(values, headline)), None),
        tables=tables,
        group_tables={name: rows for name, rows in group_tables.items() if rows},
        confusions=confusions or {},
        answered_split=answered_split,
        figures=figures,
        shelves=[shelf for shelf in shelves(gallery) if shelf.items],
        published=published,
        comparison=comparison,
        finished=bool(run.get("finished")),
        step=latest(log_history, "step"),
        epoch=latest(log_history, "epoch"),
        checks=checks,
        data_page=DATA_PAGE if (output_dir / DATA_PAGE).is_file() else None,
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        run={name: values for name, values in sections.items() if values},
        rejected=rejected[:REJECTED_SHOWN],
        rejected_size=len(rejected),
        reasons=Counter(str(row.get("reason")) for row in rejected).most_common(REJECTED_SHOWN),
    )
    return replace_file(output_dir / "report.html", page.encode())
