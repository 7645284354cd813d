"""Only answers that can be right: `generate` kept to a closed set, to lists of its items, or to numbers."""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise, product

import torch

SEPARATOR = ";"
DIGITS = 3  # of a count or a length
Tokens = tuple[int, ...]


class AnswerSetError(ValueError):
    """Answers cannot be kept to this set; the message says which of them is why."""


@dataclass
class _Node:
    """A node of a trie of token ids. `leads` are the choices below it, each with whether the answer ends there."""

    children: dict[int, "_Node"] = field(default_factory=dict)
    leads: set[tuple[int, bool]] = field(default_factory=set)
    end: tuple[int, bool] | None = None

    def add(self, ids: Tokens, choice: int, last: bool) -> None:
        node = self
        for token in ids:
            node = node.children.setdefault(token, _Node())
            node.leads.add((choice, last))
        node.end = (choice, last)


class Constraint:
    """The answers a row may get: one of `choices`, or, with `several`, a list "a; b" of them without repeats.

    They are made of the tokens that training shows for them, and nothing else can come out, whatever the model
    prefers: greedily, under beam search or when sampling. `generate` takes them row by row.

    Args:
        choices: the closed set. Choices that the tokenizer takes for one, such as the two ways to write "é", count
            once.
        answer_ids: an answer -> its token ids after the prompt, end of turn included (`ChatCollator.answer_ids`).
        several: lists are allowed, in any order.

    Raises `AnswerSetError` for an empty set, and, naming it, for a choice that has no tokens, does not end its turn
    exactly once, has the tokens of another one, or whose tokens change when it stands in a list.
    """

    def __init__(self, choices: Sequence[str], answer_ids: Callable[[str], Sequence[int]], several: bool = False):
        self._whole: dict[Tokens, str] = {}
        for choice in choices:
            ids = _tokens(choice, answer_ids)
            same = self._whole.setdefault(ids, choice)
            if _plain(same) != _plain(choice):  # both unknown to the tokenizer
                raise AnswerSetError(f"the answers {same!r} and {choice!r} have the same tokens")
        if not self._whole:
            raise AnswerSetError("no answers to choose from: the set is empty")
        self.choices = tuple(self._whole.values())
        self.several = several and len(self.choices) > 1
        self.end = next(iter(self._whole))[-1]
        if bad := [choice for ids, choice in self._whole.items() if ids[-1] != self.end]:
            raise AnswerSetError(
                f"the answers {self.choices[0]!r} and {bad[0]!r} end their turns with different tokens"
            )
        self._end = torch.tensor([self.end])
        self.longest = max(map(len, self._whole))
        self._first, self._next = _Node(), _Node()
        self._cached: dict[tuple, torch.Tensor] = {}
        for i, ids in enumerate(self._whole):
            self._first.add(ids, i, last=True)
        if self.several:
            self._add_lists(answer_ids)

    @property
    def only(self) -> str | None:
        """The answer, if there is but one."""
        return self.choices[0] if len(self.choices) == 1 else None

    def _add_lists(self, answer_ids: Callable[[str], Sequence[int]]) -> None:
        """Beside "a": "a;" to begin with, " b;" to go on, " b" to end."""
        if bad := [choice for choice in self.choices if SEPARATOR in choice]:
            raise AnswerSetError(f"the answer {bad[0]!r} holds the {SEPARATOR!r} that separates answers in a list")
        ids = cache(lambda *parts: _tokens(f"{SEPARATOR} ".join(parts), answer_ids))
        begin = [_tokens(choice + SEPARATOR, answer_ids)[:-1] for choice in self.choices]
        lead, n = self.choices[0], len(begin[0])
        go_on = [_tokens(f"{lead}{SEPARATOR} {choice}{SEPARATOR}", answer_ids)[n:-1] for choice in self.choices]
        end = [ids(lead, choice)[n:] for choice in self.choices]
        # A part that begins with another would leave open which one is meant.
        for (part, choice), (longer, other) in pairwise(sorted(zip(go_on + end, self.choices * 2, strict=True))):
            if longer[: len(part)] == part:
                raise AnswerSetError(f"the answers {choice!r} and {other!r} have the same tokens in a list")
        for i, choice in enumerate(self.choices):
            after = (i + 1) % len(self.choices)
            if ids(choice, self.choices[after], choice) != begin[i] + go_on[after] + end[i]:
                raise AnswerSetError(f"the tokens of the answer {choice!r} change when it stands in a list")
            self._first.add(begin[i], i, last=False)
            self._next.add(go_on[i], i, last=False)
            self._next.add(end[i], i, last=True)
        self.longest = max(map(len, begin)) + sum(map(len, go_on)) + max(map(len, end))

    def refuse_ends(self, ends: set[int]) -> None:
        """Raise `AnswerSetError`, naming it, for a choice with one of the tokens inside at which generation ends."""
        for ids, choice in self._whole.items():
            if not ends.isdisjoint(ids[:-1]):
                raise AnswerSetError(f"the answer {choice!r} spells a token that ends answers")

    def allowed(self, generated: Sequence[int]) -> torch.Tensor:
        """The ids that may follow `generated`, `[allowed]`; the end of turn when the answer is complete."""
        node, chosen = self._follow(generated)
        if node is None:
            return self._end
        state = (id(node), frozenset(chosen))
        if state not in self._cached:
            self._cached[state] = torch.tensor(list(self._open(node, state[1])))
        return self._cached[state]

    def text(self, generated: Sequence[int]) -> str | None:
        """The answer that `generated` is, as the set spells it; None if it is none, or not complete."""
        node, chosen = self._follow(generated)
        return None if node else f"{SEPARATOR} ".join(self.choices[i] for i in chosen) or None

    def _follow(self, generated: Sequence[int]) -> tuple[_Node | None, list[int]]:
        """Where `generated` leads, and the choices on its way; no node after an answer's end, nor for what is none."""
        node, chosen = self._first, []
        for token in generated:
            node = node.children.get(token)
            if node is None:
                return None, []
            if node.end is not None:
                choice, last = node.end
                chosen.append(choice)
                if last:
                    return None, chosen
                node = self._next
        return node, chosen

    def _open(self, node: _Node, used: frozenset[int]) -> Iterator[int]:
        """Children that lead to an unused choice; a list may only go on while another one is left for it."""
        more = len(used) + 1 < len(self.choices)
        for token, child in node.children.items():
            if any(choice not in used and (last or more) for choice, last in child.leads):
                yield token


def _tokens(answer: str, answer_ids: Callable[[str], Sequence[int]]) -> Tokens:
    ids = tuple(answer_ids(answer)) if answer.strip() else ()
    if len(ids) < 2:
        raise AnswerSetError(f"the answer {answer!r} has no tokens")
    if ids.count(ids[-1]) != 1:
        raise AnswerSetError(f"the answer {answer!r} ends its turn more than once")
    return ids


def _plain(text: str) -> list[str]:
    """Text without what some tokenizers do not see: how characters are composed, how much space is between."""
    return unicodedata.normalize("NFKC", text).split()


def numbers(units: Sequence[str] = ("",), digits: int = DIGITS) -> list[str]:
    """Every whole number of up to `digits` digits, without leading zeros, before each unit: "7", "12mm", "1 cm"."""
    return [f"{number}{unit}" for unit, number in product(units, range(10**digits))]
