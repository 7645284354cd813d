"""Means over rows with bootstrap intervals, for every metric of this package."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count

import numpy as np

from .number import Number, Scores

PerRow = Sequence[float | None]
Groups = Sequence[Hashable] | None  # each row's name of its group


def bootstrap_interval(
    values: Sequence[float],
    groups: Groups = None,
    statistic: Callable[..., np.ndarray] = np.mean,
    **settings: float,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of per-row values.

    `values` has one number per row, in any unit. `groups`, one name per row, resamples whole groups instead of
    rows: questions about one image are not independent, and resampling rows would make the interval too narrow. A row
    whose name is None is a group of its own.
    A resample then holds as many groups as the data, and its statistic runs over all rows of those groups.
    `statistic` is `numpy.mean` or `numpy.median`; `settings` are `confidence` (0.95), `n_resamples` (1,000) and
    `seed` (0), of which the same gives the same interval.

    Returns `(low, high)`. Raises ValueError for fewer than two rows (or groups): there is nothing to resample.
    Source: Efron 1979, with clusters as in Field and Welsh 2007 ("Bootstrapping clustered data").
    """
    values, of_group = np.asarray(values, dtype=np.float64), numbered(groups, len(values))
    sums, sizes = np.bincount(of_group, weights=values), np.bincount(of_group)
    if len(sizes) < 2:
        raise ValueError(f"a bootstrap needs at least 2 rows or groups, got {len(sizes)}")

    def of_resamples(times: np.ndarray) -> np.ndarray:
        if statistic is np.mean:  # a group's sum and size are all that a mean needs
            return times @ sums / (times @ sizes)
        if len(sizes) == len(values):  # as many rows in each resample
            drawn = np.repeat(np.tile(values, len(times)), times[:, of_group].ravel())
            return statistic(drawn.reshape(times.shape), axis=1)
        return np.array([statistic(np.repeat(values, one[of_group])) for one in times])

    return tuple(interval(len(sizes), of_resamples, **settings))


