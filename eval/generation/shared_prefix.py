"""Questions about one image answered from one reading of it: what their prompts begin with is run once."""

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import Cache, PreTrainedModel

from ...models.upstream import attention_of, name_of_cache, reads_pairs
from .agreement import SharingError, disagreement
from .label_tree import LabelTree, tree_mask

BEGINNINGS = "prefix_input_ids"
TEXT = ("input_ids", "attention_mask", "position_ids")


@torch.no_grad()
def generate_after_prefix(model: PreTrainedModel, batch: dict[str, torch.Tensor], **settings) -> torch.Tensor:
    """Token ids `[B, prompt + new]`, as `model.generate` gives them to whole prompts.

    Args:
        model: a decoder whose `generate` takes a cache and `position_ids`: Qwen2-VL, Qwen2.5-VL, LLaVA.
        batch: from a `SharedImageCollator` with `prompt_only=True`.
        settings: those of `generate`.

    Raises `ValueError` for settings that would need a prompt without padding in it, or no cache.
    """
    config = settings.get("generation_config") or model.generation_config
    settable = ("no_repeat_ngram_size", "use_cache", "num_beams", "num_return_sequences")
    ngram_size, use_cache, beams, sequences = (settings.get(name, getattr(config, name)) for name in settable)
    if ngram_size:
        raise ValueError(
            "no_repeat_ngram_size: padding stands between what is shared and the question; use ChatCollator"
        )
    if use_cache is False:
        raise ValueError("use_cache=False: what is shared is a cache; use ChatCollator")
    cache = prefill(model, batch)
    if (copies := max(beams or 1, sequences or 1)) > 1:
        cache.batch_repeat_interleave(copies)  # generate repeats the questions, but no cache that it is given
    return model.generate(**{key: batch[key] for key in TEXT}, **{name_of_cache(): cache}, **settings)


def prefill(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> Cache:
    """Each question's keys and values of what its prompt shares with others, run once for all of them."""
    shared = {key: batch[f"prefix_{key}"] for key in TEXT}
    known = {*TEXT, *(f"prefix_{key}" for key in TEXT), "image_index"}
    images = {key: value for key, value in batch.items() if key not in known}
    cache = model(**shared, **images, use_cache=True, logits_to_keep=1).get(name_of_cache())
    if cache is None:
        raise ValueError("a model that trains with gradient checkpointing keeps no cache; call its eval()")
    cache.batch_select_indices(batch["image_index"])
    return cache


@torch.no_grad()
def refuse_other_answers(
    model: PreTrainedModel, shared: dict[str, torch.Tensor], alone: dict[str, torch.Tensor], rounded: bool = False
) -> None:
    """Raise `SharingError` for a model whose first new token after what is shared is another than after whole prompts.

    Args:
        model: in eval mode.
        shared, alone: batches of the same prompts, see `SharedImageCollator.both_ways`.
        rounded: the model computes in 16 bits, whatever its weights are.
    """
    settings = {"max_new_tokens": 1, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    try:
        first = generate_after_prefix(model, shared, **settings).logits[0]
        whole = model.generate(**alone, **settings).logits[0]
        why = disagreement(first, whole, model, rounded)
    except (ValueError, TypeError, RuntimeError, LookupError, AttributeError) as error:
        why = f"it does not read such a batch: {type(error).__name__}: {error}"
    if why:
        raise SharingError(f"{model.config.model_type} cannot share an image, {why}; ask one question a row")


@torch.no_grad()
def score_labels(
    model: PreTrainedModel, batch: dict[str, torch.Tensor], labels: Sequence[LabelTree], mean: bool = True
) -> list[torch.Tensor]:
    """Log-probability per token (or, not `mean`, in sum) of each of a question's closed set of answers, `B` of `[L]`.

    Besides the one for what is shared, one forward: each question, then its answers as branches of a tree.

    Args:
        model: as for `generate_after_prefix`, with the attention called "sdpa" or "eager".
        batch: as for `generate_after_prefix`.
        labels: one closed set for each question, the end of turn in each answer's end token.

    Raises `SharingError` for an attention that reads no mask of pairs, such as flash attention.
    """
    if not reads_pairs(model.config):
        attention = attention_of(model.config)
        raise SharingError(f'attn_implementation={attention!r} reads no mask of pairs: load the model with "sdpa"')
    cache, device = prefill(model, batch), batch["input_ids"].device
    shared = batch[BEGINNINGS].shape[1]
    asked = batch["input_ids"].shape[1] - shared
    tokens = pad_sequence([tree.tokens for tree in labels], batch_first=True).to(device)
    depths = pad_sequence([tree.depths for tree in labels], batch_first=True).to(device)
    positions = batch["position_ids"]
    logits = model(
        input_ids=torch.cat([batch["input_ids"][:, shared:], tokens], dim=1),
        attention_mask=tree_mask(batch["attention_mask"], asked, labels, model.dtype),
        position_ids=torch.cat([positions[..., shared:], positions[..., -1:] + 1 + depths], dim=-1),
        **{name_of_cache(): cache},
        use_cache=True,
        logits_to_keep=tokens.shape[1] + 1,
    ).logits
    return [tree.scores(one[None, : len(tree.tokens) + 1], mean)[0] for tree, one in zip(labels, logits, strict=True)]
