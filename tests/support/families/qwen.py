"""The Qwens and GLM-4.1V, which count an image's patches in a grid of time, height and width."""

from functools import partial
from pathlib import Path

from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Glm4vImageProcessor,
    Glm4vProcessor,
    Glm4vVideoProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from transformers.models.qwen3_5.tokenization_qwen3_5 import Qwen3_5Tokenizer

from demo.checkpoints.qwen2_vl import SPECIAL_TOKENS
from tests.support.families.saving import TEXT, ids_of, save, template
from tests.support.families.tokenizers import byte_level, qwen2

CALLS = ("<tool_call>", "</tool_call>")
THOUGHTS = (*CALLS, "<tool_response>", "</tool_response>", "<think>", "</think>")
GLM_TOKENS = (
    *("<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
    *("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|image|>", "<|video|>"),
    *("<think>", "</think>", "<answer>", "</answer>", "<|begin_of_box|>", "<|end_of_box|>"),
)
VISION = {"depth": 2, "num_heads": 2, "intermediate_size": 64}


def _rope(*section: int, **more: float | bool) -> dict:
    """How the rotary frequencies are shared out between time, height and width."""
    return {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": list(section)} | more


def _qwen(folder: Path, processor, config_class, model_class, text: dict, vision: dict) -> None:
    tokenizer = processor.tokenizer
    token = tokenizer.convert_tokens_to_ids
    config = config_class(
        text_config=TEXT | {"vocab_size": len(tokenizer), **ids_of(tokenizer)} | text,
        vision_config=VISION | vision,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    save(folder, model_class, config, processor, ["<|im_end|>", "<|endoftext|>"])


def write_qwen2(folder: Path, processor_class, config_class, model_class, vision: dict) -> None:
    size = {"shortest_edge": 4 * 28 * 28, "longest_edge": 16 * 28 * 28}
    processor = processor_class(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=qwen2(*SPECIAL_TOKENS, plain=CALLS if config_class is Qwen2_5_VLConfig else ()),
        video_processor=Qwen2VLVideoProcessor(size=size),
        chat_template=template("qwen2_5_vl"),
    )
    _qwen(folder, processor, config_class, model_class, {"rope_parameters": _rope(2, 3, 3)}, vision)


def write_qwen3(
    folder: Path, config_class, model_class, text: dict, vision: dict, tokenizer=None, chat_template: str = "qwen3_vl"
) -> None:
    pixels = {"size": {"shortest_edge": 4 * 32 * 32, "longest_edge": 16 * 32 * 32}, "patch_size": 16}
    pixels |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer or qwen2(*SPECIAL_TOKENS, plain=THOUGHTS),
        video_processor=Qwen3VLVideoProcessor(**pixels),
        chat_template=template(chat_template),
    )
    vision = {"hidden_size": 32, "out_hidden_size": 32, "num_position_embeddings": 64} | vision
    _qwen(folder, processor, config_class, model_class, text, vision)


def write_qwen3_5(folder: Path) -> None:
    """A layer with a state (linear attention), then a full one; the template of the large ones, which think."""
    text = {"layer_types": ["linear_attention", "full_attention"], "head_dim": 32}
    text |= {"linear_num_key_heads": 2, "linear_num_value_heads": 2}
    text |= {"linear_key_head_dim": 16, "linear_value_head_dim": 16}
    text |= {"rope_parameters": _rope(2, 1, 1, mrope_interleaved=True, partial_rotary_factor=0.25)}
    write_qwen3(
        folder,
        Qwen3_5Config,
        Qwen3_5ForConditionalGeneration,
        text,
        {},
        qwen2(*SPECIAL_TOKENS, plain=THOUGHTS, kind=Qwen3_5Tokenizer),
        "qwen3_5_think",
    )


def write_glm4v(folder: Path) -> None:
    tokenizer = byte_level(GLM_TOKENS, eos="<|endoftext|>", pad="<|endoftext|>")
    size = {"shortest_edge": 8 * 28 * 28, "longest_edge": 32 * 28 * 28}  # of two frames
    processor = Glm4vProcessor(
        image_processor=Glm4vImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=Glm4vVideoProcessor(size=size),
        chat_template=template("glm4v"),
    )
    token = tokenizer.convert_tokens_to_ids
    ends = ["<|endoftext|>", "<|user|>", "<|observation|>", "</answer>"]
    config = Glm4vConfig(
        text_config=TEXT
        | {"vocab_size": len(tokenizer), **ids_of(tokenizer), "eos_token_id": token(ends)}
        | {"rope_parameters": _rope(1, 1, 2, partial_rotary_factor=0.5)},
        vision_config=VISION | {"hidden_size": 32, "out_hidden_size": 32, "image_size": 112},
        image_token_id=token("<|image|>"),
        video_token_id=token("<|video|>"),
        image_start_token_id=token("<|begin_of_image|>"),
        image_end_token_id=token("<|end_of_image|>"),
        video_start_token_id=token("<|begin_of_video|>"),
        video_end_token_id=token("<|end_of_video|>"),
    )
    save(folder, Glm4vForConditionalGeneration, config, processor, ends)


INTERLEAVED = {"head_dim": 16, "rope_parameters": _rope(4, 2, 2, mrope_interleaved=True)}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
WRITERS = {
    "qwen2_vl": partial(
        write_qwen2,
        processor_class=Qwen2VLProcessor,
        config_class=Qwen2VLConfig,
        model_class=Qwen2VLForConditionalGeneration,
        vision={"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2},
    ),
    "qwen2_5_vl": partial(
        write_qwen2,
        processor_class=Qwen2_5_VLProcessor,
        config_class=Qwen2_5_VLConfig,
        model_class=Qwen2_5_VLForConditionalGeneration,
        vision={"hidden_size": 32, "out_hidden_size": 32, "window_size": 56, "fullatt_block_indexes": [1]},
    ),
    "qwen3_vl": partial(
        write_qwen3,
        config_class=Qwen3VLConfig,
        model_class=Qwen3VLForConditionalGeneration,
        text=INTERLEAVED,
        vision={"deepstack_visual_indexes": [0]},
    ),
    "qwen3_vl_moe": partial(
        write_qwen3,
        config_class=Qwen3VLMoeConfig,
        model_class=Qwen3VLMoeForConditionalGeneration,
        text=INTERLEAVED | EXPERTS,
        vision={"deepstack_visual_indexes": [0]},
    ),
    "qwen3_5": write_qwen3_5,
    "glm4v": write_glm4v,
}
