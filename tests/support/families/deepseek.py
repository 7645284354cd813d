"""DeepSeek-VL, the smaller one: a picture is padded to a square, and each of its patches is a token."""

from pathlib import Path

from transformers import (
    DeepseekVLConfig,
    DeepseekVLForConditionalGeneration,
    DeepseekVLImageProcessor,
    DeepseekVLProcessor,
    LlamaConfig,
    SiglipVisionConfig,
)

from tests.support.families.saving import TEXT, VISION, ids_of, save, template
from tests.support.families.tokenizers import byte_level

SIDE = 28  # pixels of a square
BEGIN, END, IMAGE = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<image_placeholder>"


def write_deepseek_vl(folder: Path) -> None:
    """What ends an answer pads, too; transformers' processor reads `image_token` off the tokenizer."""
    named = {"image_token": IMAGE}
    tokenizer = byte_level((BEGIN, END, IMAGE), bos=BEGIN, eos=END, pad=END, adds_bos=True, named=named)
    processor = DeepseekVLProcessor(
        image_processor=DeepseekVLImageProcessor(
            size={"height": SIDE, "width": SIDE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
        ),
        tokenizer=tokenizer,
        chat_template=template("deepseek_vl"),
        num_image_tokens=4,
    )
    config = DeepseekVLConfig(
        text_config=LlamaConfig(**TEXT, vocab_size=len(tokenizer), **ids_of(tokenizer)),
        vision_config=SiglipVisionConfig(**VISION, image_size=SIDE, patch_size=14, vision_use_head=False),
        image_token_id=processor.image_token_id,
    )
    save(folder, DeepseekVLForConditionalGeneration, config, processor, [END])


WRITERS = {"deepseek_vl": write_deepseek_vl}
