"""A small random BLIP-2 (ViT, Q-Former, T5) with its real processor classes; nothing is downloaded."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessor,
    T5Config,
    T5Tokenizer,
)

PATCH_SIZE = 8  # pixels
MAXIMUM_PIECES = 8192
VISION_RANGE = 0.09  # at 0.02 what the image says is faint, and T5 ignores it for hundreds of steps
# Printable ASCII, Latin-1, Greek and typographic punctuation. T5's tokenizer has no byte fallback, so any other
# character has to occur in the texts, or it becomes `<unk>`.
ALPHABET = [chr(code) for code in (*range(0x21, 0x7F), *range(0xA1, 0x100), *range(0x391, 0x3CA))] + list("–—‘’“”…≤≥")


def build_tokenizer(texts: Iterable[str]) -> T5Tokenizer:
    """T5's tokenizer (Unigram, `▁` for a space) whose pieces are the words of `texts`, the most frequent first.

    Text made of characters from `texts` or `ALPHABET` and of single spaces round-trips. A word is one piece, so the
    fixed part of a prompt costs one token a word; `UnigramTrainer` finds shorter pieces, and others on each run.
    """
    counts = Counter()
    for text in texts:
        for word in text.split():
            # The word as it stands ("▁lesion?") and its parts, which serve in company not seen here.
            counts.update({f"▁{word}", *re.findall(r"▁?\w+|[^\w▁]", f"▁{word}")})
    total = sum(counts.values())
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAXIMUM_PIECES]
    pieces = {piece: math.log(count / total) for piece, count in ranked}
    for character in ["▁", *ALPHABET, *sorted(set("".join(counts)))]:
        pieces.setdefault(character, -math.log(total + 1) - 4.0)  # spelling is the last resort
    return T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *pieces.items()], extra_ids=0)


def write_blip2(
    folder: str | Path,
    texts: Iterable[str],
    *,
    image_size: int = 64,
    width: int = 128,
    layers: int = 2,
    queries: int = 16,
    seed: int = 0,
) -> None:
    """Write a random BLIP-2 and its processor to `folder`, in the form of a published checkpoint (safetensors).

    Args:
        folder: created if need be; `AutoProcessor` and `AutoModelForImageTextToText` load it offline.
        texts: what will be read and said, prompts included; its words become the tokenizer's pieces.
        image_size: side in pixels of the square that the processor makes of an image; a multiple of `PATCH_SIZE`.
        width: hidden size of each of the three parts; a multiple of 32, the width of an attention head.
        layers: number of layers of the vision tower, the Q-Former, T5's encoder and T5's decoder, each.
        queries: number of Q-Former queries, which is the number of `<image>` tokens in a prompt.
        seed: seed of the weights; the global random state is left as it was.
    """
    # The processor adds `<image>` to the tokenizer, so it comes before the sizes that count tokens.
    image_processor = BlipImageProcessor(size={"height": image_size, "width": image_size})
    processor = Blip2Processor(image_processor, build_tokenizer(texts), num_query_tokens=queries)
    tokenizer = processor.tokenizer
    heads = width // 32
    config = Blip2Config(
        vision_config={
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "image_size": image_size,
            "patch_size": PATCH_SIZE,
            "initializer_range": VISION_RANGE,  # the default, 1e-10, lets nothing of the image through
        },
        qformer_config={
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "cross_attention_frequency": 1,
            "vocab_size": 2,  # the Q-Former reads no text here
            "initializer_range": VISION_RANGE,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        text_config=T5Config(
            vocab_size=len(tokenizer),
            d_model=width,
            d_kv=32,
            d_ff=2 * width,
            num_layers=layers,
            num_heads=heads,
            feed_forward_proj="gated-gelu",  # as in Flan-T5
            dropout_rate=0.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
        ).to_dict(),
        num_query_tokens=queries,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Blip2ForConditionalGeneration(config)
        torch.nn.init.normal_(model.query_tokens, std=VISION_RANGE)  # zero from the library: queries would stay alike
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
