"""The report of a run: one HTML file that needs nothing else, and its figures as PNG files beside it."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib import rc_context

from ..metrics.confusion import Confusion
from ..metrics.number import UNKNOWN, Scores
from . import tables
from .check import Check
from .gallery import GalleryItem, shelves
from .page import DATA_PAGE, replace_file, write_page
from .plotting import STYLE, as_png
from .result_figures import groups_figure
from .tables import Log, Published, group_table, metric_table, numbers_by_class
from .training_figures import gradient_figure, loss_figure, metric_figure

REJECTED_SHOWN = 20


def write_report(
    output_dir: str | os.PathLike,
    *,
    title: str,
    headline: str,
    log_history: Log,
    results: Mapping[str, Scores],
    watched: Scores | None = None,
    gallery: Sequence[GalleryItem] = (),
    published: Published | None = None,
    run: Mapping[str, Any] = {},
    rejected: Sequence[Mapping[str, Any]] = (),
    groups: Sequence[str] = (),
    confusions: Mapping[str, Confusion] = {},
    answered_split: str = "",
    also: Sequence[str] = (),
    checks: Sequence[Check] = (),
) -> Path:
    """Write `report.html` and `figures/*.png` into `output_dir` and return the page's path.

    `results` holds each split's numbers, `watched` those of the last evaluation in training. `headline` names the
    metric shown first, and over time from what is logged of it; `also` names those drawn over time beside it.
    `checks` stand before everything. All may be empty or NaN, as in a run that has just begun; until
    `run["finished"]` is true the page reloads itself. Files are replaced whole, so that nobody reads half of one.
    Where `vlm_recipes.eval.report.data.page` has left a page about the data, the report links to it.

    With `groups`, in the order to show, the headline is also shown by group, and where answers were constrained beside
    free answers. Of the other metrics those with other groups, classes of boxes, have a table by class. `confusions`
    holds one table per group; `answered_split` is whose rows they and the gallery are of.
    """
    output_dir = Path(output_dir)
    sections = {"run": {key: value for key, value in run.items() if not isinstance(value, Mapping)}}
    sections |= {key: value for key, value in run.items() if isinstance(value, Mapping)}
    order = sorted(results, key=lambda split: (split != "test", split != "validation"))
    results, watched = {split: results[split] for split in order}, watched or Scores()
    split, numbers = tables.find_headline(results, watched, headline)
    by_group = {name: group_table(part, headline, groups) for name, part in {**results, split: numbers}.items()}
    by_class = {name: numbers_by_class(part, headline, groups) for name, part in results.items()}
    for name, classes in by_class.items():  # they have a table of their own
        results[name] |= {metric: replace(number, groups={}) for metric, number in classes.items()}
    test = metric_table(results.get("test", Scores()), headline)
    drawn_rows = watched if headline in watched else results.get("validation", watched)  # those of the curve
    baseline = drawn_rows.get(headline, UNKNOWN).baseline
    with rc_context(STYLE):
        figures = {
            "metric": metric_figure(log_history, headline, baseline, also),
            "loss": loss_figure(log_history),
            "gradient_norms": gradient_figure(log_history),
            "groups": groups_figure(by_group[split], headline),
        }
        drawn = {name: as_png(figure) for name, figure in figures.items() if figure is not None}
    for name, png in drawn.items():
        replace_file(output_dir / "figures" / f"{name}.png", png)
    for name in figures.keys() - drawn.keys():  # of an earlier run
        (output_dir / "figures" / f"{name}.png").unlink(missing_ok=True)
    return write_page(
        output_dir / "report.html",
        "report.html.jinja",
        title=title,
        headline=headline,
        also=also,
        split=split,
        metric=next((row.number for row in metric_table(numbers, headline)), None),
        tables={name: rows for name, part in results.items() if (rows := metric_table(part, headline, groups))},
        group_tables={name: rows for name, rows in by_group.items() if rows},
        class_tables={name: classes for name, classes in by_class.items() if classes},
        confusions=confusions,
        answered_split=answered_split,
        figures=drawn,
        shelves=[shelf for shelf in shelves(gallery) if shelf.items],
        published=published,
        comparison=tables.comparison_rows(published, test) if published else [],
        finished=bool(run.get("finished")),
        step=tables.latest(log_history, "step"),
        epoch=tables.latest(log_history, "epoch"),
        checks=checks,
        data_page=DATA_PAGE if (output_dir / DATA_PAGE).is_file() else None,
        run={name: values for name, values in sections.items() if values},
        rejected=rejected[:REJECTED_SHOWN],
        rejected_size=len(rejected),
        reasons=Counter(str(row.get("reason")) for row in rejected).most_common(REJECTED_SHOWN),
    )
