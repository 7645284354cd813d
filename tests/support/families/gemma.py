"""Gemma 3 and PaliGemma, whose image tokens see each other."""

from pathlib import Path

from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    Gemma3TextConfig,
    GemmaConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    SiglipImageProcessor,
    SiglipVisionConfig,
)

from tests.support.families.saving import TEXT, VISION, ids_of, save, template
from tests.support.families.tokenizers import gemma

SQUARE = {"height": 28, "width": 28}


def write_gemma3(folder: Path) -> None:
    """A layer that looks 64 tokens back, then one that sees all; four image tokens of sixteen patches."""
    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = gemma(("<start_of_turn>", "<end_of_turn>", *named.values()), named)
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size=SQUARE),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=template("gemma3"),
    )
    config = Gemma3Config(
        text_config=Gemma3TextConfig(
            **TEXT,
            **ids_of(tokenizer),
            head_dim=16,
            query_pre_attn_scalar=16,
            vocab_size=len(tokenizer),
            sliding_window=64,
            layer_types=["sliding_attention", "full_attention"],
        ),
        vision_config=SiglipVisionConfig(**VISION, image_size=28, patch_size=7, vision_use_head=False),
        mm_tokens_per_image=4,
        image_token_index=tokenizer.image_token_id,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
    )
    save(folder, Gemma3ForConditionalGeneration, config, processor, ["<eos>", "<end_of_turn>"])


def write_paligemma(folder: Path) -> None:
    """Without a chat template, as published: an image, a prompt, an answer."""
    image_processor = SiglipImageProcessor(size=SQUARE, image_seq_length=4)
    processor = PaliGemmaProcessor(image_processor=image_processor, tokenizer=gemma())
    tokenizer = processor.tokenizer  # to which the processor has added tokens for the image, places and masks
    config = PaliGemmaConfig(
        text_config=GemmaConfig(**TEXT, **ids_of(tokenizer), head_dim=16, vocab_size=len(tokenizer)),
        vision_config=SiglipVisionConfig(**VISION, image_size=28, patch_size=14, vision_use_head=False),
        image_token_index=processor.image_token_id,
        vocab_size=len(tokenizer),
        projection_dim=32,
        hidden_size=32,
    )
    save(folder, PaliGemmaForConditionalGeneration, config, processor, ["<eos>"])


WRITERS = {"gemma3": write_gemma3, "paligemma": write_paligemma}
