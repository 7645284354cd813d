"""Two families that nobody looked at while the pieces were written: Gemma 4 and LFM2-VL."""

from pathlib import Path

from transformers import (
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    Gemma4ImageProcessor,
    Gemma4Processor,
    Gemma4VideoProcessor,
    Lfm2VlConfig,
    Lfm2VlForConditionalGeneration,
    Lfm2VlImageProcessor,
    Lfm2VlProcessor,
)
from transformers.models.gemma4.feature_extraction_gemma4 import Gemma4AudioFeatureExtractor

from tests.support.families.saving import TEXT, VISION, ids_of, save, template
from tests.support.families.tokenizers import byte_level, gemma

GEMMA_NAMED = {"boi_token": "<|image>", "eoi_token": "<image|>", "image_token": "<|image|>"}
GEMMA_NAMED |= {"boa_token": "<|audio>", "eoa_token": "<audio|>", "audio_token": "<|audio|>"}
GEMMA_TOKENS = (
    *("<|turn>", "<turn|>", "<|think|>", "<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>"),
    *("<|tool_response>", "<tool_response|>", *GEMMA_NAMED.values()),
)
LFM2_TOKENS = (
    *("<|pad|>", "<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<|image_start|>"),
    *("<|image_end|>", "<|img_thumbnail|>", *(f"<|img_row_{i}_col_{k}|>" for i in range(1, 5) for k in range(1, 5))),
)


def write_gemma4(folder: Path) -> None:
    """One that sees and does not hear; its processor makes 70 tokens of a picture at least."""
    tokenizer = gemma(GEMMA_TOKENS, GEMMA_NAMED)
    processor = Gemma4Processor(
        feature_extractor=Gemma4AudioFeatureExtractor(),
        image_processor=Gemma4ImageProcessor(patch_size=4, max_soft_tokens=70),
        tokenizer=tokenizer,
        video_processor=Gemma4VideoProcessor(patch_size=4, max_soft_tokens=70),
        image_seq_length=70,
        chat_template=template("gemma4"),
    )
    token = tokenizer.convert_tokens_to_ids
    text = TEXT | {"vocab_size": len(tokenizer), **ids_of(tokenizer), "head_dim": 16, "global_head_dim": 16}
    text |= {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 64}
    text |= {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": len(tokenizer)}
    text |= {"use_bidirectional_attention": "vision"}
    vision = VISION | {"num_key_value_heads": 2, "head_dim": 16, "patch_size": 4, "position_embedding_size": 256}
    config = Gemma4Config(
        text_config=text,
        vision_config=vision,
        audio_config=None,
        boi_token_id=token("<|image>"),
        eoi_token_id=token("<image|>"),
        image_token_id=token("<|image|>"),
        video_token_id=token("<|video|>"),
        boa_token_id=token("<|audio>"),
        eoa_token_index=token("<audio|>"),
        audio_token_id=token("<|audio|>"),
    )
    save(folder, Gemma4ForConditionalGeneration, config, processor, ["<eos>", "<turn|>", "<|tool_response>"])


def write_lfm2_vl(folder: Path) -> None:
    """A layer with a state (a convolution over the text), then one with attention."""
    tokenizer = byte_level(LFM2_TOKENS, bos="<|startoftext|>", eos="<|im_end|>", pad="<|pad|>", adds_bos=True)
    processor = Lfm2VlProcessor(
        image_processor=Lfm2VlImageProcessor(
            encoder_patch_size=8, tile_size=32, min_image_tokens=4, max_image_tokens=8, max_tiles=4
        ),
        tokenizer=tokenizer,
        chat_template=template("lfm2_2_5_vl"),
    )
    text = TEXT | {"vocab_size": len(tokenizer), **ids_of(tokenizer), "layer_types": ["conv", "full_attention"]}
    config = Lfm2VlConfig(
        text_config=text | {"model_type": "lfm2", "block_auto_adjust_ff_dim": False},
        vision_config=VISION
        | {"model_type": "siglip2_vision_model", "patch_size": 8, "num_patches": 16}
        | {"vision_use_head": False},
        image_token_id=processor.image_token_id,
        projector_hidden_size=64,
    )
    save(folder, Lfm2VlForConditionalGeneration, config, processor, ["<|im_end|>"])


WRITERS = {"gemma4": write_gemma4, "lfm2_vl": write_lfm2_vl}
