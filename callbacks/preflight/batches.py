"""What can be said of batches before training: labels, lengths, the longest of them, and what a model sees."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from datasets import Dataset, IterableDataset
from transformers import PreTrainedModel

from ...eval.drawn_row import draw_row
from ...eval.report.check import Check
from ...eval.report.data.page import EXAMPLES_SHOWN, Example
from ...eval.report.data.seen_images import seen_images
from ...eval.sampling import evenly_spread
from ...models.ends import ends_of_answers
from ..label_audit import check_labels

INSPECTED, EXTREME = 64, 8  # rows, and those with the most questions or pixels


def inspect_batches(
    rows: Any, collator: Callable[[list[dict]], Mapping[str, Any]], model: PreTrainedModel, processing_class, size: int
) -> tuple[list[Check], Mapping[str, Any], str, dict[str, Any]]:
    """Collate some of the training `rows` one by one, and check their labels and lengths (in tokens).

    Returns the checks; a batch of the `size` longest rows, and what names it for people; and what `write_data_page`
    shows of all this, by its arguments' names.
    """
    if isinstance(rows, IterableDataset | torch.utils.data.IterableDataset):
        rows = list(islice(rows, INSPECTED))
    processor = getattr(collator, "processor", processing_class)
    only_answers = getattr(collator, "train_on", "assistant") == "assistant"
    ends = ends_of_answers(processor.tokenizer, model) if only_answers else ()
    lengths: dict[int, int] = {}
    examples = []
    try:
        inspected = rows_to_inspect(rows)
        pictured = {inspected[place] for place in evenly_spread(len(inspected), EXAMPLES_SHOWN)}
        for i in inspected:
            row = rows[i]
            batch = collator([row])
            lengths[i] = batch["input_ids"].shape[-1]
            if only_answers:
                check_labels(batch["labels"][0], processor, ends, f"row {row.get('id', i)!r}")
            if i in pictured:
                query = (row.get("queries") or [row])[0]
                seen = seen_images(batch, processor.image_processor) if "pixel_values" in batch else []
                pictures = seen[: max(1, len(row.get("images") or ()))]  # several sequences repeat a row's
                texts = (str(query.get(key) or "") for key in ("question", "answer"))
                drawn = draw_row(row, getattr(collator, "background", "white"))
                examples.append(Example(str(row.get("id", "")), pictures, *texts, drawn))
        longest = sorted(lengths, key=lengths.__getitem__, reverse=True)[:size]
        batch = collator([rows[i] for i in longest])
    except ValueError as error:  # names its row
        return [Check("labels", "stop", str(error))], {}, "", {}
    config = model.config.get_text_config()
    budget = getattr(collator, "max_length", None) or getattr(config, "max_position_embeddings", None)
    how_many = f"{len(longest)} row{'s' * (len(longest) != 1)}"
    what = f"{how_many} of up to {lengths[longest[0]]:,} tokens, the longest of {len(lengths):,}"
    trained = "answers that end, and on nothing else" if only_answers else "more than their answers, as asked"
    labels = Check("labels", "pass", f"{len(lengths):,} rows train on {trained}")
    return [labels, check_lengths(list(lengths.values()), budget)], batch, what, {"examples": examples}


def rows_to_inspect(rows: Any) -> list[int]:
    """Numbers of rows: some evenly spread, those with the most questions, those with the largest images."""
    sizes = []
    if isinstance(rows, Dataset):
        columns = rows.with_format("arrow")
        if "queries" in rows.column_names:
            sizes.append(pc.list_value_length(columns.select_columns("queries")[:]["queries"]))
        if "image_size" in rows.column_names:
            sides = columns.select_columns("image_size")[:]["image_size"]
            sizes.append(pc.multiply(*(pc.list_element(sides, i) for i in (0, 1))))
        if "image_sizes" in rows.column_names:
            shown = columns.select_columns("image_sizes")[:]["image_sizes"].to_pylist()
            sizes.append(np.array([sum(width * height for width, height in own) for own in shown]))
    most = [np.asarray(size).argsort(kind="stable")[-EXTREME:].tolist() for size in sizes]
    return list(dict.fromkeys(chain(evenly_spread(len(rows), INSPECTED), *most)))


def check_lengths(lengths: Sequence[int], budget: int | None) -> Check:
    """Lengths in tokens against the longest that is read whole, if there is such a limit."""
    longest, mean = max(lengths), sum(lengths) / len(lengths)
    found = f"up to {longest:,}, {mean:,.0f} on average of {len(lengths):,} rows"
    numbers = {"longest": longest, "mean": mean} | ({"budget": budget} if budget else {})
    over = sum(length > budget for length in lengths) if budget else 0
    if budget:
        found += f"; the budget is {budget:,}" + (f", and {over:,} rows are over it" if over else "")
    return Check("token lengths", "warn" if over else "pass", found, numbers)
