"""A dataset -> usable rows, splits, groups; the others are refused by name. A name is loaded alone (PEP 562)."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import BadRow, DataError, start_of
    from .grouping import group_by_image, one_per_query, with_questions_shuffled
    from .loading import apart, load_split
    from .parts import parts_of, three_parts
    from .pictures import content_id
    from .reading import read_boxes, read_rows
    from .splits import by_video, hold_out, hold_out_two, read_videos, with_validation
    from .usable import usable_rows

__all__ = ["BadRow", "DataError", "apart", "by_video", "content_id", "group_by_image", "hold_out", "hold_out_two"]
__all__ += ["load_split", "one_per_query", "read_boxes", "read_rows", "read_videos", "start_of"]
__all__ += ["parts_of", "three_parts", "usable_rows", "with_questions_shuffled", "with_validation"]
MODULES = {"content_id": "pictures", "usable_rows": "usable"}
MODULES |= dict.fromkeys(("read_boxes", "read_rows"), "reading")
MODULES |= dict.fromkeys(("parts_of", "three_parts"), "parts")
MODULES |= dict.fromkeys(("BadRow", "DataError", "start_of"), "errors")
MODULES |= dict.fromkeys(("apart", "load_split"), "loading")
MODULES |= dict.fromkeys(("by_video", "hold_out", "hold_out_two", "read_videos", "with_validation"), "splits")
MODULES |= dict.fromkeys(("group_by_image", "one_per_query", "with_questions_shuffled"), "grouping")


def __getattr__(name: str):
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{MODULES[name]}", __name__), name)
