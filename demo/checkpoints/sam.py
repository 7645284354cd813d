"""A small random SAM checkpoint with its real image processor, written without a download."""

from os import PathLike

import torch
from transformers import (
    SamConfig,
    SamImageProcessor,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
)


def write_sam(
    folder: str | PathLike[str],
    *,
    image_size: int = 64,
    patch_size: int = 8,
    hidden_size: int = 64,
    prompt_size: int = 64,
    layers: int = 2,
    initializer_range: float = 0.08,
    position_scale: float = 0.25,
    seed: int = 0,
) -> None:
    """Write a random model and an image processor that `SamModel` and `SamImageProcessor` load offline.

    An image's longer side becomes `image_size` pixels, and a mask has `4 * image_size / patch_size` a side before it
    is enlarged. `hidden_size` is the vision encoder's width, `prompt_size` that of prompts and the mask decoder.
    `position_scale` is that of the random Fourier features which positions become: a small one makes them smooth. The
    same arguments give the same weights. (SAM's own `initializer_range`, 1e-10, would leave the image without signal.)
    """
    sizes = {"image_size": image_size, "patch_size": patch_size}
    config = SamConfig(
        vision_config=SamVisionConfig(
            **sizes,
            hidden_size=hidden_size,
            output_channels=prompt_size,
            num_hidden_layers=layers,
            num_attention_heads=2,
            mlp_ratio=2.0,
            window_size=0,
            global_attn_indexes=list(range(layers)),
            num_pos_feats=prompt_size // 2,
            initializer_range=initializer_range,
        ),
        prompt_encoder_config=SamPromptEncoderConfig(**sizes, hidden_size=prompt_size),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=prompt_size, mlp_dim=2 * prompt_size, num_attention_heads=2, iou_head_hidden_dim=prompt_size
        ),
        initializer_range=initializer_range,
    )
    config.vision_config.scale = position_scale
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SamModel(config)
    model.save_pretrained(folder)
    small = {"longest_edge": image_size // patch_size * 4}
    SamImageProcessor(
        size={"longest_edge": image_size},
        pad_size={"height": image_size, "width": image_size},
        mask_size=small,
        mask_pad_size={"height": small["longest_edge"], "width": small["longest_edge"]},
    ).save_pretrained(folder)
