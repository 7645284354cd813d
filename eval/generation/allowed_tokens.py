"""What tells transformers' `generate` to keep the rows of a batch to their constraints."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, StoppingCriteriaList

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
    anything = torch.arange(model.config.get_text_config(decoder=True).vocab_size, device=model.device)
    end_of_row = torch.tensor([-1 if one is None else one.end for one in allowed], device=model.device)

    def allowed_tokens(row: int, ids: torch.Tensor) -> torch.Tensor:
        constraint = allowed[row]
        return anything if constraint is None else constraint.allowed(ids[prompt_length:].tolist())

    def answers_end(input_ids: torch.Tensor, scores: Any, **kwargs) -> torch.Tensor:
        """A batch goes on for as long as its longest constrained answer, which must not change what free rows say."""
        ends = end_of_row.repeat_interleave(len(input_ids) // len(allowed))  # beams of a row follow each other
        return torch.where(ends < 0, input_ids.shape[1] >= prompt_length + max_new_tokens, input_ids[:, -1] == ends)

    return {
        "prefix_allowed_tokens_fn": allowed_tokens,
        "stopping_criteria": StoppingCriteriaList([answers_end]),
        "max_new_tokens": max([max_new_tokens, *(constraint.longest for constraint in allowed if constraint)]),
    }
