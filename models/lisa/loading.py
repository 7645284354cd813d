"""LISA from a name or a folder: composed of a LLaVA and a SAM, with an adapter, or whole as a run left it."""

from dataclasses import replace
from functools import partial

import torch
from peft import PeftModel
from peft.utils.constants import DUMMY_TARGET_MODULES
from tokenizers import AddedToken
from transformers import (
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedConfig,
    ProcessorMixin,
    SamImageProcessor,
    SamModel,
)
from trl import ModelConfig, get_peft_config

from ...rows.conventions import SEG_TOKEN
from ..checkpoints import refuse_fsdp, refuse_other_kind, refuse_other_parts
from ..kinds import refuse_other_kinds
from ..lora import add_adapter, refuse_lora
from ..sharding import gathered
from ..upstream import mark_quantised
from ..weights import CheckpointError, load_named, load_weights, weight_settings
from .config import LisaConfig
from .model import LisaForConditionalGeneration

ATTENTION = r".*language_model\..*\.(q_proj|v_proj)"  # for LoRA: not CLIP's, and not the mask decoder's
VOCABULARY = ["embed_tokens", "lm_head"]
WHOLE = [*VOCABULARY, "mask_decoder", "mask_projection"]  # trained whole beside LoRA
NOT_QUANTISED = ["lm_head", "sam.mask_decoder", "sam.prompt_encoder", "mask_projection"]


class LisaProcessor(LlavaProcessor):
    """LLaVA's processor with SAM's image processor as `sam_image_processor`; its tokenizer knows `[SEG]`."""

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        sam_image_processor=None,
        patch_size=None,
        vision_feature_select_strategy=None,
        chat_template=None,
        image_token="<image>",
        num_additional_image_tokens=0,
    ):
        self.patch_size = patch_size
        self.num_additional_image_tokens = num_additional_image_tokens
        self.vision_feature_select_strategy = vision_feature_select_strategy
        self.image_token = getattr(tokenizer, "image_token", image_token)
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        # Not LLaVA's own, which knows of two parts only.
        ProcessorMixin.__init__(self, image_processor, tokenizer, sam_image_processor, chat_template=chat_template)

    @classmethod
    def compose(cls, llava: LlavaProcessor, sam: SamImageProcessor) -> "LisaProcessor":
        # Not a special token, which decoding may drop.
        llava.tokenizer.add_tokens([AddedToken(SEG_TOKEN, normalized=False)])
        names = ("patch_size", "vision_feature_select_strategy", "chat_template", "num_additional_image_tokens")
        return cls(llava.image_processor, llava.tokenizer, sam, **{name: getattr(llava, name) for name in names})


def load_lisa(
    model: ModelConfig, sam_name_or_path: str = "facebook/sam-vit-huge", to_train: bool = False
) -> tuple[LisaForConditionalGeneration | PeftModel, LisaProcessor]:
    """Load `model.model_name_or_path`: a LLaVA-1.5, to which the SAM is joined, or what a run of LISA left.

    What a run left, an adapter or a whole model, knows its LLaVA and its SAM; then `sam_name_or_path` is not read. An
    adapter can train on. To answer, the model comes on this process's device. Both towers are quantised where `model`
    says so, and neither the parts that LISA trains nor SAM's prompt encoder. Weights are read from safetensors only.

    Raises `CheckpointError` in one line when there is no such model, under FSDP, and where a `sam_name_or_path` of
    `model` is another SAM than that of a run's model.
    """
    refuse_fsdp("LISA")
    network, processor = load_named(model, partial(_base, model, sam_name_or_path), to_train, LisaConfig)
    refuse_other_parts(model, {"sam_name_or_path": network.config.sam_name_or_path})
    return network, processor


