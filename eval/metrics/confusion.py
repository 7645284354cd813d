"""Which class was answered for which: a confusion table that stays small however many classes there are."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import confusion_matrix

OTHER, MISSED, INVENTED = "other", "missed", "invented"


@dataclass(frozen=True)
class Confusion:
    """Rows of the most frequent true classes, counted by true and by predicted class.

    Args:
        labels: the classes shown, the most frequent true one first.
        counts: `[true, predicted]`, whole numbers: a row for each of `labels`, then of `more_rows`, and a column for
            each of `labels`, then of `more_columns`.
        n_classes: how many true classes there are, shown or not.
        more_columns: "other", answers that are none of `labels`; where boxes are missed also "missed".
        more_rows: where boxes are invented "invented".
    """

    labels: tuple[str, ...]
    counts: np.ndarray
    n_classes: int
    more_columns: tuple[str, ...] = (OTHER,)
    more_rows: tuple[str, ...] = ()

    @property
    def n_right(self) -> int:
        """How many are on the diagonal."""
        return int(np.trace(self.counts[: len(self.labels), : len(self.labels)]))

    @property
    def n_true(self) -> int:
        """How many are of the classes shown."""
        return int(self.counts[: len(self.labels)].sum())


def confusion(references: Sequence[str | None], predictions: Sequence[str | None], max_labels: int = 8) -> Confusion:
    """Count predicted classes by true class.

    `references` and `predictions` hold one class per row; None is that of a predicted box without a true one, or of a
    true one that was missed. The `max_labels` most frequent true classes are shown, among equally frequent ones the
    alphabetically first. Raises ValueError for lists of different lengths.
    """
    if len(references) != len(predictions):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references; give one per row")
    counted = Counter(name for name in references if name is not None)
    frequent = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    labels = tuple(name for name, _ in frequent[:max_labels])
    number = {name: i for i, name in enumerate(labels)} | {None: len(labels) + 1}
    true, said = ([number.get(name, len(labels)) for name in names] for names in (references, predictions))
    every = range(len(labels) + 2)  # the classes shown, all others, none
    counts = confusion_matrix(true, said, labels=every) if true else np.zeros((2, 2), dtype=int)
    columns = (OTHER, MISSED) if None in predictions else (OTHER,)
    rows = (INVENTED,) if None in references else ()
    shown = [*every[:-2], *([every[-1]] if rows else [])], every[: len(labels) + len(columns)]
    return Confusion(labels, counts[np.ix_(*shown)], len(frequent), columns, rows)
