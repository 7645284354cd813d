"""Show what a run will train on, and refuse to start when it would train on the wrong thing."""

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from ..rows.conventions import IGNORE_INDEX

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

GREEN, DIM, RESET = "\033[32m", "\033[2m", "\033[0m"
NONE = -1  # no token's id


class LabelError(ValueError):
    """A row would train the model on something else than its answers; the message names the row."""


class LabelAuditCallback(TrainerCallback):
    """Print the first training rows with what is trained in green, then check their labels.

    Raises `LabelError` naming the row when an answer is empty, when it does not end with an end-of-turn token, or
    when an image token is among the labels: such a run trains without complaint and learns the wrong thing. So it does
    of a row that the collator refuses.

    Args:
        rows: how many rows to show and check.
        end_tokens: tokens that end an answer; default: the tokenizer's end-of-sequence token.
        check: false where a `PreflightCallback` checks these rows and more.
    """

    def __init__(self, rows: int = 3, end_tokens: list[str] | None = None, check: bool = True):
        self.rows = rows
        self.end_tokens = end_tokens
        self.check = check

    def on_train_begin(self, args, state, control, train_dataloader, processing_class, **kwargs):
        collator = collator_of(train_dataloader)
        processor = getattr(collator, "processor", processing_class)  # a plain function has none
        tokenizer = processor.tokenizer
        ends = tokenizer.convert_tokens_to_ids(self.end_tokens or [tokenizer.eos_token])
        image_id = image_token_id(processor)
        questions = getattr(processor, "question_tokenizer", tokenizer)
        for i, row in enumerate(islice(train_dataloader.dataset, self.rows)):
            try:
                batch = collator([row])
            except ValueError as error:
                raise LabelError(str(error)) from error
            if state.is_world_process_zero:
                print(self._coloured(batch, tokenizer, questions, image_id, row.get("id", i)), flush=True)
            if self.check and getattr(collator, "train_on", "assistant") == "assistant":
                check_labels(batch["labels"][0], tokenizer, ends, image_id, f"row {row.get('id', i)!r}")

    @staticmethod
    def _coloured(batch, tokenizer, questions, image_id: int, name) -> str:
        ids, labels = batch["input_ids"][0], batch["labels"][0]
        n_images = int((ids == image_id).sum())
        if labels.shape != ids.shape or not torch.equal(labels[labels != IGNORE_INDEX], ids[labels != IGNORE_INDEX]):
            prompt = questions.decode(ids[ids != image_id])  # an encoder-decoder keeps its answer apart
            text = f"{DIM}{prompt}{RESET}\n{GREEN}{tokenizer.decode(labels[labels != IGNORE_INDEX])}{RESET}"
            return f"--- row {name}: {n_images} image tokens\n{text}"
        text, start = "", 0
        for end in range(1, len(ids) + 1):
            if end == len(ids) or (labels[end] == IGNORE_INDEX) != (labels[start] == IGNORE_INDEX):
                span = ids[start:end]
                colour = DIM if labels[start] == IGNORE_INDEX else GREEN
                text += f"{colour}{tokenizer.decode(span[span != image_id])}{RESET}"
                start = end
        return f"--- row {name}: {n_images} image tokens\n{text}"


def collator_of(dataloader: DataLoader) -> Callable:
    """The collator that a Trainer was given, without what it wraps around it."""
    return getattr(dataloader.collate_fn, "data_collator", dataloader.collate_fn)


def image_token_id(processor: "ProcessorMixin") -> int:
    """The id of the image's token; -1, which is no token's, where the image is not among the tokens."""
    image_token = getattr(processor, "image_token", None)
    return NONE if image_token is None else processor.tokenizer.convert_tokens_to_ids(str(image_token))


def check_labels(
    labels: torch.Tensor, tokenizer: "PreTrainedTokenizerBase", end_ids: list[int], image_id: int, name: str
) -> None:
    """Raise `LabelError` if one row's `labels` `[S]` hold an image token, or a span that is empty or does not end."""
    trained = labels != IGNORE_INDEX
    if (labels == image_id).any():
        raise LabelError(f"{name}: image tokens are among the labels; the model would be trained to print them")
    if not trained.any():
        raise LabelError(f"{name}: no token would be trained; the row has no answer")
    edges = torch.diff(trained.int(), prepend=torch.zeros(1), append=torch.zeros(1))
    starts, stops = (edges == 1).nonzero().flatten().tolist(), (edges == -1).nonzero().flatten().tolist()
    for start, stop in zip(starts, stops, strict=True):
        answer = labels[start:stop].tolist()
        if not set(end_ids) & set(answer[-2:]):  # some templates train the newline after the token, too
            raise LabelError(f"{name}: an answer ends without an end-of-turn token; the model would not learn to stop")
        if not tokenizer.decode([token for token in answer if token not in end_ids]).strip():
            raise LabelError(f"{name}: an answer is empty")
