"""Which tokens end an answer. A leaf, which imports nothing of ours, and which all may import."""

from transformers import GenerationMixin, PreTrainedTokenizerBase


def ends_of_answers(tokenizer: PreTrainedTokenizerBase, model: GenerationMixin | None = None) -> set[int]:
    """The ids of the tokens that end an answer: the tokenizer's, and those at which `model` stops, one or several.

    A turn of Gemma ends with `<end_of_turn>`, at which its `generation_config` stops and which its tokenizer does not
    call the end of a sequence.
    """
    config = getattr(model, "generation_config", None)  # a model that does not generate has none
    stops = getattr(config, "eos_token_id", None)
    ids = [tokenizer.eos_token_id, *(stops if isinstance(stops, list | tuple) else [stops])]
    return {token for token in ids if token is not None}
