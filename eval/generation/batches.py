"""Rows to answer -> batches of those about one image, the longest first, each image in them decoded once."""

from collections import defaultdict
from collections.abc import Container, Sequence
from typing import Any

import datasets
from torch.utils.data import Dataset

from ...rows.conventions import Row

Rows = datasets.Dataset | Sequence[Row]
PIXELS_PER_TOKEN, CHARACTERS_PER_TOKEN = 28 * 28, 4
OPEN = 64  # batches that still take rows: alike in length, and few enough to look through


def batches_by_image(rows: Rows, known: Container[int], batch_size: int, processes: int = 1) -> list[list[int]]:
    """Row numbers, without those `known`, in batches of at most `batch_size` and a process's even share of all.

    The questions about an image (`image_id`) are in one batch, if they fit into one. By estimated tokens the longest
    come first, so that alike rows share a batch and one too large for the memory shows at once.
    """
    if isinstance(rows, datasets.Dataset):
        needed = [name for name in ("messages", "prompt", "image_size", "image_id") if name in rows.column_names]
        rows = rows.select_columns(needed or rows.column_names)
    groups: dict[Any, list[tuple[float, int]]] = defaultdict(list)
    for i, row in enumerate(rows):
        image_id = row.get("image_id")
        if i not in known:
            groups[("row", i) if image_id is None else ("image", image_id)].append((-_tokens(row), i))
    size = max(1, min(batch_size, -(-sum(map(len, groups.values())) // processes)))
    batches: list[list[int]] = []
    taking: list[list[int]] = []
    for group in sorted(map(sorted, groups.values())):
        members = [i for _, i in group]
        for part in (members[start : start + size] for start in range(0, len(members), size)):
            batch = next((batch for batch in taking if len(batch) + len(part) <= size), None)
            if batch is None:
                batch = []
                batches.append(batch)
                taking = [*taking[-OPEN:], batch]
            batch += part
        taking = [batch for batch in taking if len(batch) < size]
    return batches


def _tokens(row: Row) -> float:
    width, height = row.get("image_size") or (0, 0)
    text = row.get("prompt") or str(row.get("messages", ""))
    return len(text) / CHARACTERS_PER_TOKEN + width * height / PIXELS_PER_TOKEN


class EachImageOnce(Dataset):
    """Rows of a `datasets.Dataset`; those of a batch with the same file, or the same bytes, share a decoded image."""

    def __init__(self, rows: datasets.Dataset):
        self.columns = [name for name in ("image", "images") if name in rows.column_names]
        undecoded = datasets.Image(decode=False)
        for name in self.columns:
            one = isinstance(rows.features[name], datasets.Image)
            rows = rows.cast_column(name, undecoded if one else datasets.List(undecoded))
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[Row]:
        seen: dict[tuple, Any] = {}
        rows = self.rows.__getitems__(indices)
        for row in rows:
            row |= {name: _decoded(row[name], seen) for name in self.columns}
        return rows


def _decoded(image: Any, seen: dict[tuple, Any]) -> Any:
    if isinstance(image, list):
        return [_decoded(one, seen) for one in image]
    if image is None:
        return None
    key = (image["path"], image["bytes"])
    if key not in seen:
        seen[key] = datasets.Image().decode_example(image)
    return seen[key]


def each_image_once(rows: Rows) -> Any:
    """`EachImageOnce` for a dataset with images, and what it is given for anything else."""
    if not isinstance(rows, datasets.Dataset) or rows.format["type"] is not None:
        return rows
    kinds = [rows.features[name] for name in ("image", "images") if name in rows.column_names]
    known = [isinstance(getattr(kind, "feature", kind), datasets.Image) for kind in kinds]
    return EachImageOnce(rows) if known and all(known) else rows
