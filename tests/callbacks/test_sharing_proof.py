from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import SFTConfig, SFTTrainer

from tests.support.families import checkpoint
from vlm_recipes.callbacks import SharedImageCallback
from vlm_recipes.callbacks.shared_image import AttentionError
from vlm_recipes.callbacks.sharing_proof import differing
from vlm_recipes.collators import SharedImageCollator

RIGHT = ["qwen2_vl", "qwen3_vl_moe", "glm4v", "llava_next", "idefics3", "internvl", "ovis2", "deepseek_vl", "pixtral"]
STATE = ["qwen3_5", "lfm2_vl"]  # whose layers carry state from token to token: no processor tells


def load(name: str, dtype: torch.dtype = torch.float32):
    network = AutoModelForImageTextToText.from_pretrained(checkpoint(name), attn_implementation="sdpa", dtype=dtype)
    return network, SharedImageCollator(AutoProcessor.from_pretrained(checkpoint(name)))


def tried(network, collator: SharedImageCollator) -> str:
    arguments = SimpleNamespace(bf16=False, fp16=False)
    trainer = SimpleNamespace(model=network, args=arguments, compute_loss_context_manager=nullcontext)
    return differing(trainer, *collator.both_ways())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", RIGHT)
def test_a_model_that_reads_shared_images_as_separate_ones_passes_and_stays_as_it_was(name, dtype):
    network, collator = load(name, dtype)
    network.train()
    network.get_encoder(modality="image").eval()
    modes = [module.training for module in network.modules()]
    assert tried(network, collator) == ""
    assert [module.training for module in network.modules()] == modes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", STATE)
def test_a_model_whose_layers_carry_state_does_not(name, dtype):
    assert "of their spread" in tried(*load(name, dtype))


def test_positions_of_another_kind_of_model_do_not(monkeypatch):
    network, collator = load("qwen2_vl")
    collator.has_grid = False  # as for a model without a multimodal rotary embedding
    assert "of their spread" in tried(network, collator)


def test_a_trainer_ends_before_its_first_step_in_one_line(tmp_path):
    network, collator = load("qwen3_5")
    rows = [{"image_id": "x", "images": [], "prompt": "Is it?", "completion": "yes"}] * 2
    arguments = SFTConfig(
        tmp_path, max_steps=1, report_to="none", remove_unused_columns=False, use_cpu=True, bf16=False, max_length=None
    )
    arguments.dataset_kwargs = {"skip_prepare_dataset": True}

    trainer = SFTTrainer(
        network,
        arguments,
        data_collator=collator,
        train_dataset=Dataset.from_list(rows),
        processing_class=collator.processor,
    )
    trainer.add_callback(SharedImageCallback(trainer))
    with pytest.raises(
        AttentionError, match="^qwen3_5 cannot share an image, its logits are off by .*one question each$"
    ):
        trainer.train()
    assert trainer.state.global_step == 0
