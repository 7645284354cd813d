"""Means over rows with bootstrap intervals, for every metric of this package."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from scipy.stats import bootstrap

Scores = Sequence[float | None]


def bootstrap_interval(
    values: Sequence[float],
    groups: Sequence[str] | None = None,
    confidence: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
    statistic: Callable[..., np.ndarray] = np.mean,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of per-row values.

    `values` has one number per row, in any unit. `groups`, one name per row, resamples whole groups instead of
    rows: questions about one image are not independent, and resampling rows would make the interval too narrow.
    A resample then holds as many groups as the data, and its statistic runs over all rows of those groups.
    `statistic` is `numpy.mean` or `numpy.median`. The same seed gives the same interval.

    Returns `(low, high)`. Raises ValueError for fewer than two rows (or groups): there is nothing to resample.
    Source: Efron 1979, with clusters as in Field and Welsh 2007 ("Bootstrapping clustered data").
    """
    values = np.asarray(values, dtype=np.float64)
    if groups is None:
        samples, of_resample = (values,), statistic
    else:
        _, group_of_row, group_sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
        if statistic is np.mean:  # a group's sum and size are all that a mean needs, and stay vectorised
            samples, of_resample = (np.bincount(group_of_row, weights=values), group_sizes), _ratio_of_sums
        else:
            rows = np.split(values[np.argsort(group_of_row)], np.cumsum(group_sizes)[:-1])
            samples = (np.arange(len(rows)),)

            def of_resample(chosen: np.ndarray) -> np.ndarray:
                return statistic(np.concatenate([rows[group] for group in chosen]))

    return _interval(samples, of_resample, confidence, n_resamples, seed)


def _ratio_of_sums(numerators: np.ndarray, denominators: np.ndarray, axis: int = -1) -> np.ndarray:
    above, below = numerators.sum(axis=axis), denominators.sum(axis=axis)
    return np.divide(above, below, out=np.ones(np.shape(below)), where=below > 0)


