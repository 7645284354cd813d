"""Rows in, batches out."""

from collators.chat import ChatCollator
from collators.seq2seq import Seq2SeqCollator

__all__ = ["ChatCollator", "Seq2SeqCollator"]