def _base(
    model: ModelConfig, sam_name: str, name: str, revision: str, config: LisaConfig | None
) -> tuple[LisaForConditionalGeneration, LisaProcessor]:
    """A whole LISA by its name, or a new one of a LLaVA and a SAM, of which an adapter's `config` knows more."""
    of_name = {"revision": revision, "attn_implementation": model.attn_implementation}
    kind = PreTrainedConfig.get_config_dict(name, revision=revision)[0].get("model_type")
    if kind == "lisa":
        settings = weight_settings(model, NOT_QUANTISED)
        network = load_weights(LisaForConditionalGeneration, name, **settings, **of_name)
        processor = LisaProcessor.from_pretrained(name, revision=revision)
    elif kind == "llava":
        settings = weight_settings(model, [part.removeprefix("sam.") for part in NOT_QUANTISED])
        sam_name = config.sam_name_or_path if config else sam_name
        refuse_other_kinds(sam_name, ("sam",), "LISA's masks are a SAM's")
        llava = load_weights(LlavaForConditionalGeneration, name, **settings, **of_name)
        sam = load_weights(SamModel, sam_name, **settings)
        llava_processor = LlavaProcessor.from_pretrained(name, revision=revision)
        is_new = SEG_TOKEN not in llava_processor.tokenizer.get_vocab()
        processor = LisaProcessor.compose(llava_processor, SamImageProcessor.from_pretrained(sam_name))
        network = compose(llava, sam, processor, is_new)
        if "quantization_config" in settings:
            mark_quantised(network, settings["quantization_config"])
    else:
        raise ValueError(f"LISA is made of a LLaVA-1.5, and this is {kind or 'no model'}")
    network.sam.shared_image_embedding.float()
    for weight in ("ce_weight", "bce_weight", "dice_weight") if config else ():
        setattr(network.config, weight, getattr(config, weight))
    return network, processor


def with_adapter(
    network: LisaForConditionalGeneration | PeftModel, model: ModelConfig, lora: bool = True, vocabulary: bool = True
) -> PeftModel:
    """With the adapter that `model` describes, in which embeddings and output head train whole.

    Without `vocabulary` only their rows of `[SEG]` train; without `lora`, which is then without `vocabulary`, too, no
    other layer of the language model. An adapter that is there trains on. Raises `CheckpointError` if it is of another
    kind.
    """
    adapter = get_peft_config(replace(model, use_peft=True))
    if not (lora and vocabulary):
        adapter.modules_to_save = [part for part in adapter.modules_to_save if part not in VOCABULARY]
        adapter.trainable_token_indices = dict.fromkeys(VOCABULARY, [network.config.seg_token_id])
    if lora:
        refuse_lora(model, "what trains here is LoRA", "use_peft")
    else:
        refuse_lora(model, "no layer of the language model trains", "lora_(r|alpha|dropout|target.*)|use_.*lora")
        adapter.target_modules = DUMMY_TARGET_MODULES
    if not isinstance(network, PeftModel):
        return add_adapter(network, adapter)
    made = network.active_peft_config
    if lora == (made.target_modules == DUMMY_TARGET_MODULES):
        raise CheckpointError(f"this adapter was made {'without' if lora else 'with'} LoRA: train it on as it began")
    refuse_other_kind(made, adapter)
    return network


def compose(
    llava: LlavaForConditionalGeneration, sam: SamModel, processor: LisaProcessor, is_new: bool
) -> LisaForConditionalGeneration:
    """Join a LLaVA and a SAM by a new projection; a `[SEG]` that `is_new`, too, starts as the mean of all tokens."""
    seg_token_id = processor.tokenizer.convert_tokens_to_ids(SEG_TOKEN)
    vocabulary = max(len(processor.tokenizer), seg_token_id + 1)
    if vocabulary > llava.get_input_embeddings().num_embeddings:  # LLaVA-1.5 has spare rows
        with torch.random.fork_rng(devices=[]):  # as in load_weights
            llava.resize_token_embeddings(vocabulary, mean_resizing=False)
    with torch.no_grad():
        for embeddings in (llava.get_input_embeddings(), llava.get_output_embeddings()) if is_new else ():
            with gathered(embeddings.weight, change=True):
                embeddings.weight[seg_token_id] = embeddings.weight[:seg_token_id].float().mean(0)
    names = {"name_or_path": llava.name_or_path, "sam_name_or_path": sam.name_or_path}
    config = LisaConfig(llava.config, sam.config, seg_token_id, **names)
    network = LisaForConditionalGeneration(config, llava, sam)
    network.loaded_from = llava.loaded_from | sam.loaded_from
    network.mask_projection.to(sam.mask_decoder.iou_token.weight)  # its device and dtype
    return network


def freeze_unreached(network: LisaForConditionalGeneration) -> None:
    """Freeze what no loss reaches: CLIP behind the layer that LLaVA reads, SAM's other prompts; and its positions."""
    clip = network.llava.model.vision_tower
    clip = getattr(clip, "vision_model", clip)
    read = network.config.llava.vision_feature_layer
    unread = clip.encoder.layers[read + 1 :] if isinstance(read, int) and read < -1 else []
    for part in (*unread, clip.post_layernorm, network.sam.prompt_encoder, network.sam.shared_image_embedding):
        part.requires_grad_(False)
