"""What rows, labels and masks agree on wherever they are made or read; imports nothing, so that all may import it."""

from typing import Any

Row = dict[str, Any]
IGNORE_INDEX = -100  # a label that is not trained: what PyTorch's and transformers' losses leave out
IGNORED_PIXEL = 255  # of a mask: counts neither as target nor as background
PROBLEM = "why it cannot be read"  # a column of readers: the reason why a row is refused, "" for one that is not
SPLIT = "split"  # a column of readers: which part a row says that it is of, where its file holds several
ANNOTATED_SIZE = "annotated_size"  # a column of readers: of which [width, height] the annotated picture is, if known
SEG_TOKEN = "[SEG]"  # LISA's: where the model says it, a mask is drawn


def picture_sizes(row: Row) -> list[list[int]]:
    """`[width, height]` in pixels of each of a row's pictures: its `image_sizes`, or its `image_size`, if known."""
    return row["image_sizes"] if "image_sizes" in row else [row["image_size"]] if row.get("image_size") else []
