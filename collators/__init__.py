"""Rows in, batches out. A name is loaded when it is asked for (PEP 562), and nothing beside it."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .chat import ChatCollator
    from .segmentation import SegmentationCollator
    from .seq2seq import Seq2SeqCollator
    from .shared_image import SharedImageCollator
    from .video import VideoCollator

__all__ = ["ChatCollator", "SegmentationCollator", "Seq2SeqCollator", "SharedImageCollator", "VideoCollator"]
MODULES = dict(zip(__all__, ("chat", "segmentation", "seq2seq", "shared_image", "video"), strict=True))


def __getattr__(name: str):
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{MODULES[name]}", __name__), name)
