"""What a metric returns: numbers as values, by name and by group; flat keys only for trackers and JSON."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Number:
    """One number over rows, with what it takes to believe it; None: not known.

    Args:
        value: None where no row counts.
        n: how many rows count.
        low: with `high` the 95% bootstrap interval.
        baseline: what an answer without a look at the image has on the same rows.
        question_baseline: what the most frequent training answer to the same question has.
        free: the same without constraints on the answers, of those rows that were asked so.
        gain: what the constraints add, row by row, on the same rows.
        macro: the mean over the groups, each of the same weight.
        groups: the same over the rows of each group.
        partial: rows of some kind alone count, so that the flat form says how many, even where those are all.
    """

    value: float | None
    n: int
    low: float | None = None
    high: float | None = None
    baseline: float | None = None
    question_baseline: float | None = None
    free: "Number | None" = None
    gain: "Number | None" = None
    macro: "Number | None" = None
    groups: Mapping[str, "Number"] = field(default_factory=dict)
    partial: bool = False

    def __str__(self) -> str:
        parts = [] if self.value is None else [f"{self.value:.3f}"]
        parts.append(f"n = {self.n}")
        if self.low is not None:
            parts.append(f"95% interval {self.low:.3f} to {self.high:.3f}")
        if self.baseline is not None:
            parts.append(f"baseline {self.baseline:.3f}")
        if self.free is not None and self.free.value is not None:
            parts.append(f"free {self.free.value:.3f} (n = {self.free.n})")
        return ", ".join(parts)


UNKNOWN = Number(None, 0)


@dataclass(frozen=True)
class Scores(Mapping[str, Number]):
    """A metric's numbers by name; `n` is how many rows there are, whether or not they count for a number."""

    n: int = 0
    numbers: Mapping[str, Number] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Number:
        return self.numbers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def __or__(self, other: Mapping[str, Number]) -> "Scores":
        return Scores(self.n, {**self, **other})


def beside(number: Number, free: Number | None, gain: Number | None) -> Number:
    """The number, and those of its groups, with what belongs to each of the others."""
    groups = {
        name: beside(own, free and free.groups.get(name), gain and gain.groups.get(name))
        for name, own in number.groups.items()
    }
    macro = number.macro and replace(number.macro, free=free and free.macro)
    return replace(number, free=free, gain=gain, macro=macro, groups=groups)


def keys_of(name: str) -> dict[str, str]:
    """Field of a `Number` -> its key in the flat form, for a number of this name."""
    ends = {"value": name, "low": f"{name}_low", "high": f"{name}_high", "n": f"{name}_n"}
    return ends | {"baseline": f"baseline_{name}", "question_baseline": f"question_baseline_{name}"}


def named(scores: Scores) -> dict[str, Number]:
    """Every number under its name in the flat form: `<metric>`, `<metric>_macro` and `<metric>_<group>`.

    Where a key of `<metric>_<group>` could be that of another number or of another of a number's fields, as for a
    group called "low" or "macro", the name is `<metric>[<group>]`: this hangs on names alone, never on values.
    """
    return {metric + end: number for metric, end, number in _parts(scores)}


def flat(scores: Scores, brief_but_for: str | None = None) -> dict[str, float]:
    """The numbers as one flat dict: `n`, and what is known of each of `named` under `keys_of` its name.

    Rows are counted (`_n`) for groups and for what is `partial`. `free` stands under `free_<name>`, without baselines,
    and `gain` under `constrained_gain`, with what the name has after its metric's, each with its `_n`: not all rows
    are asked so. With `brief_but_for` a metric's name, intervals and baselines are left out but for it and its groups:
    what a curve over time has use for.
    """
    written: dict[str, float | None] = {"n": scores.n}
    for metric, end, number in _parts(scores):
        counted = ("n",) if number.partial or end not in ("", "_macro") else ()
        known = ("value", "low", "high", *counted, "baseline")
        if brief_but_for is None:
            written |= _fields(number, f"{metric}{end}", (*known, "question_baseline"))
        elif metric == brief_but_for and end != "_macro":
            written |= _fields(number, f"{metric}{end}", known)
        else:
            written |= _fields(number, f"{metric}{end}", ("value", *counted))
        written |= _fields(number.free, f"free_{metric}{end}", ("value", "low", "high", "n"))
        written |= _fields(number.gain, f"constrained_gain{end}", ("value", "low", "high", "n"))
    return {key: value for key, value in written.items() if value is not None}


def _fields(number: Number | None, name: str, fields: Collection[str]) -> dict[str, float | None]:
    return {} if number is None else {key: getattr(number, one) for one, key in keys_of(name).items() if one in fields}


def _parts(scores: Scores) -> Iterator[tuple[str, str, Number]]:
    """Each number with its metric's name and what follows that in the flat form."""
    ends = {metric: ["", "_macro", *(f"_{group}" for group in number.groups)] for metric, number in scores.items()}
    taken = Counter(key for metric, own in ends.items() for end in own for key in keys_of(metric + end).values())
    for metric, number in scores.items():
        yield metric, "", number
        if number.macro is not None:
            yield metric, "_macro", number.macro
        for group, own in number.groups.items():
            keys = keys_of(f"{metric}_{group}").values()
            yield metric, f"_{group}" if all(taken[key] == 1 for key in keys) else f"[{group}]", own


def flags(name: str, values: Sequence[Any]) -> Sequence[bool]:
    """The `values`; ValueError where one is neither true nor false: the text "false", say, would pass for true."""
    if odd := [value for value in values if value not in (True, False)]:
        raise ValueError(f"{name!r} is true or false, and not {odd[0]!r}")
    return values
