"""A run's output folder loaded anew, as whoever uses it does, and one row's logits compared with those in training."""

import copy
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import PeftConfig, PeftModel
from torch import nn
from transformers import AutoModelForImageTextToText, Trainer
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
from trl import ModelConfig, SFTTrainer, get_quantization_config

from ..callbacks.without_trace import same_model
from .runs import load_recipe, restore
from .saved import SavedError

LARGEST = {True: 1e-3, False: 5e-2}  # difference of logits over their spread: in float32, and rounded to fewer bits


def compare_anew(trainer: Trainer, recipe: Path, data: dict[str, Any], model: ModelConfig) -> None:
    """Load the folder with the recipe's `load`, and with plain transformers and PEFT, and print the differences.

    Both on this process's device, one after the other: it needs the memory of a second model. Composed models are
    loaded by the recipe alone, and so is what was trained on 4 or 8 bits: others round other layers.

    Args:
        data: what the recipe was asked of its data, as `run.json` has it.

    Raises `SavedError` where the logits differ by more than rounding does.
    """
    folder, module, asked = Path(trainer.args.output_dir), load_recipe(recipe), copy.copy(model)
    asked.model_name_or_path = str(folder)
    if {weight.dtype for weight in trainer.model.parameters()} == {torch.float32}:  # as it was saved
        asked.dtype = "float32"
    batch = trainer.data_collator([trainer.train_dataset[0]])
    if isinstance(trainer, SFTTrainer):  # with labels its head returns no logits
        del batch["labels"]
    plain = trainer.model.config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    if plain and "image_index" in batch:  # which no other BLIP-2 takes
        batch["pixel_values"] = batch["pixel_values"][batch.pop("image_index")]
    expected = logits_of(trainer.model, batch)
    ways = {"the recipe's loader": lambda: module.load(restore(module.Data, data), asked)[0]}
    if plain and get_quantization_config(model) is None:
        ways["transformers and PEFT"] = lambda: load_plain(folder, asked)
    exact = str(trainer.model.dtype) == "torch.float32" and not (trainer.args.bf16 or trainer.args.fp16)
    for way, load in ways.items():
        with trainer.accelerator.autocast():  # as the trained one's own forward has it
            found = logits_of(load(), batch)
        differ = ((found - expected).abs().max() / expected.std()).item()
        print(f"{folder} loaded anew by {way}: logits differ by {differ:.1e} of their spread")
        if not differ <= LARGEST[exact]:
            raise SavedError(f"{folder} does not hold the model that was trained: loaded by {way}, logits differ")


def load_plain(folder: Path, model: ModelConfig) -> nn.Module:
    """The model in `folder` as its files say, with nothing of this project."""
    settings = {"dtype": model.dtype, "attn_implementation": model.attn_implementation}
    if not (folder / "adapter_config.json").is_file():
        return AutoModelForImageTextToText.from_pretrained(folder, **settings).to(PartialState().device)
    adapter = PeftConfig.from_pretrained(folder)
    base = AutoModelForImageTextToText.from_pretrained(
        adapter.base_model_name_or_path, revision=adapter.revision, **settings
    )
    return PeftModel.from_pretrained(base, folder).to(PartialState().device)


@torch.no_grad()
def logits_of(network: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    """The logits of a batch, or what LISA has of them, in evaluation mode, in float32 on the CPU."""
    device = next(network.parameters()).device
    batch = {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
    with same_model(network):
        outputs = network.eval()(**batch)
    if "logits" in outputs:
        return outputs.logits.float().cpu()
    return (
        torch.cat([outputs.ce_loss[None], *(mask.flatten() for row in outputs.mask_logits for mask in row)])
        .float()
        .cpu()
    )
