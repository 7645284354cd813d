"""Answers from a closed set: accuracy, and precision, recall and F1 over classes, in all and by type of question."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array
from sklearn.metrics import precision_recall_fscore_support

from .baselines import Majority, by_name
from .statistics import summarize

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
) -> dict[str, float]:
    """Accuracy, and scores over the classes that have support: those that occur in `references`. Shares of 1.

    All arguments have one entry per row, texts compared as they are: `types` names the row's types, the first of which
    `type_baseline_accuracy` goes by; `groups` names rows that are not independent (the frame's id). An answer that is
    no such class, or none of `labels`, the closed set, is wrong for the true one. Point values are scikit-learn's.

    Returns

    - `n`, `accuracy`, `macro_precision`, `macro_recall` and `macro_f1`, the means over classes, and `weighted_f1`,
      that weighted by support. (SSG-VQA's code calls the means mAP, mAR and mAF1; its mAP is no ranking's.)
    - for each type `accuracy_<type>`, `macro_f1_<type>` and `weighted_f1_<type>`, and their `…_n`;
    - with `labels`, `accuracy_unmapped`: the share of answers that are none of them;
    - for each of these its 95% bootstrap interval under `_low` and `_high`, but for fewer than two groups;
      a resample's mean runs over the classes that it holds;
    - with `majority`, `baseline_` before each: always giving the most frequent training answer, by type the type's;
      and `type_baseline_accuracy` over all rows: giving each row that of its type.

    A single row has `n` and `accuracy` alone; without rows there is only `n`. Raises ValueError for different lengths.
    """
    for name, column in {"references": references, "types": types, "groups": groups}.items():
        if column is not None and len(column) != len(predictions):
            raise ValueError(f"{len(predictions)} predictions, {len(column)} {name}; give one per row")
    known = set(references if labels is None else labels)
    if len(predictions) < 2:  # also asked row by row, for each row's score: keep it quick
        right = [float(said == true and said in known) for said, true in zip(predictions, references, strict=True)]
        return {"n": len(right)} | ({"accuracy": right[0]} if right else {})
    classes = {name: code for code, name in enumerate(sorted(set(references)))}
    truth = np.array([classes[name] for name in references])
    answered = np.array([classes.get(name, -1) if name in known else -1 for name in predictions])  # -1: no class
    _, group = np.unique(np.arange(len(truth)) if groups is None else groups, return_inverse=True)
    metrics = {"n": len(truth)} | _scores(truth, answered, group, SCORES)
    if majority is not None:
        constant = np.full_like(truth, classes.get(majority.overall, -1))
        metrics |= _points(truth, constant, SCORES, "baseline_")
        if types is not None:
            constant = [majority.of_type(own[0]) if own else majority.overall for own in types]
            hits = [said == true for said, true in zip(constant, references, strict=True)]
            metrics["type_baseline_accuracy"] = sum(hits) / len(hits)
    rows_of_type = {} if types is None else by_name(range(len(truth)), map(set, types))
    for kind, rows in sorted(rows_of_type.items()):
        metrics |= _scores(truth[rows], answered[rows], group[rows], SCORES_BY_TYPE, f"_{kind}")
        metrics |= {f"{name}_{kind}_n": len(rows) for name in ("accuracy", *SCORES_BY_TYPE)}
        if majority is not None:
            constant = np.full(len(rows), classes.get(majority.of_type(kind), -1))
            metrics |= _points(truth[rows], constant, SCORES_BY_TYPE, "baseline_", f"_{kind}")
    if labels is not None:
        metrics |= summarize({"accuracy_unmapped": [float(said not in known) for said in predictions]}, group)
    return metrics


def _means(precision: np.ndarray, recall: np.ndarray, f1: np.ndarray, support: np.ndarray) -> dict[str, np.ndarray]:
    """The means over classes `[C]`, or over those of each resample `[C, R]`; without support all scores are 0."""
    n_held = (support > 0).sum(axis=0)
    means = {name: score.sum(axis=0) / n_held for name, score in zip(SCORES[:3], (precision, recall, f1), strict=True)}
    return means | {"weighted_f1": (support * f1).sum(axis=0) / support.sum(axis=0)}


def _points(
    truth: np.ndarray, answered: np.ndarray, names: Sequence[str], prefix: str = "", suffix: str = ""
) -> dict[str, float]:
    scores = precision_recall_fscore_support(truth, answered, labels=np.unique(truth), zero_division=0)
    means = {"accuracy": (truth == answered).mean(), **_means(*scores)}
    return {f"{prefix}{name}{suffix}": float(means[name]) for name in ("accuracy", *names)}


def _scores(
    truth: np.ndarray, answered: np.ndarray, group: np.ndarray, names: Sequence[str], suffix: str = ""
) -> dict[str, float]:
    metrics = summarize({f"accuracy{suffix}": (truth == answered).astype(float)}, group)
    del metrics["n"]
    metrics |= _points(truth, answered, names, suffix=suffix)
    names_of_groups, group = np.unique(group, return_inverse=True)
    if len(names_of_groups) >= 2:
        resampled = _resampled(truth, answered, group)
        for name in names:
            low, high = np.percentile(resampled[name], [2.5, 97.5])
            metrics |= {f"{name}{suffix}_low": float(low), f"{name}{suffix}_high": float(high)}
    return metrics


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
