"""The models at full size, counted without weights, and random weights as a checkpoint's are loaded."""

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from transformers import (
    AutoModelForImageTextToText,
    Blip2ForConditionalGeneration,
    BlipForQuestionAnswering,
    GPT2LMHeadModel,
    LlavaForConditionalGeneration,
    SamModel,
    VideoMAEModel,
)
from trl import ModelConfig

from benchmarks import full_size
from recipes import reasonseg
from tests.support import tiny
from vlm_recipes.models import blip2
from vlm_recipes.models.checkpoints import load_weights, weight_settings
from vlm_recipes.models.lisa import loading

VIDEO, BLIP, GPT2 = full_size.surgvivqa_parts()
TIED = 32128 * 2048  # Flan-T5's output head, on the Hub beside its embeddings
PUBLISHED = {  # parameters on the Hub, where it shows them to the last digit
    "LLaVA-1.5-7B": (LlavaForConditionalGeneration, full_size.llava_7b(), 7_063_427_072),
    "BLIP-2 Flan-T5-XL": (Blip2ForConditionalGeneration, full_size.blip2_flan_t5_xl(), 3_942_446_592 - TIED),
    "GPT-2": (GPT2LMHeadModel, GPT2, 124_439_808),
}
ROUNDED = {  # in millions
    "sam-vit-base": (SamModel, full_size.sam_vit("base"), 93.7),
    "sam-vit-huge": (SamModel, full_size.sam_vit("huge"), 641.1),
    "VideoMAE-base": (VideoMAEModel, VIDEO, 86.2),
    "blip-vqa-base": (BlipForQuestionAnswering, BLIP, 384.7 - 30524 * 768 / 1e6),  # a head of its own, as above
}


def parameters(model_class, config) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in model_class(config).parameters())


@pytest.mark.parametrize("model_class, config, published", PUBLISHED.values(), ids=PUBLISHED)
def test_the_configuration_is_that_of_the_checkpoint_named(model_class, config, published):
    assert parameters(model_class, config) == published


@pytest.mark.parametrize("model_class, config, published", ROUNDED.values(), ids=ROUNDED)
def test_the_configuration_is_as_large_as_the_checkpoint_named(model_class, config, published):
    assert parameters(model_class, config) / 1e6 == pytest.approx(published, abs=0.06)


@pytest.mark.parametrize(
    "model_class, folder, bits",
    [
        (AutoModelForImageTextToText, tiny.qwen2_vl, {}),
        (AutoModelForImageTextToText, tiny.qwen2_vl, {"load_in_4bit": True}),
        (blip2.Blip2ForConditionalGeneration, tiny.blip2, {"load_in_8bit": True}),
    ],
)
def test_random_weights_are_loaded_as_a_checkpoint_s(model_class, folder, bits):
    """Under the same names, in the same formats and kinds of layers, with the same buffers; and other numbers."""
    settings = weight_settings(ModelConfig(dtype="bfloat16", **bits), None)
    random, real = (load(model_class, str(folder()), **settings) for load in (full_size.load_random, load_weights))
    assert type(random) is type(real) and random.name_or_path == real.name_or_path
    kinds = [{name: type(module) for name, module in network.named_modules()} for network in (random, real)]
    assert kinds[0] == kinds[1]
    weights = [dict(network.named_parameters()) for network in (random, real)]
    seen = [{k: (w.shape, w.dtype, w.device, w.requires_grad) for k, w in each.items()} for each in weights]
    assert seen[0] == seen[1]
    assert not all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
    for (name, buffer), (_, other) in zip(random.named_buffers(), real.named_buffers(), strict=True):
        assert torch.equal(buffer, other) or "positional" in name


def test_a_normalisation_starts_at_one_and_a_bias_at_zero():
    network = full_size.load_random(AutoModelForImageTextToText, str(tiny.qwen2_vl()), dtype="float32")
    weights = dict(network.named_parameters())
    norms = [weight for name, weight in weights.items() if name.endswith("norm.weight")]
    biases = [weight for name, weight in weights.items() if name.endswith("bias")]
    matrices = [weight for weight in weights.values() if weight.ndim > 1]
    assert norms and all((weight == 1).all() for weight in norms)
    assert biases and all((weight == 0).all() for weight in biases)
    drawn = torch.cat([weight.flatten() for weight in matrices])
    assert drawn.std().item() == pytest.approx(full_size.SPREAD, rel=0.02)


def test_lisa_is_quantised_where_the_recipe_says_so(monkeypatch):
    llava, sam = map(str, tiny.lisa())
    monkeypatch.setattr(loading, "load_weights", full_size.load_random)
    model = reasonseg.Model(model_name_or_path=llava, sam_name_or_path=sam, dtype="float32", load_in_4bit=True)
    network, _ = reasonseg.load(reasonseg.Data(), model, output_dir="out")
    quantised = {name for name, module in network.named_modules() if isinstance(module, Linear4bit)}
    assert any("vision_tower" in name for name in quantised)
    assert any("sam.vision_encoder" in name for name in quantised)
    assert not [name for name in quantised if "mask_decoder" in name or "lm_head" in name]
    assert not [name for name, parameter in network.named_parameters() if parameter.is_meta]
    assert not [name for name, buffer in network.named_buffers() if buffer.is_meta]
    assert not any(isinstance(module, Linear8bitLt) for module in network.modules())
