"""The report's tables: each metric with what it takes to believe it, by group, and beside published numbers."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..metrics.number import UNKNOWN, Number, Scores, named
from .page import short, visible

Log = Sequence[Mapping[str, Any]]  # trainer.state.log_history
NOTHING = "–"
PublishedRow = tuple[str, Mapping[str, float], str, bool]  # name, numbers, note, and whether it is this run's


@dataclass
class Published:
    """Numbers of others to stand beside this run's test results, under the same names and in the same unit."""

    metric_names: Sequence[str]
    rows: Sequence[tuple[str, Mapping[str, float], str]]  # name, metric -> value, note
    source: str


@dataclass
class ResultRow:
    """A `Number` over a split's rows, or over those of a group, under the name that it is shown by.

    Its `free` and `gain` are numbers, too, if unknown ones.
    """

    name: str
    number: Number
    is_total: bool = False  # over several groups

    def __post_init__(self):
        self.number = replace(self.number, free=self.number.free or UNKNOWN, gain=self.number.gain or UNKNOWN)


@dataclass
class Table:
    """Texts in rows, head -> cell, of which the first `texts` are no numbers; `str` is markdown.

    A column in which nothing is known is not shown.
    """

    title: str
    rows: Sequence[Mapping[str, str]]
    notes: Sequence[str] = ()
    texts: int = 1

    @property
    def heads(self) -> list[str]:
        heads = dict.fromkeys(head for row in self.rows for head in row)
        return [head for head in heads if any(row.get(head, NOTHING) != NOTHING for row in self.rows)]

    def __str__(self) -> str:
        lines = [self.heads, *([row.get(head, NOTHING) for head in self.heads] for row in self.rows)]
        columns = []
        for place, column in enumerate(zip(*lines, strict=True)):
            column = [_in_one_line(cell).replace("|", r"\|") for cell in column]
            width, is_text = max(2, *map(len, column)), place < self.texts
            rule = "-" * (width - 1) + ("-" if is_text else ":")
            columns.append([f"{cell:{'<' if is_text else '>'}{width}}" for cell in (column[0], rule, *column[1:])])
        table = "\n".join(f"| {' | '.join(line)} |" for line in zip(*columns, strict=True))
        parts = [f"### {_in_one_line(self.title)}", table, *map(_in_one_line, self.notes)]
        return "\n\n".join(filter(None, parts)) + "\n"


def _in_one_line(text: str) -> str:
    return " ".join(visible(text).split())


def as_number(value: Any) -> float | None:
    """`value` as a float, which may be NaN or infinite; None for what is no number."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def metric_table(scores: Scores, headline: str, groups: Sequence[str] = ()) -> list[ResultRow]:
    """The metrics of one split, the headline first, each with its interval, n and baseline; no number, no row.

    With `groups`, what `group_table` shows is left out, but for the headline over all rows.
    """
    if groups and headline in scores:
        others = {name: own for name, own in scores[headline].groups.items() if name not in groups}
        scores |= {headline: replace(scores[headline], groups=others, macro=None)}
    known = [(name, number) for name, number in named(scores).items() if number.value is not None]
    return [ResultRow(name, number) for name, number in sorted(known, key=lambda row: row[0] != headline)]


def cells(row: ResultRow, gain: str = "constrained − free") -> dict[str, str]:
    """What a row of a `Table` says of a number; `gain` is what its gain is called."""

    number = row.number

    def text(value: float | None, sign: str = "") -> str:
        return NOTHING if value is None else (sign if value > 0 else "") + short(value)

    def interval(of: Number) -> str:
        return NOTHING if of.low is None else f"{short(of.low)} to {short(of.high)}"

    return {
        "metric": row.name,
        "value": text(number.value),
        "95% interval": interval(number),
        "n": f"{number.n:,}",
        "baseline": text(number.baseline),
        "per-question baseline": text(number.question_baseline),
        "free": text(number.free.value),
        "free, n": NOTHING if number.free.value is None else f"{number.free.n:,}",
        gain: text(number.gain.value, "+"),
        f"{gain}, 95% interval": interval(number.gain),
    }


def headline_table(
    title: str, results: Mapping[str, Scores], headline: str, groups: Sequence[str], baseline: str
) -> Table:
    """The headline of each part and of its groups; `baseline` is whose its baseline is, in words."""
    rows = []
    for split, scores in results.items():
        number = scores.get(headline, UNKNOWN)
        of_groups = {f"{split}, {group}": number.groups.get(group, UNKNOWN) for group in groups}
        for name, own in {split: number, **of_groups}.items():
            known = cells(ResultRow(name, own))
            row = {"part": name, "n": known["n"], headline: known["value"]}
            rows.append(row | {head: known[head] for head in ("95% interval", "baseline", "free")})
    return Table(title, rows, [f"The baseline is {baseline}."])


def group_table(scores: Scores, headline: str, groups: Sequence[str]) -> list[ResultRow]:
    """The headline metric of one split by group, then their mean ("macro") and that over all rows ("overall").

    A group that nothing is known of has no row; none known, no rows.
    """
    number = scores.get(headline, UNKNOWN)
    rows = [ResultRow(group, number.groups[group]) for group in groups if group in number.groups]
    totals = (("macro", number.macro or UNKNOWN), ("overall", number))
    return rows and rows + [ResultRow(name, one, is_total=True) for name, one in totals if one.value is not None]


def numbers_by_class(scores: Scores, headline: str, groups: Sequence[str]) -> dict[str, Number]:
    """The metrics beside the headline whose groups are none of `groups`: classes of boxes, of which a row has many."""
    return {
        name: number
        for name, number in scores.items()
        if name != headline and number.groups and number.groups.keys().isdisjoint(groups)
    }


def latest(log_history: Log, key: str) -> float | None:
    """The last number logged under `key`."""
    return next((number for entry in reversed(log_history) if (number := as_number(entry.get(key))) is not None), None)


def find_headline(results: Mapping[str, Scores], watched: Scores, headline: str) -> tuple[str, Scores]:
    """The headline's split and that split's numbers: from the results, else from the last evaluation in training."""
    candidates = [*results.items(), ("validation", watched)]
    return next((part for part in candidates if part[1].get(headline, UNKNOWN).value is not None), ("", Scores()))


def measured_as(name: str, numbers: Container[str]) -> str:
    """A run's own name for a published metric: where one query is asked about each image, it is the first."""
    return name if name in numbers else name.removesuffix("_first_query")


def comparison_rows(published: Published, test: list[ResultRow]) -> list[PublishedRow]:
    """This run and its baseline, then the published rows."""
    rows = [(name, numbers, note, False) for name, numbers, note in published.rows]
    numbers = {metric.name: metric.number for metric in test}
    compared = {
        name: numbers[own] for name in published.metric_names if (own := measured_as(name, numbers)) in numbers
    }
    baselines = {name: number.baseline for name, number in compared.items() if number.baseline is not None}
    if baselines:
        rows.insert(0, ("Trivial baseline", baselines, "on the rows of this run", True))
    if compared:
        sizes = " / ".join(dict.fromkeys(f"{number.n:,.0f}" for number in compared.values()))
        values = {name: number.value for name, number in compared.items()}
        rows.insert(0, ("This run", values, f"measured here, test split, n = {sizes}", True))
    return rows