def _interval(
    samples: tuple[np.ndarray, ...],
    of_resample: Callable[..., np.ndarray],
    confidence: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    if len(samples[0]) < 2:
        raise ValueError(f"a bootstrap needs at least 2 rows or groups, got {len(samples[0])}")
    result = bootstrap(
        samples,
        of_resample,
        paired=True,  # a group's sum and size are drawn together
        n_resamples=n_resamples,
        batch=max(1, 2**22 // len(samples[0])),  # about 32 MB of resampled values at a time
        confidence_level=confidence,
        method="percentile",
        random_state=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def summarize(
    scores: dict[str, Scores],
    groups: Sequence[str] | None = None,
    statistic: Callable[..., np.ndarray] = np.mean,
) -> dict[str, float]:
    """Mean (or median) of every metric over its rows, with a 95% bootstrap interval.

    `scores` maps a metric's name to one score per row; None says that the row does not count for that metric (an
    open question for closed accuracy). `groups` has one name per row, see `bootstrap_interval`.

    Returns `<metric>`, `<metric>_low` and `<metric>_high` per metric, and `n`, the number of rows. A metric with
    None among its scores also has `<metric>_n`, the number of rows that count, and is left out where that is 0.
    The interval is left out for fewer than two rows or groups. Without rows the result is `{"n": 0}`. Raises
    ValueError, naming the metric, where lengths differ or a score is NaN.
    """
    lengths = {name: len(rows) for name, rows in scores.items()} | ({} if groups is None else {"groups": len(groups)})
    if len(set(lengths.values())) > 1:
        raise ValueError(f"every metric, and groups, needs one entry per row, got lengths {lengths}")
    n_rows = max(lengths.values(), default=0)
    summary: dict[str, float] = {"n": n_rows}
    for name, rows in scores.items() if n_rows else ():
        counted = [row for row, score in enumerate(rows) if score is not None]
        if len(counted) < n_rows:
            summary[f"{name}_n"] = len(counted)
        if not counted:
            continue
        values = np.array([rows[row] for row in counted], dtype=np.float64)
        if np.isnan(values).any():
            raise ValueError(f"{name}: the score of row {counted[int(np.isnan(values).argmax())]} is NaN")
        summary[name] = float(statistic(values))
        counted_groups = None if groups is None else [groups[row] for row in counted]
        if len(set(counted if counted_groups is None else counted_groups)) >= 2:
            low, high = bootstrap_interval(values, counted_groups, statistic=statistic)
            summary[f"{name}_low"], summary[f"{name}_high"] = low, high
    return summary


def ratio(
    name: str, numerators: Sequence[float], denominators: Sequence[float], groups: Sequence[str] | None = None
) -> dict[str, float]:
    """A ratio of sums over rows, which is no mean over rows: rows of a large denominator weigh more.

    All have one entry per row, denominators are not negative, and `groups` is as in `bootstrap_interval`. Returns
    `<name>`, and its 95% bootstrap interval as `<name>_low` and `<name>_high` for two or more rows or groups. Where
    the denominators sum to 0 the ratio is 1: nothing was to be found, and nothing was. Without rows `{}`. Raises
    ValueError for different lengths.
    """
    names = range(len(numerators)) if groups is None else groups
    if len({len(numerators), len(denominators), len(names)}) > 1:
        raise ValueError(
            f"{name}: {len(numerators)} numerators, {len(denominators)} denominators, {len(names)} groups"
        )
    if len(numerators) == 0:
        return {}
    _, of_group = np.unique(np.asarray(names), return_inverse=True)
    sums = tuple(np.bincount(of_group, weights=values) for values in (numerators, denominators))
    metrics = {name: float(_ratio_of_sums(*sums))}
    if len(sums[0]) >= 2:
        metrics[f"{name}_low"], metrics[f"{name}_high"] = _interval(sums, _ratio_of_sums)
    return metrics


def macro_average(
    name: str, scores: Sequence[float], classes: Sequence[str], groups: Sequence[str] | None = None
) -> dict[str, float]:
    """Mean over classes of each class's mean score, so that a rare class counts as much as a frequent one.

    `scores`, `classes` and `groups` have one entry per row, as in `bootstrap_interval`; a resample's mean runs over
    the classes that it holds. Returns `<name>`, and `<name>_low` and `<name>_high` for two or more rows or groups.
    """
    _, of_class = np.unique(np.asarray(classes), return_inverse=True)
    _, of_group = np.unique(np.arange(len(scores)) if groups is None else np.asarray(groups), return_inverse=True)
    table = np.zeros((of_group.max() + 1, 2, of_class.max() + 1))  # per group: sum and number of rows of each class
    np.add.at(table, (of_group, 0, of_class), scores)
    np.add.at(table, (of_group, 1, of_class), 1)

    def macro(chosen: np.ndarray) -> float:
        sums, counts = table[chosen].sum(axis=0)
        return float((sums[counts > 0] / counts[counts > 0]).mean())

    every = np.arange(len(table))
    metrics = {name: macro(every)}
    if len(table) >= 2:
        metrics[f"{name}_low"], metrics[f"{name}_high"] = _interval((every,), macro)
    return metrics


def by_class(
    name: str,
    scores: Sequence[float],
    classes: Sequence[str],
    names: Sequence[str],
    groups: Sequence[str] | None = None,
) -> dict[str, float]:
    """`summarize` over the rows of each class in `names`, as `<name>_<class>`, with `<name>_<class>_n` even at 0.

    `scores`, `classes` and `groups` have one entry per row; `n` is the number of all rows.
    """
    of_class = {
        f"{name}_{own}": [score if one == own else None for score, one in zip(scores, classes, strict=True)]
        for own in names
    }
    counts = {f"{own}_n": len(rows) - rows.count(None) for own, rows in of_class.items()}
    return summarize(of_class, groups) | counts | {"n": len(scores)}


def means(name: str, scores: Sequence[float], classes: Sequence[str], names: Iterable[str]) -> dict[str, float]:
    """Without intervals: the mean over all rows and, as `<name>_<class>`, over those of each class that has any."""
    of_class = {own: [score for score, one in zip(scores, classes, strict=True) if one == own] for own in names}
    averages = {f"{name}_{own}": float(np.mean(rows)) for own, rows in of_class.items() if rows}
    return {name: float(np.mean(scores)), **averages}
