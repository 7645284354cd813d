"""BLIP-2 that encodes an image once for all its questions."""

import torch
import transformers
from peft import PeftConfig, PeftModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as DECODERS
from trl import ModelConfig

from .checkpoints import load_checkpoint
from .frozen import no_grad_if_frozen
from .kinds import config_of, refuse_other_kinds
from .lora import refuse_lora
from .sharding import gathered
from .weights import CheckpointError


class Blip2ForConditionalGeneration(transformers.Blip2ForConditionalGeneration):
    """transformers' own, which also takes `image_index` `[B]`: which of the images `[I, 3, H, W]` a row is about.

    Each image goes through vision tower and Q-Former once; where these are frozen, no graph is kept of it.
    """

    def forward(self, pixel_values=None, input_ids=None, image_index=None, labels=None, **inputs):
        # `labels` by their name: where a forward does not name them, the Trainer takes no loss as it evaluates.
        if image_index is not None:
            inputs["mm_encoder_outputs"] = {"image": self._encode_images(pixel_values, image_index)}
            pixel_values = None
        return super().forward(pixel_values=pixel_values, input_ids=input_ids, labels=labels, **inputs)

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


def load_blip2(
    model: ModelConfig, adapter: PeftConfig | None, output_dir: str | None
) -> tuple[Blip2ForConditionalGeneration | PeftModel, transformers.ProcessorMixin]:
    """Model and processor of a BLIP-2 whose language model is an encoder-decoder, as T5; else `CheckpointError`.

    To answer, or for a training of `adapter` that saves in `output_dir`, see `load_checkpoint`.
    """
    name, revision = model.model_name_or_path, model.model_revision
    if output_dir is not None and adapter is None:
        refuse_lora(model, "what trains here trains whole, without LoRA")
    refuse_other_kinds(name, ("blip-2",), "this recipe is for BLIP-2 with T5", revision)
    config = config_of(name, revision)
    if config and (kind := config.get("text_config", {}).get("model_type", "opt")) in DECODERS:
        raise CheckpointError(
            f"{name!r} is a BLIP-2 with {kind!r}, which has no encoder for a question, and this recipe is for "
            "BLIP-2 with T5: name another model, such as Salesforce/blip2-flan-t5-xl"
        )
    return load_checkpoint(model, output_dir is not None, (), Blip2ForConditionalGeneration, adapter, output_dir)
