"""A random model with its processor, saved in the form of a published checkpoint."""

from collections.abc import Iterable
from pathlib import Path

import torch
import trl.chat_template_utils
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

TEMPLATES = Path(__file__).parent / "templates"
TRL_TEMPLATES = Path(trl.chat_template_utils.__file__).parent / "chat_templates"
SEED = 0
LAYERS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = LAYERS | {"num_key_value_heads": 1, "max_position_embeddings": 4096}
VISION = LAYERS


def template(name: str) -> str:
    """The one beside this file; else TRL's copy."""
    file = TEMPLATES / f"{name}.jinja"
    return (file if file.exists() else TRL_TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")


def ids_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, int | None]:
    return {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}


def save(
    folder: Path,
    model_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    processor: ProcessorMixin,
    ends: Iterable[str],
) -> None:
    """Write the model, its processor, and the tokens `ends`, which end an answer in its generation_config."""
    tokenizer = processor.tokenizer
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = model_class(config)
        enliven(model)
    ends = tokenizer.convert_tokens_to_ids(list(ends))
    assert None not in ends
    model.generation_config = GenerationConfig(
        **ids_of(tokenizer) | {"eos_token_id": ends if len(ends) > 1 else ends[0]}
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


@torch.no_grad()
def enliven(model: PreTrainedModel) -> None:
    """Draw weights large enough for a picture to change what is said; some of the library's own are zero."""
    words = model.get_input_embeddings().weight
    for name, weights in model.named_parameters():
        if weights is words:  # small, or a tied head would repeat the last word whatever the layers say
            torch.nn.init.normal_(weights, std=0.05)
        elif weights.dim() > 1:  # a linear layer's, an embedding's, a convolution's; of experts each its own
            inputs = weights.shape[-1] if weights.dim() == 3 else weights[0].numel()
            torch.nn.init.normal_(weights, std=inputs**-0.5)
        elif "gate" in name.split(".")[-1] or "class_embedding" in name or "newline" in name:
            torch.nn.init.normal_(weights, mean=0.5, std=0.2)
