"""What one wants to know before the first hour is spent: the rows, the answers, and the first loss."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedModel

from eval.evaluation import Evaluation

ROWS = 64


class PreflightError(ValueError):
    """The run would come to nothing; the message says why."""


@torch.no_grad()
def preflight(
    network: PreTrainedModel,
    collator: Callable[[list[dict[str, Any]]], Mapping[str, torch.Tensor]],
    evaluation: Evaluation,
    rows: Mapping[str, Dataset],
    refused: list[dict[str, Any]],
) -> None:
    """Print a run's data, its first loss beside that of a uniform guess, and what it answers before training.

    Args:
        collator: rows -> a batch with labels.
        rows: split -> rows with `id`, `image_id` and `answer`, the training part first.
        refused: what `collators.rows.usable_rows` refused.

    Raises `PreflightError` where the first loss is no number.
    """
    state = PartialState()
    seen: set[str] | None = None
    for split, part in rows.items():
        answers, images = set(part["answer"]), set(part["image_id"])
        unseen = f", {len(answers - seen)} of them never in training" if seen is not None else ""
        state.print(f"{split}: {len(part):,} rows on {len(images):,} images, {len(answers)} different answers{unseen}")
        seen = answers if seen is None else seen
    state.print(f"refused: {len(refused):,} rows" + (f", for example {refused[0]['reason']}" if refused else ""))
    train = next(iter(rows.values()))
    some = train.shuffle(seed=0).select(range(min(ROWS, len(train))))
    batch = {key: value.to(state.device) for key, value in collator(list(some)).items()}
    network.to(state.device).eval()
    with torch.autocast(state.device.type, dtype=evaluation.autocast, enabled=evaluation.autocast is not None):
        output = network(**batch)
    loss, vocabulary = output.loss.item(), output.logits.shape[-1]
    if not math.isfinite(loss):
        raise PreflightError(f"the first loss is {loss}")
    state.print(
        f"first loss: {loss:.3f} a token; a uniform guess among {vocabulary:,} tokens has {math.log(vocabulary):.3f}"
    )
    metrics, _ = evaluation(network, some)
    state.print(
        f"{evaluation.headline} before training: {metrics[evaluation.headline]:.3f} on {len(some)} training rows"
    )
