"""A few of many rows, the same ones each time."""

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np


def evenly_spread(rows: int, most: int) -> list[int]:
    """The numbers of at most `most` of so many `rows`: one, the same each time, from every stretch of equal length.

    Where in its stretch is drawn, since rows have an order, too: every ninth may ask the same of its image.
    """
    ends = np.arange(min(rows, most) + 1) * rows // max(min(rows, most), 1)
    return np.random.default_rng(0).integers(ends[:-1], ends[1:]).tolist()


def chosen(rows: Any, numbers: Sequence[int]) -> Any:
    """The rows with these numbers: a dataset of a dataset, else a list."""
    return rows.select(numbers) if isinstance(rows, datasets.Dataset) else [rows[i] for i in numbers]
