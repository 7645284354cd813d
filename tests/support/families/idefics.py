"""SmolVLM and Idefics3: tiles in rows and columns with a name each, then the whole picture."""

from pathlib import Path

from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    Idefics3VisionConfig,
    LlamaConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
    SmolVLMVisionConfig,
)

from tests.support.families.saving import TEXT, VISION, ids_of, save, template
from tests.support.families.tokenizers import byte_level

TILE = 28  # pixels; a picture is made as wide or as high as two tiles
PLACES = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
IMAGE_TOKENS = ("<fake_token_around_image>", "<image>", "<end_of_utterance>")
LLAMA_TOKENS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def _config(config_class, vision_class, tokenizer):
    text = LlamaConfig(**TEXT, vocab_size=len(tokenizer), **ids_of(tokenizer))
    vision = vision_class(**VISION, image_size=TILE, patch_size=7)
    image = tokenizer.convert_tokens_to_ids("<image>")
    return config_class(text_config=text, vision_config=vision, image_token_id=image, scale_factor=2)


def write_smolvlm(folder: Path) -> None:
    """Its processor needs the package num2words, though only for videos."""
    tokenizer = byte_level(
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<global-img>", *PLACES, *IMAGE_TOKENS),
        bos="<|im_start|>",
        eos="<end_of_utterance>",
        pad="<|im_end|>",
    )
    size = {"size": {"longest_edge": 2 * TILE}, "max_image_size": {"longest_edge": TILE}}
    processor = SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(**size),
        tokenizer=tokenizer,
        video_processor=SmolVLMVideoProcessor(**size),
        image_seq_len=4,
        chat_template=template("smolvlm"),
    )
    config = _config(SmolVLMConfig, SmolVLMVisionConfig, tokenizer)
    save(folder, SmolVLMForConditionalGeneration, config, processor, ["<end_of_utterance>"])


def write_idefics3(folder: Path) -> None:
    """Llama 3's tokens and three more: the tiles' names are ordinary text, and `<end_of_utterance>` ends a turn."""
    tokenizer = byte_level(
        (*LLAMA_TOKENS, "<|finetune_right_pad_id|>", *IMAGE_TOKENS),
        bos="<|begin_of_text|>",
        eos="<|end_of_text|>",
        pad="<|finetune_right_pad_id|>",
        adds_bos=True,
    )
    processor = Idefics3Processor(
        image_processor=Idefics3ImageProcessor(size={"longest_edge": 2 * TILE}, max_image_size={"longest_edge": TILE}),
        tokenizer=tokenizer,
        image_seq_len=4,
        chat_template=template("idefics3"),
    )
    config = _config(Idefics3Config, Idefics3VisionConfig, tokenizer)
    save(folder, Idefics3ForConditionalGeneration, config, processor, ["<|end_of_text|>", "<end_of_utterance>"])


WRITERS = {"smolvlm": write_smolvlm, "idefics3": write_idefics3}
