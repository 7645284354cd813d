"""The benchmark that needs a GPU, at a size that does not."""

import math

import torch
from bitsandbytes.nn import Linear4bit
from transformers import LlavaConfig, SamConfig

from benchmarks import lisa
from tests.support import tiny


def test_the_memory_benchmark_trains_the_model_that_the_recipe_trains(capsys):
    llava, sam = (
        config.from_pretrained(folder) for config, folder in zip((LlavaConfig, SamConfig), tiny.lisa(), strict=True)
    )
    llava.image_seq_length = 4
    torch.manual_seed(0)
    network = lisa.build(llava, sam, "cpu", torch.float32)
    quantised = {name for name, module in network.named_modules() if isinstance(module, Linear4bit)}
    assert any("vision_tower" in name for name in quantised) and any(
        "sam.vision_encoder" in name for name in quantised
    )
    assert not [name for name in quantised if "mask_decoder" in name or "lm_head" in name]
    assert not [name for name, parameter in network.named_parameters() if parameter.is_meta]
    assert not [name for name, buffer in network.named_buffers() if buffer.is_meta]
    assert lisa.seconds_per_sample(network, "cpu", (48, 64), samples=2, warm_up=1) > 0
    with torch.no_grad():
        assert math.isfinite(network(**lisa.batch_of_one(network, "cpu", (48, 64))).loss)


def test_without_a_gpu_it_says_so_and_ends_well(capsys):
    if not torch.cuda.is_available():
        lisa.main()
        assert "no GPU" in capsys.readouterr().out


def test_the_full_size_configurations_are_those_of_the_checkpoints_named():
    with torch.device("meta"):
        from transformers import LlavaForConditionalGeneration, SamModel

        llava, sam = LlavaForConditionalGeneration(lisa.llava_7b()), SamModel(lisa.sam_vit_base())
    assert sum(p.numel() for p in llava.parameters()) == 7_063_427_072  # "7.06B params" on the Hub, 7,063,427,072
    assert 93_700_000 < sum(p.numel() for p in sam.parameters()) < 93_800_000  # "93.7M params" on the Hub
