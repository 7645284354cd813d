"""How many tokens a row has: shorter ones are padded, and of one that is too long nothing is ever cut."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import ProcessorMixin

from ..rows.conventions import Row, picture_sizes
from ..rows.errors import BadRow
from .encoding import encode, tokenized
from .images import blank
from .rendering import Segments

if TYPE_CHECKING:
    from .chat import ChatCollator


def padded(tensors: Sequence[torch.Tensor], value: int, side: str = "right") -> torch.Tensor:
    """`[B, S, …]` of several `[S, …]`, filled up with `value`."""
    return pad_sequence(list(tensors), batch_first=True, padding_value=value, padding_side=side)


def check_length(tokens: int, max_length: int | None) -> None:
    """Raise `BadRow` if a row has more than `max_length` tokens (None: no limit)."""
    if max_length is not None and tokens > max_length:
        raise BadRow(
            f"{tokens} tokens, more than max_length={max_length}: raise it, give images fewer pixels, "
            "or filter rows by the collator's `fits`"
        )


def within_length(adapt: Callable[[Row], Row], collator: "ChatCollator") -> Callable[[Row], Row]:
    """A row adapter for `usable_rows` that also refuses rows longer than the collator's `max_length`.

    Pictures are not decoded for it: their sizes say how many tokens they take.
    """

    def checked(row: Row) -> Row:
        adapted = adapt(row)
        check_length(collator.length(adapted, picture_sizes(row)), collator.max_length)
        return adapted

    return adapt if collator.max_length is None else checked


def length_of(processor: ProcessorMixin, segments: Segments, sizes: Sequence[Sequence[int]]) -> int:
    """How many tokens a conversation has with images of these sizes (width, height in pixels)."""
    counts = _tokens_of_sizes(processor, processor.to_json_string(), tuple(map(tuple, sizes))) if sizes else ()
    if counts is None:
        return len(encode(processor, [segments], [blank(sizes)]).row(0)[0])
    return len(tokenized(processor.tokenizer, segments)[0]) - len(counts) + sum(counts)


@lru_cache(maxsize=4096)
def _tokens_of_sizes(processor: ProcessorMixin, settings: str, sizes: tuple[tuple[int, int], ...]) -> list[int] | None:
    """How many tokens images of these sizes take, whatever they show; None where these may join the text around them.

    Kept by the processor's `settings` (its `to_json_string()`), too: its limits may be set anew.
    """
    token, added = str(processor.image_token), processor.tokenizer.added_tokens_decoder
    (shown,) = encode(processor, [[(token * len(sizes), False)]], [blank(sizes)]).shown
    alone = processor.tokenizer.convert_tokens_to_ids(token) in added
    alone = alone and all(int(place) in added for ids in shown for place in (ids[0], ids[-1]))
    return [len(ids) for ids in shown] if alone else None
