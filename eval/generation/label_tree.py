"""A closed set of answers as a tree of tokens, so that one forward scores all of them."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence


class LabelTree:
    """The tokens of `labels`, those that begin alike sharing a branch; all of them are scored in one sequence.

    A label's probability is that of its tokens and of the `end` token behind them: without the latter, "grasp" would
    be as likely as all that begins with it.

    Args:
        labels: each label's token ids, without an end token.
        end: the id of the token that ends an answer.

    Attributes: `tokens` `[N]` and `depths` `[N]` of the nodes, a node's depth counting from 0; `sees` `[N, N]`, true
    where a node follows on another or is it.

    Raises `ValueError` for no labels, an empty one, one that holds `end`, or two alike.
    """

    def __init__(self, labels: Sequence[Sequence[int]], end: int):
        self.labels, self.end = [tuple(label) for label in labels], end
        if not self.labels or not all(self.labels) or len(set(self.labels)) < len(self.labels):
            raise ValueError("labels have to be at least one, none empty and none twice")
        if any(end in label for label in self.labels):
            raise ValueError("a label holds the token that ends an answer")
        beginnings = {label[: i + 1] for label in self.labels for i in range(len(label))}
        self._nodes = {node: i for i, node in enumerate(sorted(beginnings, key=lambda node: (len(node), node)))}
        self.tokens = torch.tensor([node[-1] for node in self._nodes])
        self.depths = torch.tensor([len(node) - 1 for node in self._nodes])
        self.sees = torch.eye(len(self._nodes), dtype=torch.bool)
        for node, i in self._nodes.items():
            if len(node) > 1:
                self.sees[i] |= self.sees[self._nodes[node[:-1]]]

    @cached_property
    def _paths(self) -> tuple[torch.Tensor, torch.Tensor]:
        """For each label `[L, D]` the places whose logits predict it (0 the question's end, else a node plus 1) and
        the tokens predicted, -1 behind the end."""
        places = [[0, *(self._nodes[label[: i + 1]] + 1 for i in range(len(label)))] for label in self.labels]
        targets = [[*label, self.end] for label in self.labels]
        return tuple(
            pad_sequence(list(map(torch.tensor, rows)), batch_first=True, padding_value=fill)
            for rows, fill in ((places, 0), (targets, -1))
        )

    @property
    def sequences(self) -> torch.Tensor:
        """Each label's tokens and the end `[L, D]`, filled up with the end."""
        targets = self._paths[1]
        return targets.masked_fill(targets < 0, self.end)

    def scores(self, logits: torch.Tensor, mean: bool = True) -> torch.Tensor:
        """Each label's mean log-probability per token (or the sum) `[B, L]`.

        `logits` `[B, 1 + N, V]` are those at the question's last token and at each node.
        """
        places, targets = (part.to(logits.device) for part in self._paths)
        logits = logits.float()
        log_probabilities = logits[:, places, targets.clamp(min=0)] - logits.logsumexp(-1)[:, places]
        said = targets >= 0
        totals = (log_probabilities * said).sum(-1)
        return totals / said.sum(-1) if mean else totals


def tree_mask(prompt_mask: torch.Tensor, asked: int, trees: Sequence[LabelTree], dtype: torch.dtype) -> torch.Tensor:
    """What the last `asked` tokens of each prompt, then a tree's nodes, see: `[B, 1, asked + N, S + N]`, to be added.

    A token sees what comes before it, a node the prompt and its own beginning; padding sees itself, to see anything.
    `prompt_mask` `[B, S]` is that of the prompts.
    """
    (batch, length), device = prompt_mask.shape, prompt_mask.device
    nodes = max(len(tree.tokens) for tree in trees)
    seen = torch.zeros(batch, asked + nodes, length + nodes, dtype=torch.bool, device=device)
    seen[:, :, :length] = prompt_mask[:, None].bool()
    seen[:, :asked, length - asked : length].tril_()
    for row, tree in zip(seen, trees, strict=True):
        row[asked:, length:][: len(tree.tokens), : len(tree.tokens)] = tree.sees
    seen[:, :, length - asked :].diagonal(dim1=1, dim2=2).fill_(True)
    return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


def choose_label(
    model: Any, batch: dict[str, torch.Tensor], labels: LabelTree, mean: bool = True, **settings
) -> tuple[torch.Tensor, None]:
    """The `ask` of `generate` for a model with `score_labels`: token ids of the best label, behind a start token.

    `settings` of generation are not read.
    """
    best = model.score_labels(labels, **batch, mean=mean).argmax(1).cpu()
    chosen = labels.sequences[best]
    return torch.cat([chosen.new_full((len(chosen), 1), labels.end), chosen], dim=1), None
