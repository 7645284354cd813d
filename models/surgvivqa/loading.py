"""SurgViVQA from a name or a folder: composed of three models, with an adapter, or whole as a run left it."""

import copy
from collections.abc import Sequence
from functools import partial

import torch
from peft import PeftConfig, PeftModel
from transformers import (
    AutoTokenizer,
    BlipForQuestionAnswering,
    GPT2LMHeadModel,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    VideoMAEConfig,
    VideoMAEImageProcessor,
    VideoMAEModel,
)
from trl import ModelConfig, get_quantization_config

from ..checkpoints import refuse_fsdp, refuse_other_kind, refuse_other_parts
from ..kinds import refuse_other_kinds
from ..lora import add_adapter
from ..precision import trainable_in_float32
from ..weights import CheckpointError, load_named, load_weights
from .config import SurgViVqaConfig
from .model import SurgViVqaForConditionalGeneration

PARTS = ("video", "text_encoder", "decoder")
ATTENTION_AND_MLP = r"decoder\..*\.(c_attn|c_proj)"  # for LoRA: c_proj is the attention's and the MLP's


class SurgViVqaProcessor(ProcessorMixin):
    """VideoMAE's image processor, GPT-2's tokenizer for answers and BLIP's, as `question_tokenizer`, for questions."""

    def __init__(self, image_processor=None, tokenizer=None, question_tokenizer=None, **kwargs):
        super().__init__(image_processor, tokenizer, question_tokenizer, **kwargs)

    @classmethod
    def compose(
        cls, config: SurgViVqaConfig, tokenizer: PreTrainedTokenizerBase, question_tokenizer: PreTrainedTokenizerBase
    ) -> "SurgViVqaProcessor":
        """One transform for training and evaluation: the whole frame, squeezed to VideoMAE's square, nothing cut."""
        side = config.video.image_size
        frames = VideoMAEImageProcessor(size={"height": side, "width": side}, do_center_crop=False)
        question_tokenizer.model_max_length = config.text.max_position_embeddings
        return cls(frames, tokenizer, question_tokenizer)


def load_surgvivqa(
    model: ModelConfig,
    video_name_or_path: str = "MCG-NJU/videomae-base",
    text_name_or_path: str = "Salesforce/blip-vqa-base",
    num_frames: int = 8,
    to_train: bool = False,
) -> tuple[SurgViVqaForConditionalGeneration | PeftModel, SurgViVqaProcessor]:
    """Load `model.model_name_or_path`: a GPT-2, to which the two towers are joined, or what a run of SurgViVQA left.

    What a run left, an adapter or a whole model, knows its towers and its frames; then the other arguments are not
    read. An adapter can train on. To answer, the model comes on this process's device. Weights are read from
    safetensors only.

    Raises `CheckpointError` in one line when there is no such model, under FSDP, for 4 or 8 bits, and where fields of
    `model` that are called like these arguments ask for other towers or frames than a run's model has.
    """
    refuse_fsdp("SurgViVQA")
    if get_quantization_config(model) is not None:
        raise CheckpointError("SurgViVQA is not quantised: it is small, and GPT-2's layers are none that would be")
    asked = (video_name_or_path, text_name_or_path, num_frames)
    network, processor = load_named(model, partial(_base, model, asked), to_train, SurgViVqaConfig)
    has = {name: getattr(network.config, name) for name in ("video_name_or_path", "text_name_or_path")}
    refuse_other_parts(model, has | {"num_frames": network.config.video.num_frames})
    return network, processor


def _base(
    model: ModelConfig, asked: tuple[str, str, int], name: str, revision: str, config: SurgViVqaConfig | None
) -> tuple[SurgViVqaForConditionalGeneration, SurgViVqaProcessor]:
    """A whole SurgViVQA by its name, or a new one of a GPT-2 and two towers, which an adapter's `config` knows."""
    known = config and (config.video_name_or_path, config.text_name_or_path, config.video.num_frames)
    video_name, text_name, num_frames = known or asked
    settings = {"dtype": model.dtype}
    attention = model.attn_implementation
    kind = PreTrainedConfig.get_config_dict(name, revision=revision)[0].get("model_type")
    if kind == "surgvivqa":
        settings["attn_implementation"] = {"": attention, "decoder": attention} if attention else None  # BLIP is eager
        settings["dtype"] = torch.float32  # as what trains was trained
        network = load_weights(SurgViVqaForConditionalGeneration, name, revision=revision, **settings)
        return network, SurgViVqaProcessor.from_pretrained(name, revision=revision)
    if kind != "gpt2":
        raise ValueError(f"SurgViVQA is made of a GPT-2, and this is {kind or 'no model'}")
    refuse_other_kinds(video_name, ("videomae",), "SurgViVQA's video tower is a VideoMAE")
    refuse_other_kinds(text_name, ("blip",), "SurgViVQA's text encoder is a BLIP's")
    frames = VideoMAEConfig.from_pretrained(video_name, num_frames=num_frames)
    if num_frames % frames.tubelet_size:
        raise ValueError(f"VideoMAE reads {frames.tubelet_size} frames at a time, so there cannot be {num_frames}")
    video = load_weights(VideoMAEModel, video_name, config=frames, **settings)
    blip = load_weights(BlipForQuestionAnswering, text_name, **settings)
    text = blip.text_encoder
    decoder = load_weights(GPT2LMHeadModel, name, revision=revision, attn_implementation=attention, **settings)
    names = {"name_or_path": name, "video_name_or_path": video_name, "text_name_or_path": text_name}
    config = SurgViVqaConfig(video.config, text.config, decoder.config, **names)
    network = SurgViVqaForConditionalGeneration(config, video, text, decoder)
    network.loaded_from = decoder.loaded_from | video.loaded_from | blip.loaded_from
    tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    return network, SurgViVqaProcessor.compose(config, tokenizer, AutoTokenizer.from_pretrained(text_name))


def train_parts(
    network: SurgViVqaForConditionalGeneration | PeftModel, parts: Sequence[str], adapter: PeftConfig | None
) -> SurgViVqaForConditionalGeneration | PeftModel:
    """Set whole `parts` (of "video", "text_encoder" and "decoder") to train, and an adapter on the decoder; no more.

    Without `adapter`, one that is there becomes part of the weights; with one, the one that is there trains on.
    Raises `CheckpointError` where something else would train, or nothing of a part.
    """
    if adapter is None and isinstance(network, PeftModel):
        network.get_base_model().decoder.float()  # as it will train, so that merging rounds nothing
        network = network.merge_and_unload()
        network.loaded_from = {}  # no folder has these weights
    if adapter is not None:
        if adapter.modules_to_save:
            raise CheckpointError("--lora_modules_to_save has no effect: --train_… says which parts train whole")
        adapter = copy.deepcopy(adapter)
        adapter.modules_to_save = list(parts)
        adapter.fan_in_fan_out = True  # GPT-2 keeps its weights transposed
    if isinstance(network, PeftModel):
        refuse_other_kind(network.active_peft_config, adapter)
    else:
        network.requires_grad_(False)
        if adapter is not None:
            network = add_adapter(network, adapter)
        else:
            for part in parts:
                network.get_submodule(part).requires_grad_(True)
    trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    for name in trained:
        part = next(part for part in PARTS if f"{part}." in name)
        if part not in parts and not (part == "decoder" and "lora_" in name):
            raise CheckpointError(f"{name} would be trained, and {part} was to stay as it is")
    for part in sorted({*parts, "decoder"}):
        if not any(f"{part}." in name for name in trained):
            raise CheckpointError(f"nothing of {part} would be trained")
    trainable_in_float32(network)
    return network
