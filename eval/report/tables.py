"""The report's tables: each metric with what it takes to believe it, by group, and beside published numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Log = Sequence[Mapping[str, Any]]  # trainer.state.log_history
Numbers = Mapping[str, float]  # of one split: metric -> number
PublishedRow = tuple[str, Mapping[str, float], str, bool]  # name, numbers, note, and whether it is this run's


@dataclass
class Published:
    """Numbers of others to stand beside this run's test results, under the same names and in the same unit."""

    metric_names: Sequence[str]
    rows: Sequence[tuple[str, Mapping[str, float], str]]  # name, metric -> value, note
    source: str


@dataclass
class ResultRow:
    """One metric over a split's rows, or over those of a group, with what it takes to believe it; None: not known.

    `baseline` always gives the most frequent training answer, `question_baseline` that to the same question; `free`
    is the metric without constraints on the answer, and `gain`, with its 95% interval, what the constraints add.
    """

    name: str
    n: float | None
    value: float | None
    low: float | None
    high: float | None
    baseline: float | None
    question_baseline: float | None
    free: float | None
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    is_total: bool  # over several groups


def as_number(value: Any) -> float | None:
    """`value` as a float, which may be NaN or infinite; None for what is no number."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def numbers_in(values: Mapping[str, Any]) -> dict[str, float]:
    """The values that are numbers."""
    return {key: number for key, value in values.items() if (number := as_number(value)) is not None}


def metric_table(numbers: Numbers, headline: str, groups: Sequence[str] = ()) -> list[ResultRow]:
    """The metrics of one split, the headline first, each with its interval, n and baseline; no number, no row.

    What `group_table` shows is left out, but for the headline.
    """
    companions = {"n"} | {key for key in numbers if key.endswith("_n")}
    for key in numbers:
        companions |= {f"{key}_low", f"{key}_high", f"baseline_{key}"}
    for suffix in ["", "_macro", *(f"_{group}" for group in groups)] if groups else ():
        companions |= {f"{start}{headline}{suffix}" for start in ("", "baseline_", "question_baseline_", "free_")}
        companions |= {f"constrained_gain{suffix}"}
    companions -= {headline}
    shown = [key for key in sorted(numbers, key=lambda key: key != headline) if key not in companions]
    return [_row(numbers, key, key, n=numbers.get("n")) for key in shown]


def group_table(numbers: Numbers, headline: str, groups: Sequence[str]) -> list[ResultRow]:
    """The headline metric of one split by group, then their mean ("macro") and that over all rows ("overall").

    A group that nothing is known of has no row; none known, no rows.
    """
    rows = [_row(numbers, group, f"{headline}_{group}", f"constrained_gain_{group}") for group in groups]
    rows = [row for row in rows if row.n is not None or row.value is not None]
    totals = [
        _row(numbers, "macro", f"{headline}_macro", "constrained_gain_macro", is_total=True),
        _row(numbers, "overall", headline, "constrained_gain", numbers.get("n"), is_total=True),
    ]
    return rows + [total for total in totals if total.value is not None] if rows else []


def _row(
    numbers: Numbers, name: str, metric: str, gain: str = "", n: float | None = None, is_total: bool = False
) -> ResultRow:
    keys = (metric, f"{metric}_low", f"{metric}_high", f"baseline_{metric}", f"question_baseline_{metric}")
    keys += (f"free_{metric}", gain, f"{gain}_low", f"{gain}_high")  # in the order of the row's fields
    return ResultRow(name, numbers.get(f"{metric}_n", n), *map(numbers.get, keys), is_total)


def latest(log_history: Log, key: str) -> float | None:
    """The last number logged under `key`."""
    return next((number for entry in reversed(log_history) if (number := as_number(entry.get(key))) is not None), None)


def find_headline(results: Mapping[str, Numbers], log_history: Log, headline: str) -> tuple[str, Numbers]:
    """The headline's split and that split's numbers: from the results, else from the last evaluation logged."""
    logged = next((entry for entry in reversed(log_history) if f"eval_{headline}" in entry), {})
    last = numbers_in({key.removeprefix("eval_"): value for key, value in logged.items()})
    candidates = [*results.items(), ("validation", last)]
    return next(((split, numbers) for split, numbers in candidates if headline in numbers), ("", {}))


def baseline_line(results: Mapping[str, Numbers], log_history: Log, headline: str) -> tuple[str, float] | None:
    """Label and value of the curve's dashed line: the validation rows' baseline if known, else the test rows'."""
    key = f"baseline_{headline}"
    validation = results.get("validation", {}).get(key, latest(log_history, f"eval_{key}"))
    if validation is not None:
        return "trivial baseline", validation
    return ("trivial baseline (test)", results["test"][key]) if key in results.get("test", {}) else None


def comparison_rows(published: Published, test: list[ResultRow]) -> list[PublishedRow]:
    """This run and its baseline, then the published rows."""
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
