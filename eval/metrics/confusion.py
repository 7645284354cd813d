"""Which class was answered for which: a confusion table that stays small however many classes there are."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import confusion_matrix


@dataclass(frozen=True)
class Confusion:
    """Rows counted by true and by predicted class; each row once, the right ones on the diagonal and only there.

    Args:
        labels: the classes shown by name, the most frequent true one first.
        counts: `[true, predicted]`, whole numbers. First come `labels`, in this order, as rows and as columns; then,
            where `other_classes` is not 0, one row for all remaining true classes and a column that holds those of its
            rows whose answer was exactly right; then one column for wrong answers that are none of `labels`.
        other_classes: how many true classes share the last row.
    """

    labels: tuple[str, ...]
    counts: np.ndarray
    other_classes: int = 0

    @property
    def rows(self) -> list[str]:
        """Names of the true classes."""
        plural = "class" if self.other_classes == 1 else "classes"
        return [*self.labels, *([f"other ({self.other_classes} {plural})"] if self.other_classes else [])]

    @property
    def columns(self) -> list[str]:
        """Names of the predicted classes."""
        return [*self.labels, *(["other, right", "other, wrong"] if self.other_classes else ["other"])]

    @property
    def total(self) -> int:
        """How many rows were counted."""
        return int(self.counts.sum())

    @property
    def right(self) -> int:
        """How many answers are of exactly the true class."""
        return int(np.trace(self.counts))


def confusion(references: Sequence[str], predictions: Sequence[str], max_labels: int = 8) -> Confusion:
    """Count predicted classes by true class.

    `references` and `predictions` hold one class per row. The `max_labels` most frequent true classes are shown by
    name, among equally frequent ones the alphabetically first. Raises ValueError for lists of different lengths.
    """
    if len(references) != len(predictions):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references; give one per row")
    by_frequency = sorted(Counter(references).items(), key=lambda item: (-item[1], item[0]))
    labels = tuple(name for name, _ in by_frequency[:max_labels])
    other_classes = len(by_frequency) - len(labels)
    n_rows = len(labels) + (other_classes > 0)
    if not n_rows:
        return Confusion((), np.zeros((0, 1), dtype=int))
    number = {name: i for i, name in enumerate(labels)}
    true = [number.get(reference, len(labels)) for reference in references]
    said = [
        number.get(prediction, len(labels) if prediction == reference else n_rows)
        for reference, prediction in zip(references, predictions, strict=True)
    ]
    return Confusion(labels, confusion_matrix(true, said, labels=range(n_rows + 1))[:n_rows], other_classes)
