"""Rows -> the model's answers, greedily, in batches, on every process; nothing here computes logits of a label."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import datasets
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ...models.ends import ends_of_answers
from ...models.upstream import without_router_loss
from ...rows.conventions import Row
from .allowed_tokens import keep_to
from .batches import batches_by_image, each_image_once
from .constraints import Constraint
from .kept import AnsweringStopped, KeptAnswers
from .shared_prefix import BEGINNINGS, generate_after_prefix, refuse_other_answers
from .workers import SameWorkers

Answer = str | dict[str, Any]
# `(model, batch, **settings)` -> token ids `[B, prompt + new]`, and what each row's answer is besides its text, if any
Ask = Callable[..., tuple[torch.Tensor, list[dict[str, Any]] | None]]
# Checkpoints bring sampling settings along (Qwen2-VL: temperature 0.01, Qwen2.5-VL: a repetition penalty).
GREEDY = {"do_sample": False, "num_beams": 1, "temperature": 1.0, "top_k": 50, "top_p": 1.0}
GREEDY |= {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "length_penalty": 1.0}


def without_images(rows: datasets.Dataset | Sequence[Row]) -> list[Row]:
    """The rows as dicts, without their pictures (no image is decoded)."""
    if isinstance(rows, datasets.Dataset):
        rows = rows.remove_columns([name for name in ("image", "images") if name in rows.column_names])
    return [{key: value for key, value in row.items() if key not in ("image", "images")} for row in rows]


def require_prompts(collator: Any) -> None:
    """Raise `ValueError` for a collator of ours that makes no prompts: the model would be shown what it is asked."""
    if getattr(collator, "prompt_only", True) is False:
        raise ValueError(f"this {type(collator).__name__} shows the answers: make one to ask with, prompt_only=True")


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    rows: datasets.Dataset | Sequence[Row],
    collator: Callable[[list[Row]], dict[str, torch.Tensor]],
    *,
    max_new_tokens: int,
    batch_size: int = 8,
    num_workers: int = 0,
    autocast: torch.dtype | None = None,
    constraints: Sequence[Constraint | None] | None = None,
    ask: Ask | None = None,
    kept: KeptAnswers | None = None,
    workers: SameWorkers | None = None,
    **generation_kwargs,
) -> list[Answer]:
    """Answer every row; return the texts in the order of `rows`, the same on every process.

    Questions about one image (`image_id`) come together (`vlm_recipes.eval.generation.batches`). A collator with
    `share_images` gets up to 64 of them at once, also where `batch_size` is smaller, and each image is encoded once;
    where it gives `prefix_input_ids` (`SharedImageCollator`) the language model reads it once, too. Each process
    answers a share; all run the same number of batches (ZeRO-3 and FSDP gather weights at every step), and a row that
    fills up is not counted twice. Under those two, all rows have images or none has, unless the collator is a
    `ChatCollator`: a process with a text-only batch would leave the others waiting.
    Texts keep special tokens such as `<|box_start|>`; the end-of-sequence token, and what follows it, is cut.

    Args:
        model: the unwrapped model, or what its Trainer calls `model`; left in the mode (train or eval) it came in.
        collator: makes prompts only, padded on the left for a decoder (`prompt_only=True`); has `processor`, and says
            by `share_images` whether it encodes an image of several rows once.
        max_new_tokens: longest answer in tokens.
        autocast: the dtype training runs in, if it uses mixed precision.
        constraints: what each row's answer may be, one per row; None for a row that may say anything. A row with one
            possible answer gets it without the model; an answer longer than `max_new_tokens` is still whole. They
            hold for numbers that can be compared: where the model computes NaN, its row says what comes out.
        ask: instead of the model's `generate`. Where it gives more than token ids, an answer is a dict with the `text`
            and whatever else `ask` gives, which has to be what JSON can hold.
        kept: where answers are kept as they come, of these rows in this order; those that are there are not asked for.
        workers: those of the calls before, for the same rows.
        generation_kwargs: override greedy decoding. `num_beams=k, length_penalty=0.0` finds the most likely answer of
            a set of up to k.

    Where an image is read once, the model is first tried on two short questions about a drawn picture.

    Raises ValueError for a collator that shows the answers, for another number of constraints than rows, and for an
    answer that would end inside;
    `SharingError` for a model that reads questions about a shared image otherwise than by themselves;
    `AnsweringStopped` where `kept` is told to stop.
    """
    require_prompts(collator)
    state = PartialState()
    constraints = [None] * len(rows) if constraints is None else constraints
    if len(constraints) != len(rows):
        raise ValueError(f"{len(constraints)} constraints for {len(rows)} rows")
    tokenizer = collator.processor.tokenizer
    ends = ends_of_answers(tokenizer, model)
    for constraint in {one for one in constraints if one is not None}:
        constraint.refuse_ends(ends)
    known = {i: one.only for i, one in enumerate(constraints) if one is not None and one.only is not None}
    shares = getattr(collator, "share_images", False)  # others need not say that they do not
    batches = batches_by_image(rows, known, batch_size, state.num_processes, shares)
    found = {} if kept is None else kept.found()  # in batches that are as they would be without
    batches = list(filter(None, ([i for i in batch if i not in found] for batch in batches)))
    own = batches[state.process_index :: state.num_processes]
    idle = -(-len(batches) // state.num_processes) - len(own)
    asked = own + [batch[:1] for batch in batches[:1]] * idle
    workers = workers or SameWorkers()
    loader = workers(rows, asked, each_image_once, collate_fn=collator, num_workers=num_workers)
    settings = {**GREEDY, "use_cache": True, "max_new_tokens": max_new_tokens, **generation_kwargs}
    device = next(model.parameters()).device
    answers: dict[int, Answer] = {}
    precision = torch.autocast(device.type, dtype=autocast, enabled=autocast is not None)
    with _in_eval_mode(model), without_router_loss(model.config):
        if batches and ask is None and hasattr(collator, "both_ways"):
            tried = [{key: value.to(device) for key, value in way.items()} for way in collator.both_ways()]
            with precision:
                refuse_other_answers(model, *tried, rounded=autocast is not None)
        progress = tqdm(loader, "answering", disable=None if state.is_main_process else True, leave=False)
        for place, (members, batch) in enumerate(zip(asked, progress, strict=True)):
            batch = {key: value.to(device) for key, value in batch.items()}
            prompt_length = 1 if model.config.is_encoder_decoder else batch["input_ids"].shape[1]
            allowed = [constraints[i] for i in members]
            kept_to = keep_to(allowed, prompt_length, max_new_tokens, model) if any(allowed) else {}
            with precision:
                if ask is not None:
                    tokens, more = ask(model, batch, **settings | kept_to)
                elif BEGINNINGS in batch:
                    tokens, more = generate_after_prefix(model, batch, **settings | kept_to), None
                else:
                    tokens, more = model.generate(**batch, **settings | kept_to), None
            tokens = tokens[:, prompt_length:]
            free = _decode(tokens[:, :max_new_tokens], ends, tokenizer)
            said = [
                (constraint.text(ids) if constraint else None) or text
                for constraint, ids, text in zip(allowed, tokens.tolist(), free, strict=True)
            ]
            if more is not None:
                said = [{"text": text, **extra} for text, extra in zip(said, more, strict=True)]
            new = dict(zip(members, said, strict=True)) if place < len(own) else {}  # not of one that fills up
            answers |= new
            if kept is not None:
                kept.add(new)
                if kept.stop():
                    n = len(found) + len(known) + sum(gather_object([len(answers)]))
                    raise AnsweringStopped(f"{n:,} of {len(rows):,} rows of {kept.name!r} are answered")

    answers = dict(gather_object(list(answers.items()))) | found | known
    return [answers[i] for i in range(len(rows))]


@contextmanager
def _in_eval_mode(model: PreTrainedModel) -> Iterator[None]:
    """Leaves each module in the mode it came in: a frozen tower may be in eval mode while the rest trains."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _decode(tokens: torch.Tensor, ends: set[int], tokenizer: Any) -> list[str]:
    silent = {tokenizer.pad_token_id, tokenizer.bos_token_id}  # T5 starts its answer with the padding token
    texts = []
    for ids in tokens.tolist():
        stop = next((i for i, token in enumerate(ids) if token in ends and (i > 0 or token not in silent)), len(ids))
        texts.append(tokenizer.decode([token for token in ids[:stop] if token not in silent]).strip())
    return texts
