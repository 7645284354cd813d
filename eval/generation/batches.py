"""Rows to answer -> batches of those about one image, the longest first, each image in them decoded once."""

from collections import defaultdict
from collections.abc import Container, Sequence
from functools import cache, partial
from typing import Any

import datasets
from PIL import Image

from ...models.upstream import cast_pictures
from ...rows.conventions import Row, picture_sizes

Rows = datasets.Dataset | Sequence[Row]
PIXELS_PER_TOKEN, CHARACTERS_PER_TOKEN = 28 * 28, 4
OPEN = 64  # batches that still take rows: alike in length, and few enough to look through
QUESTIONS = 64  # about one image, in a batch of a collator that shares it: each has a cache and logits of its own


def batches_by_image(
    rows: Rows, known: Container[int], batch_size: int, processes: int = 1, share_images: bool = False
) -> list[list[int]]:
    """Row numbers, without those `known`, in batches of at most `batch_size` and a process's even share of all.

    The questions about an image (`image_id`) are in one batch, if they fit into one. Where a batch encodes each image
    once (`share_images`) they are in one even if they are more than `batch_size`, up to 64, and others join while all
    are within it. By estimated tokens the longest come first, so that alike rows share a batch and one too large for
    the memory shows at once.
    """
    if isinstance(rows, datasets.Dataset):
        needed = [
            name
            for name in ("messages", "prompt", "image_size", "image_sizes", "image_id")
            if name in rows.column_names
        ]
        rows = rows.select_columns(needed or rows.column_names)
    groups: dict[Any, list[tuple[float, int]]] = defaultdict(list)
    for i, row in enumerate(rows):
        image_id = row.get("image_id")
        if i not in known:
            groups[("row", i) if image_id is None else ("image", image_id)].append((-_tokens(row), i))
    size = max(1, min(batch_size, -(-sum(map(len, groups.values())) // processes)))
    together = max(size, QUESTIONS) if share_images else size
    batches: list[list[int]] = []
    taking: list[list[int]] = []
    for group in sorted(map(sorted, groups.values())):
        members = [i for _, i in group]
        for part in (members[start : start + together] for start in range(0, len(members), together)):
            batch = next((batch for batch in taking if len(batch) + len(part) <= size), None)
            if batch is None:
                batch = []
                batches.append(batch)
                taking = [*taking[-OPEN:], batch]
            batch += part
        taking = [batch for batch in taking if len(batch) < size]
    return batches


def _tokens(row: Row) -> float:
    pixels = sum(width * height for width, height in picture_sizes(row))
    text = row.get("prompt") or str(row.get("messages", ""))
    return len(text) / CHARACTERS_PER_TOKEN + pixels / PIXELS_PER_TOKEN


def each_image_once(rows: Rows) -> Rows:
    """Rows of which those of a batch with the same file, or the same bytes, share a decoded image.

    What has no images, or a format of its own, is given back as it is.
    """
    if not isinstance(rows, datasets.Dataset) or rows.format["type"] is not None:
        return rows
    kinds = {name: rows.features[name] for name in ("image", "images") if name in rows.column_names}
    if not kinds or not all(isinstance(getattr(kind, "feature", kind), datasets.Image) for kind in kinds.values()):
        return rows
    for name in kinds:
        rows = cast_pictures(rows, name, decode=False)
    return rows.with_transform(partial(_decode_once, columns=list(kinds)))


def _decode_once(batch: dict[str, list], columns: list[str]) -> dict[str, list]:
    @cache
    def decoded(path: str | None, data: bytes | None) -> Image.Image:
        return datasets.Image().decode_example({"path": path, "bytes": data})

    def opened(image: Any) -> Any:
        if isinstance(image, list):
            return [opened(one) for one in image]
        return image and decoded(image["path"], image["bytes"])

    return batch | {name: opened(batch[name]) for name in columns}
