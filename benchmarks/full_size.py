"""The models of the recipes at the sizes of the real checkpoints, with random weights, and what a GPU could do."""

from typing import Any

import torch
from accelerate import PartialState
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    Blip2Config,
    BlipConfig,
    CLIPVisionConfig,
    GPT2Config,
    LlamaConfig,
    LlavaConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    SamConfig,
    T5Config,
    VideoMAEConfig,
)

from vlm_recipes.models.adapters import files_of
from vlm_recipes.models.upstream import keep_weight_names

SIZES = {  # width of the language model and of its middle, heads, of keys and values, vocabulary, tied embeddings
    "Qwen2-VL-2B": (1536, 8960, 12, 2, 151936, True),
    "Qwen2-VL-7B": (3584, 18944, 28, 4, 152064, False),
}
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense bfloat16 operations per second
SPREAD = 0.02  # standard deviation of a random weight, as most models are made with


def full_size(name: str, tokenizer: PreTrainedTokenizerBase) -> Qwen2VLConfig:
    """The configuration of the checkpoint, but for the special tokens, which are those of a smaller tokenizer."""
    hidden, middle, heads, key_heads, vocabulary, tied = SIZES[name]
    special = {"bos_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {"hidden_size": hidden, "intermediate_size": middle, "num_hidden_layers": 28, "vocab_size": vocabulary}
    text |= {"num_attention_heads": heads, "num_key_value_heads": key_heads, "rms_norm_eps": 1e-6, **special}
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}}
    vision = {"depth": 32, "embed_dim": 1280, "hidden_size": hidden, "mlp_ratio": 4, "num_heads": 16}
    tokens = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    ids = {f"{key}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>") for key, token in tokens.items()}
    return Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied, **ids)


def llava_7b(image_token_id: int = 32000, pad_token_id: int = 32001) -> LlavaConfig:
    """LLaVA-1.5-7B; by default the tokens' ids are the real ones."""
    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        image_size=336,
        patch_size=14,
        num_hidden_layers=24,
        num_attention_heads=16,
        projection_dim=768,
    )
    # LLaMA's default sizes are the 7B's.
    text = LlamaConfig(vocab_size=32064, max_position_embeddings=4096, rms_norm_eps=1e-5, pad_token_id=pad_token_id)
    return LlavaConfig(vision_config=vision, text_config=text, image_token_index=image_token_id, image_seq_length=576)


def sam_vit(size: str) -> SamConfig:
    """SAM "base", whose sizes are the defaults, or "huge"."""
    huge = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "mlp_dim": 5120}
    huge |= {"global_attn_indexes": [7, 15, 23, 31]}
    return SamConfig(vision_config={"base": {}, "huge": huge}[size])


def blip2_flan_t5_xl(image_token_id: int = 32100) -> Blip2Config:
    """BLIP-2 with Flan-T5-XL; vision tower and Q-Former have the defaults' sizes.

    The checkpoint's output head is no copy of the embeddings; without a checkpoint transformers makes it one, so that
    66 of 3,942 M parameters are not there.
    """
    text = T5Config(
        d_model=2048,
        d_ff=5120,
        num_layers=24,
        num_heads=32,
        d_kv=64,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    return Blip2Config(text_config=text.to_dict(), image_token_index=image_token_id)


def surgvivqa_parts(answer_end: int = 50256, **question_ids: int) -> tuple[VideoMAEConfig, BlipConfig, GPT2Config]:
    """VideoMAE-base, blip-vqa-base and GPT-2, whose sizes are the defaults but for BLIP's longest text."""
    video = VideoMAEConfig(use_mean_pooling=False)
    text = {"max_position_embeddings": 512, "is_decoder": True, "encoder_hidden_size": 768, **question_ids}
    blip = BlipConfig(text_config=text, vision_config={"image_size": 384})
    return video, blip, GPT2Config(bos_token_id=answer_end, eos_token_id=answer_end)


def random_weights(config: Qwen2VLConfig, device: str, dtype: torch.dtype) -> Qwen2VLForConditionalGeneration:
    with torch.device(device):
        return AutoModelForImageTextToText.from_config(config, dtype=dtype)


class RandomWeight:
    """A weight that is drawn on the device when it is read, where a checkpoint has a slice of a safetensors file.

    A normalisation's weight is 1, a bias 0.
    """

    def __init__(self, name: str, shape: torch.Size, device: torch.device, dtype: torch.dtype):
        self.name, self.empty = name, {"size": shape, "device": device, "dtype": dtype}

    def __getitem__(self, index: Any) -> torch.Tensor:
        weight = torch.empty(**self.empty)
        return weight.normal_(std=SPREAD) if weight.ndim > 1 else weight.fill_(self.name.endswith("weight"))


def load_random(model_class: type, name: str, **settings) -> PreTrainedModel:
    """What `vlm_recipes.models.weights.load_weights` loads, of a folder that needs to have a configuration alone.

    The weights are random and made on this process's device, one after the other: transformers loads them as it would
    a checkpoint's, in the format asked for, and quantises what it would quantise. Buffers are the model's own.
    """
    device = PartialState().device
    config = settings.pop("config", None) or AutoConfig.from_pretrained(name)
    dtype = getattr(torch, settings["dtype"]) if isinstance(settings["dtype"], str) else settings["dtype"]
    with torch.device("meta"):
        empty = (model_class.from_config if model_class is AutoModelForImageTextToText else model_class)(config)
    weights = {key: RandomWeight(key, weight.shape, device, dtype) for key, weight in empty.named_parameters()}
    settings |= {"config": config, "state_dict": weights, "device_map": {"": device}}
    network = type(empty).from_pretrained(None, **settings)
    network.name_or_path = network.config.name_or_path = name
    keep_weight_names(network)
    network.loaded_from = {(name, None): files_of(name)}
    return network
