"""SAM draws a mask for each of LISA's prompts, at the image's own size."""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import SamModel

from ..frozen import no_grad_if_frozen
from ..sharding import gather_in_forward


def decode_masks(
    sam: SamModel,
    projection: nn.Module,
    states: torch.Tensor,
    image_index: torch.Tensor,
    sam_pixel_values: torch.Tensor,
    original_sizes: torch.Tensor,
    reshaped_input_sizes: torch.Tensor,
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Logits `[H, W]` for each of the hidden states, and a 0 that all of the mask decoder is in, with gradients of 0.

    The dense prompt is SAM's embedding for "no mask".

    Args:
        projection: makes sparse prompts `[N, prompt]` of `states` `[N, hidden]`, in the mask decoder's dtype.
        image_index: `[N]`, which image each is about.
        sam_pixel_values: `[I, 3, s, s]`, each encoded once; `original_sizes` and `reshaped_input_sizes` `[I, 2]` are
            heights and widths in pixels, of the image and of what it fills of SAM's square.
    """
    encoder, decoder = sam.vision_encoder, sam.mask_decoder
    dtype = decoder.iou_token.weight.dtype
    prompts = projection(states.to(dtype))
    with no_grad_if_frozen(encoder):
        pixels = sam_pixel_values.to(encoder.patch_embed.projection.weight.dtype)
        embeddings = encoder(pixels).last_hidden_state[image_index].to(dtype)
    with torch.autocast(embeddings.device.type, enabled=False):  # in 16 bits, off by as much as a neighbour
        positions = sam.get_image_wide_positional_embeddings().to(dtype)
    no_mask = sam.prompt_encoder.no_mask_embed(image_index.new_zeros(1)).to(dtype)
    gather_in_forward(decoder, decoder.iou_token.weight, decoder.mask_tokens.weight)
    low_resolution, quality = decoder(
        image_embeddings=embeddings,
        image_positional_embeddings=positions.expand(len(prompts), -1, -1, -1),
        sparse_prompt_embeddings=prompts[:, None, None],
        dense_prompt_embeddings=no_mask[..., None, None].expand_as(embeddings),
        multimask_output=False,
    )
    low_resolution = low_resolution[:, 0, 0].float()
    sizes, filled = original_sizes.tolist(), reshaped_input_sizes.tolist()
    square = sam.config.vision_config.image_size
    places = image_index.tolist()
    masks = [enlarge(mask, square, filled[i], sizes[i]) for mask, i in zip(low_resolution, places, strict=True)]
    # 0 times what has overflowed is nan, in the loss and in every gradient.
    finite = [output.float().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0) for output in (low_resolution, quality)]
    return masks, sum((0.0 * output).sum() for output in finite)


def enlarge(logits: torch.Tensor, square: int, filled: list[int], size: list[int]) -> torch.Tensor:
    """SAM's mask at the image's `size` (height, width): to its square, cut to what the image `filled`, to the size."""
    logits = F.interpolate(logits[None, None], (square, square), mode="bilinear")[..., : filled[0], : filled[1]]
    return F.interpolate(logits, size, mode="bilinear")[0, 0]
