"""Mllama (Llama 3.2 Vision): the language model looks at the picture's tiles, whose tokens are not in the text."""

from pathlib import Path

from transformers import (
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaImageProcessor,
    MllamaProcessor,
)

from tests.support.families.saving import TEXT, VISION, ids_of, save, template
from tests.support.families.tokenizers import byte_level

TOKENS = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|step_id|>", "<|start_header_id|>"),
    *("<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"),
    "<|image|>",  # the last one, for which the head has no row
)


def write_mllama(folder: Path) -> None:
    tokenizer = byte_level(
        TOKENS, bos="<|begin_of_text|>", eos="<|eot_id|>", pad="<|finetune_right_pad_id|>", adds_bos=True
    )
    processor = MllamaProcessor(
        MllamaImageProcessor(size={"height": 28, "width": 28}, max_image_tiles=4),
        tokenizer,
        chat_template=template("mllama"),
    )
    config = MllamaConfig(
        text_config=TEXT | {"vocab_size": len(tokenizer) - 1, **ids_of(tokenizer), "cross_attention_layers": [1]},
        vision_config=VISION
        | {"image_size": 28, "patch_size": 14, "num_global_layers": 1, "intermediate_layers_indices": [0, 1]}
        | {"vision_output_dim": 3 * VISION["hidden_size"]},
        image_token_index=processor.image_token_id,
    )
    save(folder, MllamaForConditionalGeneration, config, processor, ["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"])


WRITERS = {"mllama": write_mllama}
