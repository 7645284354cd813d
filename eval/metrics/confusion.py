"""Which class was answered for which: a confusion table that stays small however many classes there are."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import confusion_matrix


@dataclass(frozen=True)
class Confusion:
    """Rows of the most frequent true classes, counted by true and by predicted class.

    Args:
        labels: the classes shown, the most frequent true one first.
        counts: `[true, predicted]`, whole numbers: a row for each of `labels`, a column for each and a last one for
            answers that are none of them.
        n_classes: how many true classes there are, shown or not.
    """

    labels: tuple[str, ...]
    counts: np.ndarray
    n_classes: int


def confusion(references: Sequence[str], predictions: Sequence[str], max_labels: int = 8) -> Confusion:
    """Count predicted classes by true class.

    `references` and `predictions` hold one class per row. The `max_labels` most frequent true classes are shown, among
    equally frequent ones the alphabetically first. Raises ValueError for lists of different lengths.
    """
    if len(references) != len(predictions):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references; give one per row")
    frequent = sorted(Counter(references).items(), key=lambda item: (-item[1], item[0]))
    labels = tuple(name for name, _ in frequent[:max_labels])
    number = {name: i for i, name in enumerate(labels)}
    true, said = ([number.get(name, len(labels)) for name in names] for names in (references, predictions))
    counts = confusion_matrix(true, said, labels=range(len(labels) + 1)) if labels else np.zeros((1, 1), dtype=int)
    return Confusion(labels, counts[:-1], len(frequent))
