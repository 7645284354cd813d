"""Answers from a closed set: accuracy, and precision, recall and F1 over classes, in all and by type of question."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.sparse import csr_array
from sklearn.metrics import precision_recall_fscore_support

from .baselines import Majority, by_name
from .number import Number, Scores
from .statistics import average

N_RESAMPLES = 1000
SCORES = ("macro_precision", "macro_recall", "macro_f1", "weighted_f1")
SCORES_BY_TYPE = ("macro_f1", "weighted_f1")


def classification_metrics(
    predictions: Sequence[str],
    references: Sequence[str],
    *,
    labels: Sequence[str] | None = None,
    types: Sequence[Sequence[str]] | None = None,
    groups: Sequence[str] | None = None,
    majority: Majority | None = None,
) -> Scores:
    """Accuracy, and scores over the classes that have support: those that occur in `references`. Shares of 1.

    All arguments have one entry per row, texts compared as they are: `types` names the row's types, the first of which
    `type_baseline_accuracy` goes by; `groups` names rows that are not independent (the frame's id). An answer that is
    no such class, or none of `labels`, the closed set, is wrong for the true one. Point values are scikit-learn's.

    Returns

    - `accuracy`, `macro_precision`, `macro_recall` and `macro_f1`, the means over classes, and `weighted_f1`, that
      weighted by support (SSG-VQA's code calls the means mAP, mAR and mAF1; its mAP is no ranking's); `accuracy`,
      `macro_f1` and `weighted_f1` by type, too;
    - with `labels`, `accuracy_unmapped`: the share of answers that are none of them;
    - for each its 95% bootstrap interval, for two or more groups; a resample's mean runs over the classes it holds;
    - with `majority`, as baseline always giving the most frequent training answer, by type the type's; and
      `type_baseline_accuracy` over all rows: giving each row that of its type.

    Raises ValueError for different lengths.
    """
    for name, column in {"references": references, "types": types, "groups": groups}.items():
        if column is not None and len(column) != len(predictions):
            raise ValueError(f"{len(predictions)} predictions, {len(column)} {name}; give one per row")
    if not predictions:
        return Scores(0, {name: Number(None, 0) for name in ("accuracy", *SCORES)})
    known = set(references if labels is None else labels)
    classes = {name: code for code, name in enumerate(sorted(set(references)))}
    truth = np.array([classes[name] for name in references])
    answered = np.array([classes.get(name, -1) if name in known else -1 for name in predictions])  # -1: no class
    _, group = np.unique(np.arange(len(truth)) if groups is None else groups, return_inverse=True)

    def numbers(rows: Sequence[int] | slice, names: Sequence[str], constant: str | None) -> dict[str, Number]:
        code = None if constant is None else classes.get(constant, -1)
        return _numbers(truth[rows], answered[rows], group[rows], names, code)

    overall = numbers(slice(None), SCORES, majority and majority.overall)
    of_types = {
        kind: numbers(rows, SCORES_BY_TYPE, majority and majority.of_type(kind))
        for kind, rows in sorted(by_name(range(len(truth)), map(set, types or [()] * len(truth))).items())
    }
    scores = {
        name: replace(number, groups={kind: own[name] for kind, own in of_types.items() if name in own})
        for name, number in overall.items()
    }
    if majority is not None and types is not None:
        constant = [majority.of_type(own[0]) if own else majority.overall for own in types]
        hits = [said == true for said, true in zip(constant, references, strict=True)]
        scores["type_baseline_accuracy"] = Number(sum(hits) / len(hits), len(hits))
    if labels is not None:
        scores["accuracy_unmapped"] = average([float(said not in known) for said in predictions], group)
    return Scores(len(truth), scores)


def _means(precision: np.ndarray, recall: np.ndarray, f1: np.ndarray, support: np.ndarray) -> dict[str, np.ndarray]:
    """The means over classes `[C]`, or over those of each resample `[C, R]`; without support all scores are 0."""
    n_held = (support > 0).sum(axis=0)
    means = {name: score.sum(axis=0) / n_held for name, score in zip(SCORES[:3], (precision, recall, f1), strict=True)}
    return means | {"weighted_f1": (support * f1).sum(axis=0) / support.sum(axis=0)}


def _points(truth: np.ndarray, answered: np.ndarray) -> dict[str, float]:
    scores = precision_recall_fscore_support(truth, answered, labels=np.unique(truth), zero_division=0)
    means = {"accuracy": (truth == answered).mean(), **_means(*scores)}
    return {name: float(mean) for name, mean in means.items()}


def _numbers(
    truth: np.ndarray, answered: np.ndarray, group: np.ndarray, names: Sequence[str], constant: int | None
) -> dict[str, Number]:
    points, n = _points(truth, answered), len(truth)
    baselines = {} if constant is None else _points(truth, np.full(n, constant))
    hits = average((truth == answered).astype(float), group)
    numbers = {"accuracy": replace(hits, baseline=baselines.get("accuracy"))}
    names_of_groups, group = np.unique(group, return_inverse=True)
    resampled = _resampled(truth, answered, group) if len(names_of_groups) >= 2 else {}
    for name in names:
        low, high = map(float, np.percentile(resampled[name], [2.5, 97.5])) if resampled else (None, None)
        numbers[name] = Number(points[name], n, low, high, baselines.get(name))
    return numbers


def _resampled(truth: np.ndarray, answered: np.ndarray, group: np.ndarray) -> dict[str, np.ndarray]:
    """Each score in 1,000 resamples of whole groups: how often each group is drawn, times its counts by class."""
    n_classes, n_groups = max(truth.max(), answered.max()) + 1, group.max() + 1
    hit, is_class = truth == answered, answered >= 0
    kind_of_count = np.concatenate([truth, n_classes + answered[is_class], 2 * n_classes + truth[hit]])
    of_group = np.concatenate([group, group[is_class], group[hit]])
    table = csr_array((np.ones(len(of_group)), (kind_of_count, of_group)), shape=(3 * n_classes, n_groups))
    generator = np.random.default_rng(0)
    counts, batch = [], max(1, 2**22 // n_groups)  # about 32 MB of drawn groups at a time
    for start in range(0, N_RESAMPLES, batch):
        drawn = generator.integers(0, n_groups, (min(batch, N_RESAMPLES - start), n_groups))
        counts.append(table @ np.stack([np.bincount(one, minlength=n_groups) for one in drawn], axis=1))
    support, given, hits = np.concatenate(counts, axis=1).reshape(3, n_classes, N_RESAMPLES)
    precision, recall, f1 = (
        np.divide(above, below, out=np.zeros(below.shape), where=below > 0)
        for above, below in ((hits, given), (hits, support), (2 * hits, given + support))
    )
    return _means(precision, recall, f1, support)
