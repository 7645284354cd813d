"""What tells transformers' `generate` to keep the rows of a batch to their constraints."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from .constraints import Constraint


def keep_to(
    allowed: Sequence[Constraint | None], prompt_length: int, max_new_tokens: int, model: PreTrainedModel
) -> dict[str, Any]:
    """Settings of `model.generate` that keep the rows of a batch to their constraints, and let no answer be cut.

    Args:
        allowed: one constraint per row, None for a row that may say anything.
        prompt_length: tokens of the (padded) prompt before the answer; 1 for an encoder-decoder.
        max_new_tokens: longest answer of a row without a constraint, in tokens.
    """
    vocab_size = model.config.get_text_config(decoder=True).vocab_size
    return {
        "prefix_allowed_tokens_fn": AllowedTokens(allowed, prompt_length, vocab_size, model.device),
        "stopping_criteria": StoppingCriteriaList([AnswersEnd(allowed, prompt_length, max_new_tokens, model.device)]),
        "max_new_tokens": max([max_new_tokens, *(constraint.longest for constraint in allowed if constraint)]),
    }


class AllowedTokens:
    """`prefix_allowed_tokens_fn` of transformers' `generate` for one batch: one constraint, or None, per row.

    Args:
        prompt_length: tokens of the (padded) prompt before the answer.
        vocab_size: what a row without a constraint may choose from.
        device: the model's.
    """

    def __init__(
        self, constraints: Sequence[Constraint | None], prompt_length: int, vocab_size: int, device: Any = "cpu"
    ):
        self.constraints = constraints
        self.prompt_length = prompt_length
        self.anything = torch.arange(vocab_size, device=device)

    def __call__(self, batch_id: int, ids: torch.Tensor) -> torch.Tensor:
        constraint = self.constraints[batch_id]
        return self.anything if constraint is None else constraint.allowed(ids[self.prompt_length :].tolist())


class AnswersEnd(StoppingCriteria):
    """Ends each row by itself: after its constraint's end of turn, or, without one, after `max_new_tokens`.

    A batch goes on for as long as its longest constrained answer, which must not change what free rows say.

    Args:
        prompt_length: tokens of the (padded) prompt before the answer.
    """

    def __init__(
        self, constraints: Sequence[Constraint | None], prompt_length: int, max_new_tokens: int, device: torch.device
    ):
        self.ends = torch.tensor([-1 if one is None else one.end for one in constraints], device=device)
        self.free_until = prompt_length + max_new_tokens

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs) -> torch.Tensor:
        ends = self.ends.repeat_interleave(len(input_ids) // len(self.ends))  # beams of a row follow each other
        return torch.where(ends < 0, input_ids.shape[1] >= self.free_until, input_ids[:, -1] == ends)
