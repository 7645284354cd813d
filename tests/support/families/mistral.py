"""Pixtral and Mistral 3: a picture keeps its shape, and each row of its tokens has one that ends it."""

from pathlib import Path

from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralImageProcessor,
    PixtralProcessor,
    PixtralVisionConfig,
)

from tests.support.families.saving import TEXT, VISION, ids_of, save, template
from tests.support.families.tokenizers import byte_level

TOKENS = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"),
    *("[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]"),
)


def _processor(name: str, patch_size: int, spatial_merge_size: int, *more: str) -> PixtralProcessor:
    return PixtralProcessor(
        image_processor=PixtralImageProcessor(
            size={"longest_edge": 4 * patch_size * spatial_merge_size}, patch_size=patch_size * spatial_merge_size
        ),
        tokenizer=byte_level((*TOKENS, *more), bos="<s>", eos="</s>", pad="<pad>", adds_bos=True),
        patch_size=patch_size,
        spatial_merge_size=spatial_merge_size,
        chat_template=template(name),
    )


def _text(tokenizer) -> MistralConfig:
    return MistralConfig(**TEXT, head_dim=16, vocab_size=len(tokenizer), sliding_window=None, **ids_of(tokenizer))


def write_pixtral(folder: Path) -> None:
    processor = _processor("pixtral", 16, 1)
    config = LlavaConfig(
        vision_config=PixtralVisionConfig(**VISION, image_size=64, patch_size=16),
        text_config=_text(processor.tokenizer),
        image_token_index=processor.image_token_id,
        image_seq_length=1,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    save(folder, LlavaForConditionalGeneration, config, processor, ["</s>"])


def write_mistral3(folder: Path) -> None:
    """Mistral Small 3.1, which makes one token of four patches."""
    processor = _processor("mistral3", 14, 2, "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")
    config = Mistral3Config(
        vision_config=PixtralVisionConfig(**VISION, image_size=112, patch_size=14),
        text_config=_text(processor.tokenizer),
        image_token_index=processor.image_token_id,
        spatial_merge_size=2,
        tie_word_embeddings=False,
    )
    save(folder, Mistral3ForConditionalGeneration, config, processor, ["</s>"])


WRITERS = {"pixtral": write_pixtral, "mistral3": write_mistral3}
