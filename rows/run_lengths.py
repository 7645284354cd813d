"""COCO's compressed run lengths as numbers: pycocotools reads what is in memory where a text is none of them.

A leaf, which imports nothing of ours, and which all may import.
"""

import numpy as np

LONGEST = 7  # signs of a number of 32 bits


def counts_in(text: str) -> np.ndarray:
    """The counts that a text stands for, int64: five bits a sign, from the fourth on what the last but one lacks.

    Raises `ValueError` where it is no such text. Source: `rleFrString` of COCO's maskApi.c.
    """
    values = np.array([ord(sign) for sign in text], dtype=np.int64) - 48
    if (odd := (values < 0) | (values >= 64)).any():
        raise ValueError(f"its counts have {text[odd.argmax()]!r}, which is none of COCO's signs there")
    ends = np.flatnonzero(values & 32 == 0)
    if len(values) and (not len(ends) or ends[-1] != len(values) - 1):
        raise ValueError("its counts end within a number")
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    lengths = ends + 1 - starts
    if (lengths > LONGEST).any():
        raise ValueError(f"its counts have a number of more than {LONGEST} signs")
    place = np.arange(len(values)) - np.repeat(starts, lengths)
    counts = np.add.reduceat((values & 31) << 5 * place, starts) if len(starts) else values
    counts -= (values[ends] >> 4 & 1) << 5 * lengths
    for first in (1, 2):
        counts[first::2] = np.cumsum(counts[first::2])
    return counts


def refuse_other_counts(text: str, height: int, width: int) -> None:
    """Raise `ValueError` where a text is not the run lengths of a mask of this size."""
    counts = counts_in(text)
    if (counts < 0).any() or counts.sum() != height * width:
        raise ValueError(f"its counts are of {counts.sum():,} pixels, and the mask has {height * width:,}")
