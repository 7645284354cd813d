"""Language model, vision tower and what lies between them are found in every family, and only what is named trains."""

import re
from collections import Counter
from copy import deepcopy
from functools import cache

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    Blip2ForConditionalGeneration,
    LlamaForCausalLM,
)

from tests.support import tiny
from tests.support.families import FAMILIES, STRANGERS, checkpoint
from vlm_recipes.callbacks.grad_norm import parameters_by_group
from vlm_recipes.models.lora import layers_of
from vlm_recipes.models.parts import fused_layers, linear_layers, parts_of, train_only

# Where `get_decoder` and `get_encoder(modality="image")` of transformers 5.23 point, read in its sources.
NAMES = {
    "model.language_model model.visual": ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "glm4v"],
    "model.text_model model.vision_model": ["smolvlm", "idefics3"],
    "model.language_model model.vision_model": ["mllama", "deepseek_vl"],
}
OF_LLAVA = "model.language_model model.vision_tower"  # all others
Q_PROJ = LoraConfig(target_modules=["q_proj"])


@cache
def loaded(family: str):
    return AutoModelForImageTextToText.from_pretrained(checkpoint(family), dtype="float32")


def load(family: str):
    return deepcopy(loaded(family))


def shown(family: str) -> dict[str, torch.Tensor]:
    """A picture and a question, as the family's own processor gives them."""
    processor = AutoProcessor.from_pretrained(checkpoint(family))
    picture = Image.effect_mandelbrot((64, 48), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    if processor.chat_template is None:
        inputs = processor(text=f"{processor.image_token}What is it?", images=picture, return_tensors="pt")
    else:
        said = [{"type": "image", "image": picture}, {"type": "text", "text": "What is it?"}]
        messages = [{"role": "user", "content": said}]
        inputs = processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")
    labels = inputs["input_ids"].clone()
    labels[:, :-3] = -100  # Mllama's image token is beyond its head's vocabulary
    return {**inputs, "labels": labels}


def on_meta(family: str, **settings):
    config = AutoConfig.for_model(family, **settings)
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


@pytest.mark.parametrize("family", FAMILIES + STRANGERS)
def test_the_parts_of_every_family_are_those_that_transformers_names(family):
    network = load(family)
    parts = parts_of(network)
    expected = next((names for names, families in NAMES.items() if family in families), OF_LLAVA)
    assert f"{parts.language} {parts.vision}" == expected and parts.head == "lm_head"
    for embeddings in (network.get_input_embeddings(), network.get_output_embeddings()):
        [name] = [name for name, module in network.named_modules() if module is embeddings]
        assert parts.part_of(f"{name}.weight") == "language"
    # What reads the pixels, a layer of convolution or a linear one on patches, is the tower's.
    seen = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
            module.register_forward_pre_hook(lambda module, inputs, name=name: seen.append(name))
    network(**shown(family))
    assert parts.part_of(seen[0]) == "vision" and "patch" in seen[0]


@pytest.mark.parametrize("family", FAMILIES + STRANGERS)
def test_lora_is_on_all_linear_layers_of_its_parts_and_comes_back_so(family, tmp_path):
    """The oracle is a walk over the modules of the two parts that transformers names."""
    for names in (("language",), ("vision",), ("language", "vision")):
        network = load(family)
        head = network.get_output_embeddings()
        roots = {"language": network.get_decoder(), "vision": network.get_encoder(modality="image")}
        inside = {module for part in names for module in roots[part].modules()} - {head}
        expected = {name for name, m in network.named_modules() if m in inside and type(m) is nn.Linear}
        assert len(expected) > 4
        pattern = layers_of(network, names)
        assert pattern == layers_of(load(family), names) and len(pattern) < 600
        network = get_peft_model(network, LoraConfig(target_modules=pattern, r=2))
        assert with_lora(network) == expected
        network.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(load(family), tmp_path)
    assert with_lora(again) == expected
    parts = parts_of(again)
    for part, tower in (("language", parts.language), ("vision", parts.vision)):
        layers = linear_layers(again, tower)
        assert all(layers.values()) and len(layers) == len([n for n in expected if parts.part_of(n_of(n)) == part])


def n_of(name: str) -> str:
    return f"base_model.model.{name}"


def with_lora(network: PeftModel) -> set[str]:
    return {n.removeprefix("base_model.model.") for n, m in network.named_modules() if hasattr(m, "lora_A")}


TUNES = {"language": ("language",), "joint": ("language", "vision")}
WHOLE = {"vision": ("vision", "projector"), "all": ()}


@pytest.mark.parametrize("family", FAMILIES + STRANGERS)
def test_every_part_that_is_named_gets_a_gradient_and_no_other_trains(family):
    batch = shown(family)
    for tune in (*TUNES, *WHOLE):
        network = load(family)
        if tune in TUNES:
            adapter = LoraConfig(target_modules=layers_of(network, TUNES[tune]), init_lora_weights=False, r=2)
            network = get_peft_model(network, adapter)
        else:
            train_only(network, WHOLE[tune])
        parts = parts_of(network)
        network(**batch).loss.backward()
        gradients = Counter()
        for name, weight in network.named_parameters():
            assert weight.requires_grad or weight.grad is None
            if weight.requires_grad:
                gradients[parts.part_of(name)] += 0.0 if weight.grad is None else weight.grad.abs().sum().item()
        expected = TUNES.get(tune) or WHOLE[tune] or ("language", "vision", "projector")
        between = any(parts.part_of(name) == "projector" for name, _ in network.named_parameters())
        assert set(gradients) == {*expected} - ({"projector"} if not between else set())
        assert all(gradients.values())
        groups = {"lora_a", "lora_b"} if tune in TUNES else {*expected, "projector"}
        assert set(parameters_by_group(network)) == groups


def test_groups_of_gradients_are_parts_whatever_these_are_called():
    network = load("ovis2")
    groups = {group: set(weights) for group, weights in parameters_by_group(network).items()}
    assert groups["projector"] == {"model.visual_embeddings_table.weight"}
    assert groups["vision"] == {n for n, _ in network.named_parameters() if n.startswith("model.vision_tower.")}
    merger = {name for name in parameters_by_group(load("qwen3_vl"))["projector"]}
    assert merger == {n for n, _ in load("qwen3_vl").named_parameters() if "merger" in n}  # inside the tower


def test_what_is_linear_but_not_called_as_such_gets_no_lora():
    text = dict(num_hidden_layers=1, hidden_size=64, intermediate_size=64, vocab_size=64, num_local_experts=2)
    network = on_meta("llama4", text_config=text, vision_config={"num_hidden_layers": 1})
    layers = linear_layers(network, "language_model")
    assert "language_model.model.layers.0.self_attn.q_proj" in layers and "language_model.lm_head" not in layers
    router = network.get_submodule("language_model.model.layers.0.feed_forward.router")
    assert isinstance(router, nn.Linear) and not any("router" in name for name in layers)  # it returns two tensors
    tower = on_meta("gemma3", vision_config={"num_hidden_layers": 1}, text_config={"num_hidden_layers": 1})
    layers = linear_layers(tower, "model.vision_tower")  # with SigLIP's head, whose attention is torch's
    assert "model.vision_tower.head.mlp.fc1" in layers and "model.vision_tower.head.attention.out_proj" not in layers


def test_fused_experts_are_named():
    network = load("qwen3_vl_moe")
    fused = fused_layers(network, "model.language_model")
    assert fused == {n: w.numel() for n, w in network.named_parameters() if re.search(r"experts\.\w+_proj$", n)} != {}
    assert fused_layers(load("qwen3_vl"), "model.language_model") == {}


def test_a_model_that_does_not_name_both_has_no_parts():
    text = AutoConfig.for_model("llama", num_hidden_layers=1, hidden_size=64, intermediate_size=8, vocab_size=8)
    for network in (nn.Linear(2, 2), LlamaForCausalLM(text), get_peft_model(LlamaForCausalLM(text), Q_PROJ)):
        assert parts_of(network) is None
        with pytest.raises(ValueError, match="does not say what its language model and its vision tower are"):
            train_only(network, ["vision"])
    train_only(network, ())
    assert all(weight.requires_grad for weight in network.parameters())


def test_what_lies_between_is_told_apart_by_where_it_is():
    parts = parts_of(Blip2ForConditionalGeneration.from_pretrained(tiny.blip2()))
    for name in ("qformer.encoder.layer.0.x", "query_tokens", "language_projection.weight"):
        assert parts.part_of(name) == parts.kind_of(name) == "projector" and parts.tower_of(name) == name.split(".")[0]
    parts = parts_of(load("qwen2_vl"))
    assert parts.part_of("model.visual.merger.ln_q.weight") == "vision"
    assert parts.kind_of("model.visual.merger.ln_q.weight") == "projector"
    assert parts.tower_of("model.visual.merger.ln_q.weight") == "model.visual.merger"
    assert parts.tower_of("model.visual.blocks.0.norm1.weight") == "model.visual"
