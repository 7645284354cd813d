"""A small random LLaVA-1.5 checkpoint with its real processor, written without a download."""

import json
from collections.abc import Iterable
from os import PathLike

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaTokenizerFast,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

# "USER: <image>\nquestion ASSISTANT: answer " as in llava-hf/llava-1.5-7b-hf: images before the text of a turn, a
# space behind each text, a system message without a name, and nothing that ends a turn.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif -%}
{%- for part in message['content'] if part['type'] == 'image' %}{{ '<image>\\n' }}{% endfor -%}
{%- for part in message['content'] if part['type'] == 'text' -%}
{%- if message['role'] == 'assistant' -%}
{%- generation %}{{ part['text'] + ' ' }}{% endgeneration -%}
{%- else -%}
{{ part['text'] + ' ' }}
{%- endif -%}
{%- endfor -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif -%}
"""


def write_llava(
    folder: str | PathLike[str],
    texts: Iterable[str],
    *,
    hidden_size: int = 128,
    layers: int = 2,
    vocab_size: int = 640,
    image_size: int = 112,
    patch_size: int = 14,
    initializer_range: float = 0.02,
    seed: int = 0,
) -> None:
    """Write a random model and a processor that `AutoProcessor` and `AutoModelForImageTextToText` load offline.

    `texts` train the tokenizer; `hidden_size` (a multiple of 16) and `layers` hold for CLIP and Llama alike; an image
    is `image_size` pixels (a multiple of `patch_size`) square and becomes `(image_size / patch_size) ** 2` tokens. The
    same arguments give the same weights.
    """
    tokenizer = train_tokenizer(texts, vocab_size)
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
        ),
        tokenizer=tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # CLIP's class token, which the "default" strategy drops again
        chat_template=CHAT_TEMPLATE,
    )
    heads = max(1, hidden_size // 32)
    shared = {"hidden_size": hidden_size, "num_attention_heads": heads, "initializer_range": initializer_range}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            **shared,
            intermediate_size=2 * hidden_size,
            num_hidden_layers=layers + 1,  # LLaVA reads the last layer but one
            image_size=image_size,
            patch_size=patch_size,
            projection_dim=hidden_size,
        ),
        text_config=LlamaConfig(
            **shared,
            intermediate_size=3 * hidden_size,
            num_hidden_layers=layers,
            vocab_size=len(tokenizer),
            max_position_embeddings=4096,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_index=processor.image_token_id,
        image_seq_length=(image_size // patch_size) ** 2,
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> LlamaTokenizerFast:
    """A BPE tokenizer as Llama's: `<unk>`, `<s>`, `</s>`, a token for each byte, then what `texts` teach it."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    learned = json.loads(backend.to_str())["model"]
    tokenizer = LlamaTokenizerFast(
        vocab=learned["vocab"],
        merges=[tuple(merge) for merge in learned["merges"]],
        add_bos_token=True,
        add_prefix_space=True,
        padding_side="left",
        model_max_length=4096,
    )
    tokenizer.add_special_tokens({"extra_special_tokens": ["<image>"], "pad_token": "<pad>"})
    return tokenizer
