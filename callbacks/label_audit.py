"""Show what a run will train on, and refuse to start when it would train on the wrong thing."""

import sys
from collections.abc import Callable, Collection, Iterator
from itertools import islice

import torch
import transformers
from torch.utils.data import DataLoader

from ..models.ends import ends_of_answers
from ..rows.conventions import IGNORE_INDEX

GREEN, DIM, RESET = "\033[32m", "\033[2m", "\033[0m"  # in a terminal
OPEN, CLOSE = "«", "»"  # in a file


class LabelError(ValueError):
    """A row would train the model on something else than its answers; the message names the row."""


class LabelAuditCallback(transformers.TrainerCallback):
    """Print the first training rows with what is trained in green, in a file between « and », then check their labels.

    Raises `LabelError` naming the row when an answer is empty, when it does not end with an end-of-turn token, or
    when an image token is among the labels: such a run trains without complaint and learns the wrong thing. So it does
    of a row that the collator refuses.

    Args:
        rows: how many rows to show and check.
        end_tokens: tokens that end an answer; default: those that the tokenizer and the model's generation stop at.
        check: false where a `PreflightCallback` checks these rows and more.
    """

    def __init__(self, rows: int = 3, end_tokens: list[str] | None = None, check: bool = True):
        self.rows, self.end_tokens, self.check = rows, end_tokens, check

    def on_train_begin(self, args, state, control, model, train_dataloader, processing_class, **kwargs):
        collator = collator_of(train_dataloader)
        processor = getattr(collator, "processor", processing_class)  # a plain function has none
        ends = ends_of_answers(processor.tokenizer, model)
        if self.end_tokens:
            ends = {*processor.tokenizer.convert_tokens_to_ids(self.end_tokens)}
        for i, row in enumerate(islice(train_dataloader.dataset, self.rows)):
            name = row.get("id", i)
            try:
                batch = collator([row])
            except ValueError as error:
                raise LabelError(str(error)) from error
            if state.is_world_process_zero:
                print(f"--- row {name}: {_coloured(batch, processor)}", flush=True)
            if self.check and getattr(collator, "train_on", "assistant") == "assistant":
                check_labels(batch["labels"][0], processor, ends, f"row {name!r}")


def collator_of(dataloader: DataLoader) -> Callable:
    """The collator that a Trainer was given, without what it wraps around it."""
    return getattr(dataloader.collate_fn, "data_collator", dataloader.collate_fn)


def check_labels(
    labels: torch.Tensor, processor: "transformers.ProcessorMixin", ends: Collection[int], name: str
) -> None:
    """Raise `LabelError` if one row's `labels` `[S]` hold an image token, or a span that is empty or does not end.

    `ends` are the ids of the tokens that end an answer; `name` names the row.
    """
    tokenizer = processor.tokenizer
    if torch.isin(labels, _image_token_ids(processor)).any():
        raise LabelError(f"{name}: image tokens are among the labels; the model would be trained to print them")
    answers = [span.tolist() for is_trained, span in _spans(labels, labels) if is_trained]
    if not answers:
        raise LabelError(f"{name}: no token would be trained; the row has no answer")
    for answer in answers:
        if not {*ends} & {*answer[-2:]}:  # some templates train the newline after the token, too
            raise LabelError(f"{name}: an answer ends without an end-of-turn token; the model would not learn to stop")
        if not tokenizer.decode([token for token in answer if token not in ends]).strip():
            raise LabelError(f"{name}: an answer is empty")


def _coloured(batch, processor: "transformers.ProcessorMixin") -> str:
    tokenizer, image_ids = processor.tokenizer, _image_token_ids(processor)
    ids, labels = batch["input_ids"][0], batch["labels"][0]
    trained = labels != IGNORE_INDEX
    text = f"{int(torch.isin(ids, image_ids).sum())} image tokens\n"
    if labels.shape == ids.shape and torch.equal(labels[trained], ids[trained]):
        for is_trained, span in _spans(ids, labels):
            text += _shown(tokenizer.decode(span[~torch.isin(span, image_ids)]), is_trained)
        return text
    questions = getattr(processor, "question_tokenizer", tokenizer)  # an encoder-decoder keeps its answer apart
    text += f"{_shown(questions.decode(ids[~torch.isin(ids, image_ids)]), False)}\n"
    return text + _shown(tokenizer.decode(labels[trained]), True)


def _shown(text: str, is_trained: bool) -> str:
    if sys.stdout.isatty():
        return f"{GREEN if is_trained else DIM}{text}{RESET}"
    return f"{OPEN}{text}{CLOSE}" if is_trained else text


def _spans(ids: torch.Tensor, labels: torch.Tensor) -> Iterator[tuple[bool, torch.Tensor]]:
    """The `ids` `[S]`, cut wherever the training on them begins or ends, and whether each span is trained."""
    trained, sizes = torch.unique_consecutive(labels != IGNORE_INDEX, return_counts=True)
    return zip(trained.tolist(), ids.split(sizes.tolist()), strict=True)


def _image_token_ids(processor: "transformers.ProcessorMixin") -> torch.Tensor:
    """The ids of the tokens that an image becomes, also of those around it and between its rows; none without such."""
    ids = {*(getattr(processor, "image_token_ids", None) or ())}
    image_token = getattr(processor, "image_token", None)
    if image_token is not None:
        ids.add(processor.tokenizer.convert_tokens_to_ids(str(image_token)))
    return torch.tensor(sorted(token for token in ids if token is not None), dtype=torch.long)
