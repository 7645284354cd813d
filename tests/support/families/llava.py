"""The LLaVAs, InternVL and Ovis2: a picture is a square, and in the later ones tiles besides."""

from pathlib import Path

from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    MistralConfig,
    Ovis2Config,
    Ovis2ForConditionalGeneration,
    Ovis2ImageProcessor,
    Ovis2Processor,
    Ovis2VisionConfig,
    Qwen2Config,
    SiglipVisionConfig,
)

from demo.checkpoints.llava import CHAT_TEMPLATE
from demo.checkpoints.qwen2_vl import SPECIAL_TOKENS
from tests.support.families.saving import TEXT, VISION, ids_of, save, template
from tests.support.families.tokenizers import llama, qwen2

SIDE = 28  # pixels of a square or a tile
SQUARE = {"height": SIDE, "width": SIDE}
GRIDS = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
QWEN2_TOKENS = SPECIAL_TOKENS[:3]  # Qwen2's own; the others came with Qwen2-VL
OVIS_TOKENS = ("<IMG_ATOM>", "<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")


def _text(config_class, tokenizer):
    return config_class(**TEXT, vocab_size=len(tokenizer), **ids_of(tokenizer))


def _clip() -> CLIPVisionConfig:
    return CLIPVisionConfig(**(VISION | {"num_hidden_layers": 3}), image_size=SIDE, patch_size=14, projection_dim=32)


def write_llava(folder: Path) -> None:
    tokenizer = llama()
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SQUARE),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # CLIP's class token, which the strategy drops again
        chat_template=CHAT_TEMPLATE,
    )
    config = LlavaConfig(
        vision_config=_clip(),
        text_config=_text(LlamaConfig, tokenizer),
        image_token_index=processor.image_token_id,
        image_seq_length=4,
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
    )
    save(folder, LlavaForConditionalGeneration, config, processor, ["</s>"])


def write_llava_next(folder: Path) -> None:
    tokenizer = llama()
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessor(
            size={"shortest_edge": SIDE}, crop_size=SQUARE, image_grid_pinpoints=GRIDS
        ),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("llava_next"),
    )
    config = LlavaNextConfig(
        vision_config=_clip(),
        text_config=_text(MistralConfig, tokenizer),
        image_token_index=processor.image_token_id,
        image_seq_length=4,
        image_grid_pinpoints=GRIDS,
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
    )
    save(folder, LlavaNextForConditionalGeneration, config, processor, ["</s>"])


def write_llava_onevision(folder: Path) -> None:
    tokenizer = qwen2(*QWEN2_TOKENS, "<image>", "<video>")
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=SQUARE, image_grid_pinpoints=[[SIDE, SIDE], *GRIDS]),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(size=SQUARE),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=template("llava_onevision"),
    )
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**VISION, image_size=SIDE, patch_size=14, vision_use_head=False),
        text_config=_text(Qwen2Config, tokenizer),
        image_token_index=processor.image_token_id,
        video_token_index=processor.video_token_id,
        image_grid_pinpoints=[[SIDE, SIDE], *GRIDS],
    )
    save(folder, LlavaOnevisionForConditionalGeneration, config, processor, ["<|im_end|>"])


def write_internvl(folder: Path) -> None:
    """InternVL3's smaller ones, whose language model is Qwen2.5."""
    named = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    named |= {"video_token": "<video>"}
    marks = ("<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>")
    tokenizer = qwen2(*SPECIAL_TOKENS, *named.values(), *marks, named=named)
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=SQUARE, min_patches=1, max_patches=4),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size=SQUARE),
        image_seq_length=4,
        chat_template=template("internvl"),
    )
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(**VISION, image_size=SIDE, patch_size=7),
        text_config=_text(Qwen2Config, tokenizer),
        image_token_id=processor.image_token_id,
        image_seq_length=4,
    )
    save(folder, InternVLForConditionalGeneration, config, processor, ["<|im_end|>"])


def write_ovis2(folder: Path) -> None:
    tokenizer = qwen2(*SPECIAL_TOKENS, *OVIS_TOKENS)
    atom, *indicators = tokenizer.convert_tokens_to_ids(list(OVIS_TOKENS))
    processor = Ovis2Processor(
        image_processor=Ovis2ImageProcessor(size=SQUARE, crop_to_patches=True, max_patches=4),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=template("ovis2"),
    )
    config = Ovis2Config(
        vision_config=Ovis2VisionConfig(**VISION, image_size=SIDE, patch_size=7, hidden_stride=2, vocab_size=64),
        text_config=_text(Qwen2Config, tokenizer),
        image_token_id=atom,
        visual_indicator_token_ids=indicators,
        vocab_size=len(tokenizer),
        hidden_size=32,
    )
    save(folder, Ovis2ForConditionalGeneration, config, processor, ["<|im_end|>", "<|endoftext|>"])


WRITERS = {
    "llava": write_llava,
    "llava_next": write_llava_next,
    "llava_onevision": write_llava_onevision,
    "internvl": write_internvl,
    "ovis2": write_ovis2,
}
