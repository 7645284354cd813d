"""Qwen2-VL at the sizes of the real checkpoints, with random weights, and what a GPU could do."""

import torch
from transformers import (
    AutoModelForImageTextToText,
    PreTrainedTokenizerBase,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

SIZES = {  # width of the language model and of its middle, heads, of keys and values, vocabulary, tied embeddings
    "Qwen2-VL-2B": (1536, 8960, 12, 2, 151936, True),
    "Qwen2-VL-7B": (3584, 18944, 28, 4, 152064, False),
}
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bfloat16 operations per second


def full_size(name: str, tokenizer: PreTrainedTokenizerBase) -> Qwen2VLConfig:
    """The configuration of the checkpoint, but for the special tokens, which are those of a smaller tokenizer."""
    hidden, middle, heads, key_heads, vocabulary, tied = SIZES[name]
    special = {"bos_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {"hidden_size": hidden, "intermediate_size": middle, "num_hidden_layers": 28, "vocab_size": vocabulary}
    text |= {"num_attention_heads": heads, "num_key_value_heads": key_heads, "rms_norm_eps": 1e-6, **special}
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}}
    vision = {"depth": 32, "embed_dim": 1280, "hidden_size": hidden, "mlp_ratio": 4, "num_heads": 16}
    tokens = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    ids = {f"{key}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>") for key, token in tokens.items()}
    return Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied, **ids)


def random_weights(config: Qwen2VLConfig, device: str, dtype: torch.dtype) -> Qwen2VLForConditionalGeneration:
    with torch.device(device):
        return AutoModelForImageTextToText.from_config(config, dtype=dtype)
