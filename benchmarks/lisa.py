"""Memory and speed of LISA's 8 GB setting at full size, `python -m benchmarks.lisa`: needs a GPU, and says so without.

LLaVA-1.5-7B and sam-vit-base in four bits with random weights (neither memory nor speed depends on them), LoRA,
embeddings, output head, mask decoder and projection trained, as `recipes/reasonseg.py` sets it up for
`rtx_8gb.yaml`. The small-card copy reports a peak of 5.79 GB and 1.9 s per sample on an 8 GB card; it trains neither
embeddings nor output head, and does not run SAM's image encoder.
"""

import time

import bitsandbytes as bnb
import torch
from accelerate import init_empty_weights
from peft import get_peft_model
from torch import nn
from transformers import (
    BitsAndBytesConfig,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SamConfig,
    SamModel,
)
from trl import get_peft_config

from recipes import reasonseg
from vlm_recipes.models.lisa.config import LisaConfig
from vlm_recipes.models.lisa.loading import NOT_QUANTISED
from vlm_recipes.models.lisa.model import LisaForConditionalGeneration
from vlm_recipes.models.precision import trainable_in_float32
from vlm_recipes.models.upstream import mark_quantised

SAMPLES, ACCUMULATED, WARM_UP = 40, 20, 5
ANSWER, QUESTION = 12, 60  # tokens
IMAGE = (1200, 1600)  # height and width of a mask, in pixels


def llava_7b() -> LlavaConfig:
    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        image_size=336,
        patch_size=14,
        num_hidden_layers=24,
        num_attention_heads=16,
        projection_dim=768,
    )
    text = LlamaConfig(vocab_size=32064, max_position_embeddings=4096, rms_norm_eps=1e-5)
    return LlavaConfig(vision_config=vision, text_config=text, image_seq_length=576)


def random_weights(module: nn.Module, device: str, dtype: torch.dtype, path: str = "") -> nn.Module:
    """Give a module without weights random ones: linear layers in four bits, but for those of `NOT_QUANTISED`."""
    for name, child in list(module.named_children()):
        full = f"{path}.{name}".lstrip(".")
        if isinstance(child, nn.Linear) and not any(part in f"{full}." for part in NOT_QUANTISED):
            weight = torch.randn(child.out_features, child.in_features, dtype=dtype, device=device) * 0.02
            four = bnb.nn.Linear4bit(
                child.in_features, child.out_features, bias=child.bias is not None, compute_dtype=dtype, device="meta"
            )
            four.weight = bnb.nn.Params4bit(
                weight.cpu(), requires_grad=False, quant_type="nf4", compress_statistics=True
            ).to(device)
            if child.bias is not None:
                four.bias = nn.Parameter(torch.zeros(child.out_features, dtype=dtype, device=device))
            setattr(module, name, four)
        else:
            random_weights(child, device, dtype, full)
    for name, parameter in list(module.named_parameters(recurse=False)):
        if parameter.is_meta:
            setattr(module, name, nn.Parameter(torch.randn(parameter.shape, dtype=dtype, device=device) * 0.02))
    return module


def build(llava_config: LlavaConfig, sam_config: SamConfig, device: str, dtype: torch.dtype) -> nn.Module:
    """The model as the recipe trains it."""
    with init_empty_weights(include_buffers=False):
        llava, sam = LlavaForConditionalGeneration(llava_config), SamModel(sam_config)
    llava, sam = random_weights(llava, device, dtype), random_weights(sam, device, dtype, "sam")
    config = LisaConfig(llava=llava_config, sam=sam_config, seg_token_id=llava_config.text_config.vocab_size - 1)
    network = LisaForConditionalGeneration(config, llava, sam)
    network.to(device)
    mark_quantised(network, BitsAndBytesConfig(load_in_4bit=True))
    network.gradient_checkpointing_enable()
    network = get_peft_model(network, get_peft_config(reasonseg.Model(use_peft=True, dtype="float32")))
    trainable_in_float32(network)
    return network.train()


def batch_of_one(network: nn.Module, device: str, image: tuple[int, int]) -> dict:
    """A random image, question and answer with one mask."""
    llava, sam = network.config.llava, network.config.sam.vision_config
    side, tokens = llava.vision_config.image_size, llava.image_seq_length
    ids = torch.randint(10, 300, (1, tokens + QUESTION + ANSWER), device=device)
    ids[:, 1 : 1 + tokens], ids[:, -2] = llava.image_token_id, network.config.seg_token_id
    labels = ids.clone()
    labels[:, :-ANSWER] = -100
    scale = sam.image_size / max(image)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": labels,
        "image_index": torch.zeros(1, dtype=torch.long, device=device),
        "pixel_values": torch.randn(1, 3, side, side, device=device),
        "sam_pixel_values": torch.randn(1, 3, sam.image_size, sam.image_size, device=device),
        "original_sizes": torch.tensor([image], device=device),
        "reshaped_input_sizes": torch.tensor([[round(side * scale) for side in image]], device=device),
        "masks": [torch.randint(0, 2, (1, *image), dtype=torch.uint8, device=device)],
    }


def seconds_per_sample(network: nn.Module, device: str, image: tuple[int, int], samples: int, warm_up: int) -> float:
    """Train on random samples; optimizer steps are part of it."""
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for module in network.modules():  # as the Trainer does
        if isinstance(module, nn.Embedding):
            override = bnb.optim.GlobalOptimManager.get_instance().register_module_override
            override(module, "weight", {"optim_bits": 32})
    optimizer = bnb.optim.PagedAdamW8bit(weights, lr=1e-4) if device == "cuda" else torch.optim.AdamW(weights)
    for i in range(warm_up + samples):
        if i == warm_up:
            torch.cuda.synchronize() if device == "cuda" else None
            start = time.perf_counter()
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = network(**batch_of_one(network, device, image)).loss / ACCUMULATED
        loss.backward()
        if i < warm_up or (i + 1 - warm_up) % ACCUMULATED == 0:
            optimizer.step()
            optimizer.zero_grad()
    torch.cuda.synchronize() if device == "cuda" else None
    return (time.perf_counter() - start) / samples


def main() -> None:
    if not torch.cuda.is_available():
        print("no GPU here: nothing measured. Reported for the small-card copy: 5.79 GB at its peak, 1.9 s per sample")
        return
    network = build(llava_7b(), sam_vit_base(), "cuda", torch.bfloat16)
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    loaded = torch.cuda.memory_allocated() / 1e9
    seconds = seconds_per_sample(network, "cuda", IMAGE, SAMPLES, WARM_UP)
    print(f"{torch.cuda.get_device_name()}, {trained / 1e6:.0f} M trained parameters, {SAMPLES} samples one by one")
    print(f"memory: {loaded:.2f} GB loaded, {torch.cuda.max_memory_allocated() / 1e9:.2f} GB at its peak (copy: 5.79)")
    print("besides, the optimizer's states are paged: they leave the card where there is no room, and are not counted")
    print(f"time: {seconds:.2f} s per sample, forward, backward and optimizer (copy, on another card: 1.9)")


def sam_vit_base() -> SamConfig:
    return SamConfig(vision_config={"image_size": 1024})  # the defaults are those of sam-vit-base


if __name__ == "__main__":
    main()
