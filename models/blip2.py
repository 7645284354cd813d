"""BLIP-2 that encodes an image once for all its questions."""

import torch
import transformers

from .frozen import no_grad_if_frozen
from .sharding import gathered


class Blip2ForConditionalGeneration(transformers.Blip2ForConditionalGeneration):
    """transformers' own, which also takes `image_index` `[B]`: which of the images `[I, 3, H, W]` a row is about.

    Each image goes through vision tower and Q-Former once; where these are frozen, no graph is kept of it.
    """

    def forward(self, pixel_values=None, input_ids=None, image_index=None, **inputs):
        if image_index is not None:
            inputs["mm_encoder_outputs"] = {"image": self._encode_images(pixel_values, image_index)}
            pixel_values = None
        return super().forward(pixel_values=pixel_values, input_ids=input_ids, **inputs)

    @torch.no_grad()
    def generate(self, pixel_values, input_ids=None, attention_mask=None, image_index=None, **settings):
        with gathered(self.query_tokens):
            if image_index is None:
                return super().generate(pixel_values, input_ids, attention_mask, **settings)
            features = self._encode_images(pixel_values, image_index).pooler_output
        embeddings = self.get_input_embeddings()(input_ids)
        features = features.to(embeddings.device, embeddings.dtype)
        embeddings = embeddings.masked_scatter(self.get_placeholder_mask(input_ids, embeddings), features)
        if not self.language_model.config.is_encoder_decoder:
            settings["input_ids"] = input_ids
        return self.language_model.generate(inputs_embeds=embeddings, attention_mask=attention_mask, **settings)

    def _encode_images(self, pixel_values: torch.Tensor, image_index: torch.Tensor):
        with no_grad_if_frozen(self.query_tokens, self.vision_model, self.qformer, self.language_projection):
            outputs = self.get_image_features(pixel_values, return_dict=True)
        outputs.pooler_output = outputs.pooler_output[image_index]
        return outputs