def interval(
    n_groups: int,
    of_resamples: Callable[[np.ndarray], np.ndarray],
    confidence: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> list:
    """Ends of the middle share of what `of_resamples` `[R, …]` makes of how often each group is drawn `[R, groups]`.

    Both are None where there is nothing to resample. Resamples of which it makes NaN do not count.
    """
    if n_groups < 2:
        return [None, None]
    generator, values = np.random.default_rng(seed), []
    batch = max(1, 2**22 // n_groups)  # about 32 MB of drawn groups at a time
    for start in range(0, n_resamples, batch):
        drawn = generator.integers(0, n_groups, (min(batch, n_resamples - start), n_groups))
        values.append(of_resamples(np.stack([np.bincount(one, minlength=n_groups) for one in drawn])))
    outside = 50 * (1 - confidence)
    return np.nanpercentile(np.concatenate(values), [outside, 100 - outside], axis=0).tolist()


def numbered(groups: Groups, n_rows: int) -> np.ndarray:
    """The number of each row's group, from 0, in the order of sorted names; without `groups` each row is one.

    Each None, or NaN, is a group of its own, after all others. Names of two types are two groups: 1 and "1".
    """
    if groups is None:
        return np.arange(n_rows)
    of_numpy = isinstance(groups, np.ndarray) and groups.dtype.kind in "iuU"
    if of_numpy or set(map(type, groups)) in ({str}, {int}):  # several times as fast as what follows
        return np.unique(np.asarray(groups), return_inverse=True)[1]
    groups = [None if name != name else name for name in groups]  # what pandas has for no name is not equal to itself
    names = sorted({*groups} - {None}, key=lambda name: (type(name).__name__, name))  # no text beside a number
    numbers, unnamed = {name: number for number, name in enumerate(names)}, count(len(names))
    return np.array([next(unnamed) if name is None else numbers[name] for name in groups], dtype=np.intp)


def average(
    scores: PerRow,
    groups: Groups = None,
    statistic: Callable[..., np.ndarray] = np.mean,
    **baselines: PerRow | None,
) -> Number:
    """Mean (or median) of one score per row, with its 95% bootstrap interval; None: the row does not count.

    `groups` has one name per row, see `bootstrap_interval`. `baselines`, by the fields of `Number`, are the scores
    of other answers to the same rows: their mean over the rows that count. The interval is left out for fewer than
    two rows or groups. Raises ValueError for a score that is NaN.
    """
    counted = [row for row, score in enumerate(scores) if score is not None]
    if not counted:
        return Number(None, 0)
    values = np.array([scores[row] for row in counted], dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError(f"the score of row {counted[int(np.isnan(values).argmax())]} is NaN")
    if groups is not None and len(groups) != len(scores):
        raise ValueError(f"{len(scores)} scores, {len(groups)} groups: give one per row")
    own = numbered(None if groups is None else [groups[row] for row in counted], len(counted))
    low, high = bootstrap_interval(values, own, statistic=statistic) if own.max() > 0 else (None, None)
    blind = {name: float(np.mean([of[row] for row in counted])) for name, of in baselines.items() if of is not None}
    return Number(float(statistic(values)), len(counted), low, high, **blind)


def summarize(
    scores: Mapping[str, PerRow], groups: Groups = None, statistic: Callable[..., np.ndarray] = np.mean
) -> Scores:
    """The `average` of every metric: `scores` maps a metric's name to one score per row.

    A number with None among its scores is `partial`. Raises ValueError, naming the metric, where lengths differ or a
    score is NaN.
    """
    lengths = {name: len(rows) for name, rows in scores.items()} | ({} if groups is None else {"groups": len(groups)})
    if len(set(lengths.values())) > 1:
        raise ValueError(f"every metric, and groups, needs one entry per row, got lengths {lengths}")
    numbers = {}
    for name, rows in scores.items():
        try:
            numbers[name] = replace(average(rows, groups, statistic), partial=any(score is None for score in rows))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return Scores(max(lengths.values(), default=0), numbers)


def ratio(numerators: Sequence[float], denominators: Sequence[float], groups: Groups = None) -> Number:
    """A ratio of sums over rows, which is no mean over rows: rows of a large denominator weigh more.

    All have one entry per row, denominators are not negative, and `groups` is as in `bootstrap_interval`. The 95%
    bootstrap interval needs two or more rows or groups. Where the denominators sum to 0 the ratio is 1: nothing was
    to be found, and nothing was. Raises ValueError for different lengths.
    """
    of_group = numbered(groups, len(numerators))
    if len({len(numerators), len(denominators), len(of_group)}) > 1:
        raise ValueError(f"{len(numerators)} numerators, {len(denominators)} denominators, {len(of_group)} groups")
    if len(numerators) == 0:
        return Number(None, 0)
    above, below = (np.bincount(of_group, weights=values) for values in (numerators, denominators))

    def of_resamples(times: np.ndarray) -> np.ndarray:
        sums = times @ below
        return np.divide(times @ above, sums, out=np.ones(len(times)), where=sums > 0)

    [value] = of_resamples(np.ones((1, len(above))))
    return Number(float(value), len(numerators), *interval(len(above), of_resamples))


def macro_average(
    scores: Sequence[float],
    classes: Sequence[str],
    groups: Groups = None,
    **baselines: Sequence[float] | None,
) -> Number:
    """Mean over classes of each class's mean score, so that a rare class counts as much as a frequent one.

    `scores`, `classes` and `groups` have one entry per row, as in `bootstrap_interval`, and `baselines` are as in
    `average`; a resample's mean runs over the classes that it holds.
    """
    if len(scores) == 0:
        return Number(None, 0)
    of_class, of_group = numbered(classes, len(scores)), numbered(groups, len(scores))
    table = np.zeros((of_group.max() + 1, 2, of_class.max() + 1))  # per group: sum and number of rows of each class
    np.add.at(table, (of_group, 0, of_class), scores)
    np.add.at(table, (of_group, 1, of_class), 1)

    def of_resamples(times: np.ndarray) -> np.ndarray:
        sums, counts = np.moveaxis(np.tensordot(times, table, 1), 1, 0)
        means = np.divide(sums, counts, out=np.zeros(sums.shape), where=counts > 0)
        return means.sum(axis=1) / (counts > 0).sum(axis=1)

    [value] = of_resamples(np.ones((1, len(table))))
    of_classes = {name: np.bincount(of_class, weights=of) for name, of in baselines.items() if of is not None}
    means = {name: float((sums / np.bincount(of_class)).mean()) for name, sums in of_classes.items()}
    return Number(float(value), len(scores), *interval(len(table), of_resamples), **means)


def by_class(
    scores: Sequence[float],
    classes: Sequence[str],
    names: Iterable[str],
    groups: Groups = None,
    **baselines: Sequence[float] | None,
) -> dict[str, Number]:
    """The `average` over the rows of each class in `names`, in this order; all others have one entry per row."""
    of_class = {
        own: [score if one == own else None for score, one in zip(scores, classes, strict=True)] for own in names
    }
    return {own: average(rows, groups, **baselines) for own, rows in of_class.items()}
