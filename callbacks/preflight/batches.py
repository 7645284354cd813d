"""What can be said of batches before training: labels, lengths, the longest of them, and what a model sees."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow.compute as pc
import torch
from datasets import Dataset, IterableDataset
from transformers import PreTrainedModel, ProcessorMixin

from ...eval.report.check import Check
from ...eval.report.data.page import EXAMPLES_SHOWN, Example
from ...eval.report.data.seen_images import seen_images
from ..label_audit import check_labels, image_token_id

INSPECTED, EXTREME = 64, 8  # rows, and those with the most questions or pixels


@dataclass
class BatchInspection:
    """Rows that went through the collator one by one.

    Lengths are in tokens; `batch` is made of the longest rows, and `what` names it for people.
    """

    checks: list[Check]
    lengths: list[int] = field(default_factory=list)
    budget: int | None = None
    examples: list[Example] = field(default_factory=list)
    batch: Mapping[str, Any] = field(default_factory=dict)
    what: str = ""


def inspect_batches(
    rows: Any, collator: Callable[[list[dict]], Mapping[str, Any]], model: PreTrainedModel, processing_class, size: int
) -> BatchInspection:
    """Collate some of the training `rows`, check their labels and lengths, and make a batch of the `size` longest."""
    if isinstance(rows, IterableDataset | torch.utils.data.IterableDataset):
        rows = list(islice(rows, INSPECTED))
    processor = getattr(collator, "processor", processing_class)
    only_answers = getattr(collator, "train_on", "assistant") == "assistant"
    lengths: dict[int, int] = {}
    examples = []
    try:
        for i in rows_to_inspect(rows):
            row = rows[i]
            batch = collator([row])
            lengths[i] = batch["input_ids"].shape[-1]
            if only_answers:
                ends, name = [processor.tokenizer.eos_token_id], f"row {row.get('id', i)!r}"
                check_labels(batch["labels"][0], processor.tokenizer, ends, image_token_id(processor), name)
            if len(examples) < EXAMPLES_SHOWN:
                examples.append(_example(row, batch, processor))
        longest = sorted(lengths, key=lambda i: -lengths[i])[:size]
        batch = collator([rows[i] for i in longest])
    except ValueError as error:  # names its row
        return BatchInspection([Check("labels", "stop", str(error))])
    config = model.config.get_text_config()
    budget = getattr(collator, "max_length", None) or getattr(config, "max_position_embeddings", None)
    what = f"{len(longest)} rows of up to {lengths[longest[0]]:,} tokens, the longest of {len(lengths):,}"
    trained = "answers that end, and on nothing else" if only_answers else "more than their answers, as asked"
    labels = Check("labels", "pass", f"{len(lengths):,} rows train on {trained}")
    lengths = list(lengths.values())
    return BatchInspection([labels, check_lengths(lengths, budget)], lengths, budget, examples, batch, what)


def rows_to_inspect(rows: Any) -> list[int]:
    """Numbers of rows: some evenly spread, those with the most questions, those with the largest images."""
    spread = range(0, len(rows), math.ceil(len(rows) / INSPECTED))
    most: list[int] = []
    if isinstance(rows, Dataset):
        table = rows.select_columns([name for name in ("queries", "image_size") if name in rows.column_names])
        columns = table.with_format("arrow")[:]
        if "queries" in table.column_names:
            numbers = pc.list_value_length(columns["queries"]).to_numpy()
            most += numbers.argsort(kind="stable")[-EXTREME:].tolist()
        if "image_size" in table.column_names:
            sides = [pc.list_element(columns["image_size"], i) for i in (0, 1)]
            most += pc.multiply(*sides).to_numpy().argsort(kind="stable")[-EXTREME:].tolist()
    return list(dict.fromkeys([*spread, *most]))


def check_lengths(lengths: Sequence[int], budget: int | None) -> Check:
    """Lengths in tokens against the longest that is read whole, if there is such a limit."""
    longest, mean = max(lengths), sum(lengths) / len(lengths)
    found = f"up to {longest:,}, {mean:,.0f} on average of {len(lengths):,} rows"
    numbers = {"longest": longest, "mean": mean} | ({"budget": budget} if budget else {})
    over = sum(length > budget for length in lengths) if budget else 0
    if budget:
        found += f"; the budget is {budget:,}" + (f", and {over:,} rows are over it" if over else "")
    return Check("token lengths", "warn" if over else "pass", found, numbers)


def _example(row: Mapping[str, Any], batch: Mapping[str, Any], processor: ProcessorMixin) -> Example:
    query = (row.get("queries") or [row])[0]
    picture = seen_images(batch, processor.image_processor)[0] if "pixel_values" in batch else None
    texts = (str(query.get(key) or "") for key in ("question", "answer"))
    return Example(str(row.get("id", "")), picture, *texts)
