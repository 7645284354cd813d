"""Which collator a model's rows go through: whether it can read an image once for several questions."""

from functools import cache

from accelerate import PartialState
from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

from .chat import ChatCollator
from .shared_image import NoSharing, SharedImageCollator


def chat_collator(
    network: PreTrainedModel | None, processor: ProcessorMixin, questions_per_row: int, **settings
) -> ChatCollator:
    """A `SharedImageCollator` where rows are to hold several questions about an image, else a `ChatCollator`.

    So it is for a model that cannot share an image, which a line says once; `share_images` tells which one it became.
    Without a `network` only the processor is asked.
    """
    if questions_per_row == 1:
        return ChatCollator(processor, **settings)
    try:
        if network is not None:
            refuse_state(network.config)
        return SharedImageCollator(processor, **settings)
    except NoSharing as error:
        _say(f"one question a row, not {questions_per_row}: {error}")
        return ChatCollator(processor, **settings)


@cache  # training and evaluation ask for a collator each
def _say(line: str) -> None:
    if PartialState().is_main_process:
        print(line, flush=True)


def refuse_state(config: PreTrainedConfig) -> None:
    """Raise `NoSharing` for a language model with layers whose tokens see by place, or carry state to the next ones.

    Linear attention, convolutions and windows go by where a token stands in the sequence, and no mask of pairs tells
    them that another branch begins.
    """
    text = config.get_text_config()
    others = sorted({*(getattr(text, "layer_types", None) or ())} - {"full_attention"})
    if others:
        raise NoSharing(f"{config.model_type} has layers of {' and '.join(others)}")
    if getattr(text, "cross_attention_layers", None):
        raise NoSharing(f"{config.model_type} reads images by cross attention")
