"""What stands for an image in a text and in tokens."""

import torch
from transformers import BatchFeature, ProcessorMixin

from ..rows.conventions import IGNORE_INDEX
from .encoding import Encoded, encode
from .images import blank


def placeholders_of(processor: ProcessorMixin) -> tuple[tuple[str, ...], list[int]]:
    """What a text may not spell, for it would claim an image, a video or a sound; and the tokens that images become.

    Begin, end and row tokens around them are text.
    """
    named = [getattr(processor, f"{kind}_token", None) for kind in ("image", "video", "audio")]
    ids = [one for one in getattr(processor, "image_token_ids", ()) if one is not None]
    if not ids:  # Ovis2's processor does not say
        (shown,) = encode(processor, [[(str(processor.image_token), False)]], [blank([(64, 64)])]).shown
        ids = [int(shown[0].mode().values)]
    tokens = [str(token) for token in named if token]
    return tuple(dict.fromkeys([*tokens, *processor.tokenizer.convert_ids_to_tokens(ids)])), ids


def unseen_image(processor: ProcessorMixin) -> Encoded:
    """A small black image and its tokens."""
    return encode(processor, [[(str(processor.image_token), False)]], [blank([(32, 32)])])


def with_unseen_image(processor: ProcessorMixin, batch: BatchFeature, on_the_left: bool) -> BatchFeature:
    """A batch of text alone with a black image among its padding, where no token sees it."""
    unseen = unseen_image(processor)
    width = unseen.inputs["input_ids"].shape[1]
    padding = {"input_ids": processor.tokenizer.pad_token_id, "labels": IGNORE_INDEX}
    for key, values in batch.items():
        added = values.new_full((len(values), width), padding.get(key, 0))
        if key in unseen.inputs and key != "attention_mask":
            added[0] = unseen.inputs[key][0]
        batch[key] = torch.cat([added, values] if on_the_left else [values, added], dim=1)
    batch.update(unseen.by_image())
    return batch
