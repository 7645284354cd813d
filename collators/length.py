"""How many tokens a row has: shorter ones are padded, and of one that is too long nothing is ever cut."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.utils.rnn import pad_sequence

from ..rows.conventions import Row, picture_sizes
from ..rows.errors import BadRow

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
