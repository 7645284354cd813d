"""A small random Qwen2-VL (or Qwen2.5-VL) checkpoint with its real processor, written without a download."""

import json
import re
from collections.abc import Iterable
from os import PathLike
from typing import Literal

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)
from trl.chat_template_utils import qwen2_5_vl_chat_template

Family = Literal["qwen2_vl", "qwen2_5_vl"]

# In the order of the original, where they are 151643 to 151656. Here they follow the small vocabulary.
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
PATCH = 14
INITIALIZER_RANGE = 0.04


def write_qwen2_vl(
    folder: str | PathLike[str],
    texts: Iterable[str],
    *,
    phrases: Iterable[str] = (),
    family: Family = "qwen2_vl",
    hidden_size: int = 128,
    vision_size: int | None = None,
    layers: int = 2,
    vocab_size: int = 640,
    min_pixels: int = 16 * 28 * 28,
    max_pixels: int = 25 * 28 * 28,
    rope_theta: float = 10.0,
    seed: int = 0,
) -> None:
    """Write a random model and a processor that `AutoProcessor` and `AutoModelForImageTextToText` load offline.

    `texts` train the tokenizer; each of `phrases` becomes one token, so that a fixed prompt costs next to nothing.
    `hidden_size` and `vision_size` (multiples of 16, by default alike) are the widths of the language model and the
    vision tower, `layers` the depth of both; the pixel budget is per image, and 28x28 pixels become one token. The
    same arguments give the same weights.
    """
    tokenizer = train_tokenizer(texts, vocab_size)
    tokenizer.add_tokens(list(phrases))
    processor_class = {"qwen2_vl": Qwen2VLProcessor, "qwen2_5_vl": Qwen2_5_VLProcessor}[family]
    model_class = {"qwen2_vl": Qwen2VLForConditionalGeneration, "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration}
    size = {"shortest_edge": min_pixels, "longest_edge": max_pixels}
    processor = processor_class(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=size),
        chat_template=qwen2_5_vl_chat_template,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class[family](
            _config(family, tokenizer, hidden_size, vision_size or hidden_size, layers, rope_theta)
        )
    model.generation_config = GenerationConfig(
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id], pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Qwen2Tokenizer:
    """A byte-level BPE tokenizer split and normalised as Qwen2's, with Qwen2-VL's special tokens behind it."""
    backend, stock = Tokenizer(models.BPE()), Qwen2Tokenizer().backend_tokenizer
    backend.normalizer, backend.pre_tokenizer = stock.normalizer, stock.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Special tokens stay out of the training text: "<|box_start|>" must not become merges of "<|" and "box".
    special = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))
    backend.train_from_iterator((piece for text in texts for piece in special.split(text)), trainer)
    learned = json.loads(backend.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(merge) for merge in learned["merges"]],
        unk_token=None,
        eos_token=None,
        pad_token=None,
        padding_side="left",
        model_max_length=32768,
    )
    tokenizer.add_special_tokens({"extra_special_tokens": list(SPECIAL_TOKENS)})
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    return tokenizer


def _config(
    family: Family, tokenizer: Qwen2Tokenizer, hidden_size: int, vision_size: int, layers: int, rope_theta: float
) -> PreTrainedConfig:
    heads = max(1, hidden_size // 32)
    rotary = hidden_size // heads // 2  # frequencies per head, shared out 1 : 1.5 : 1.5 as in the original
    side = (rotary - rotary // 4) // 2
    token = tokenizer.convert_tokens_to_ids
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden_size,
        "intermediate_size": 3 * hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 2),
        "max_window_layers": layers,
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": INITIALIZER_RANGE,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": rope_theta,
            "mrope_section": [rotary - 2 * side, side, side],
        },
    }
    vision = {
        "depth": layers,
        "num_heads": max(1, vision_size // 32),
        "patch_size": PATCH,
        "spatial_patch_size": PATCH,
        "initializer_range": INITIALIZER_RANGE,
    }
    if family == "qwen2_vl":
        vision |= {"embed_dim": vision_size, "hidden_size": hidden_size, "mlp_ratio": 2}
    else:
        vision |= {"hidden_size": vision_size, "out_hidden_size": hidden_size, "intermediate_size": 2 * vision_size}
        vision |= {"fullatt_block_indexes": [layers - 1]}
    return {"qwen2_vl": Qwen2VLConfig, "qwen2_5_vl": Qwen2_5_VLConfig}[family](
        text_config=text,
        vision_config=vision,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
