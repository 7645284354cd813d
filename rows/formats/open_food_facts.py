"""Open Food Facts' photographs of packages: which of them show the same product."""

import re

from ..conventions import Row

DATE = r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"  # as telephones call photographs: 20230514_101530
BARCODE = re.compile(rf"(?!{DATE})(\d{{8,14}})_")  # how an `image_id` begins; the photograph's number follows


def product_of(row: Row) -> str:
    """What the photographs of one product have in common, though they differ in `image_id`.

    The `barcode` of `meta`, where a dataset has it; else the one that `image_id` begins with, which is no date; else
    the photograph's own `image_id`.
    """
    meta, image_id = row.get("meta"), str(row["image_id"])
    if isinstance(meta, dict) and meta.get("barcode"):
        return str(meta["barcode"])
    begins = BARCODE.match(image_id)
    return begins[4] if begins else image_id
