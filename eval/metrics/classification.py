"""Answers from a closed set: accuracy, and precision, recall and F1 over classes, in all and by type of question."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy.sparse import csr_array

from .baselines import Majority, by_name
from .number import Number, Scores
from .statistics import average, interval, numbered

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
    no such class, or none of `labels`, the closed set, is wrong for the true one.

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
    group = numbered(groups, len(truth))

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


def _numbers(
    truth: np.ndarray, answered: np.ndarray, group: np.ndarray, names: Sequence[str], constant: int | None
) -> dict[str, Number]:
    group = numbered(group, len(truth))  # those of these rows
    n, once = group.max() + 1, np.ones((1, group.max() + 1))
    of_resamples = _of_resamples(truth, answered, group)
    points, low, high = of_resamples(once)[0], *(interval(n, of_resamples) if n >= 2 else [[None] * len(SCORES)] * 2)
    baselines, blind = [None] * len(SCORES), None
    if constant is not None:
        said = np.full(len(truth), constant)
        baselines, blind = _of_resamples(truth, said, group)(once)[0].tolist(), truth == said
    values = zip(points.tolist(), [len(truth)] * len(SCORES), low, high, baselines, strict=True)
    scores = {name: Number(*own) for name, own in zip(SCORES, values, strict=True)}
    return {"accuracy": average(truth == answered, group, baseline=blind)} | {name: scores[name] for name in names}


def _of_resamples(truth: np.ndarray, answered: np.ndarray, group: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """How often each group is drawn `[R, groups]` -> `SCORES` of each resample `[R, 4]`; without support all are 0."""
    n_classes, n_groups = max(truth.max(), answered.max()) + 1, group.max() + 1
    hit, is_class = truth == answered, answered >= 0
    kind_of_count = np.concatenate([truth, n_classes + answered[is_class], 2 * n_classes + truth[hit]])
    of_group = np.concatenate([group, group[is_class], group[hit]])
    table = csr_array((np.ones(len(of_group)), (kind_of_count, of_group)), shape=(3 * n_classes, n_groups))

    def of_resamples(times: np.ndarray) -> np.ndarray:
        support, given, hits = (table @ times.T).reshape(3, n_classes, len(times))
        precision, recall, f1 = (
            np.divide(above, below, out=np.zeros(below.shape), where=below > 0)
            for above, below in ((hits, given), (hits, support), (2 * hits, given + support))
        )
        n_held = (support > 0).sum(axis=0)
        macro = [score.sum(axis=0) / n_held for score in (precision, recall, f1)]
        return np.stack([*macro, (support * f1).sum(axis=0) / support.sum(axis=0)], axis=1)

    return of_resamples
