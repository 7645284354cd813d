"""Rows in, batches out."""

from collators.chat import ChatCollator
from collators.segmentation import SegmentationCollator
from collators.seq2seq import Seq2SeqCollator
from collators.shared_image import SharedImageCollator, group_by_image
from collators.video import VideoCollator

__all__ = [
    "ChatCollator",
    "SegmentationCollator",
    "Seq2SeqCollator",
    "SharedImageCollator",
    "VideoCollator",
    "group_by_image",
]
