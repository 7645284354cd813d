"""Conversations with the same beginning as one sequence: the beginning once, then each as a branch of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch.nn.functional import pad

from ..rows.conventions import IGNORE_INDEX
from .length import padded

NONE = -1  # padding is in no branch


class Conversation(NamedTuple):
    """One conversation by itself: its number in the batch, `input_ids` and `labels` `[S]`, `position_ids` `[…, S]`."""

    number: int
    input_ids: torch.Tensor
    labels: torch.Tensor
    position_ids: torch.Tensor


@dataclass
class PrefixTree:
    """Conversations in one sequence: `input_ids`, `labels` `[S]`, `position_ids` `[…, S]`, `branches` `[S]`.

    A token's branch is 0 where it is shared, and k in the conversation whose number is `members[k - 1]`.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    position_ids: torch.Tensor
    branches: torch.Tensor
    members: list[int]

    def part(self, branch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The shared part (0) or a branch's own: `input_ids` and `position_ids`."""
        there = self.branches == branch
        return self.input_ids[there], self.position_ids[:, there]

    def with_padding(self, input_ids: torch.Tensor) -> "PrefixTree":
        """The same sequence with these tokens behind it, which no other sees and none is trained on."""
        added = (0, len(input_ids))
        return replace(
            self,
            input_ids=torch.cat([self.input_ids, input_ids]),
            labels=pad(self.labels, added, value=IGNORE_INDEX),
            position_ids=pad(self.position_ids, added),
            branches=pad(self.branches, added, value=NONE),
        )


def shared_length(conversations: Sequence[Conversation], image_token_ids: Sequence[int]) -> int:
    """How many tokens all conversations begin with; 0 if one has an image only behind them.

    Each keeps at least one token of its own, and the first of them is not trained: in one sequence, what comes after
    the shared part is the first branch alone.
    """
    length = min(_untrained(one.labels) for one in conversations)
    for one in conversations[1:]:
        same = one.input_ids[:length] == conversations[0].input_ids[:length]
        length = int(same.int().cumprod(0).sum())
    late = any(is_image(one.input_ids[length:], image_token_ids).any() for one in conversations)
    return 0 if late else length


def _untrained(labels: torch.Tensor) -> int:
    """How many tokens come before the last one, and before the one that precedes the first trained one."""
    trained = (labels != IGNORE_INDEX).nonzero()
    return max((int(trained[0]) if len(trained) else len(labels)) - 1, 0)


def is_image(input_ids: torch.Tensor, image_token_ids: Sequence[int]) -> torch.Tensor:
    """Which of the tokens `[S]` are an image's."""
    return torch.isin(input_ids, torch.tensor(image_token_ids))


def rope_positions(
    input_ids: torch.Tensor, image_token_ids: Sequence[int], image_grid_thw: torch.Tensor, merge_size: int
) -> torch.Tensor:
    """Position ids `[3, S]` of one sequence that begins at 0: Qwen2-VL's multimodal rotary embedding.

    Time, height and width (arXiv 2409.12191): text counts in all three alike, an image's tokens by their place in the
    grid, and what comes behind it goes on after the largest.

    Args:
        input_ids: `[S]`, with as many tokens for each image as it takes.
        image_grid_thw: `[images, 3]` in patches, of which `merge_size` times `merge_size` make a token.
    """
    of_image = is_image(input_ids, image_token_ids).tolist()
    parts, done, position = [], 0, 0
    for time, height, width in image_grid_thw.tolist():
        start = of_image.index(True, done)
        parts.append(torch.arange(start - done).expand(3, -1) + position)
        position += start - done
        sides = (time, height // merge_size, width // merge_size)
        parts.append(torch.cartesian_prod(*map(torch.arange, sides)).T + position)
        position += max(sides[1:])
        done = start + sides[0] * sides[1] * sides[2]
    parts.append(torch.arange(len(input_ids) - done).expand(3, -1) + position)
    return torch.cat(parts, dim=1)


def grow(conversations: Sequence[Conversation], shared: int) -> PrefixTree:
    """The tree of conversations of which the first `shared` tokens are the same."""
    own = [len(one.input_ids) - shared for one in conversations]

    def joined(sequences: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([sequences[0][..., :shared], *(one[..., shared:] for one in sequences)], dim=-1)

    return PrefixTree(
        input_ids=joined([one.input_ids for one in conversations]),
        labels=joined([one.labels for one in conversations]),
        position_ids=joined([one.position_ids for one in conversations]),
        branches=torch.arange(1 + len(own)).repeat_interleave(torch.tensor([shared, *own])),
        members=[one.number for one in conversations],
    )


def split(conversations: Sequence[Conversation], shared: int, max_length: int | None) -> list[list[Conversation]]:
    """Neighbours that fit into one tree of at most `max_length` tokens; one too long for any is by itself."""
    parts: list[list[Conversation]] = [[]]
    total = shared
    for one in conversations:
        length = len(one.input_ids) - shared
        if parts[-1] and max_length is not None and total + length > max_length:
            parts.append([])
            total = shared
        parts[-1].append(one)
        total += length
    return parts


def seen_pairs(branches: torch.Tensor) -> torch.Tensor:
    """The attention mask `[B, 1, S, S]`, boolean: whether a token (third axis) sees one (last axis).

    A token sees what comes before it in the shared part and in its own branch. Padding sees the first token, since it
    has to see something, and nobody sees it: the diagonal is true where there is no padding. `branches` `[B, S]` say
    which branch a token belongs to: 0 where it is shared, -1 for padding.
    """
    before = torch.ones(2 * branches.shape[1:], dtype=torch.bool).tril()
    own = (branches[:, None, :] == 0) | (branches[:, None, :] == branches[:, :, None])
    padding = branches == NONE
    seen = before & own & ~padding[:, :, None]
    seen[:, :, 0] |= padding
    return seen[:, None]


def padded_positions(positions: Sequence[torch.Tensor], side: str = "right") -> torch.Tensor:
    """`[3, B, S]` of several `[3, S]`; `[B, S]` of several `[1, S]`."""
    stacked = padded([one.T for one in positions], 0, side).permute(2, 0, 1).contiguous()
    return stacked if len(stacked) > 1 else stacked[0]
