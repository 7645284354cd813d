"""Chat models of every family: LoRA known before the weights are read, adapters trained on, areas of pictures."""

import json
from dataclasses import replace

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor, Qwen2VLForConditionalGeneration

from tests.support.families import FAMILIES, STRANGERS, checkpoint
from vlm_recipes.models.chat import (
    ChatModel,
    PixelBudget,
    budget_of,
    has_budget,
    load_chat_model,
    lora_on,
    outline_of,
    set_pixel_budget,
)
from vlm_recipes.models.lora import layers_of
from vlm_recipes.models.weights import CheckpointError, without_weights

BUDGET = PixelBudget(4 * 28 * 28, 100 * 28 * 28)
AREAS = [family for family in FAMILIES if family.startswith("qwen") or family == "glm4v"]
LANGUAGE, BOTH = ("language",), ("language", "vision")
# As recipes had them until chat.py, for Qwen-VL.
EARLIER = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
EARLIER_BOTH = EARLIER + r"|.*visual\.blocks.*\.(qkv|attn\.proj|fc1|fc2)"
OTHERS = [family for family in FAMILIES + STRANGERS if family != "paligemma"]  # which has no chat template


def model_of(name, **settings) -> ChatModel:
    return ChatModel(str(name), **{"dtype": "float32", "load_in_4bit": False} | settings)


def test_every_model_that_has_no_chat_template_is_one_line(tmp_path):
    for family in {*FAMILIES} - {*OTHERS}:
        with pytest.raises(CheckpointError, match="has no chat template, and this recipe is for chat models"):
            load_chat_model(model_of(checkpoint(family)), BUDGET, str(tmp_path))


@pytest.mark.parametrize("family", OTHERS)
def test_lora_is_known_from_the_configuration_alone_and_is_that_of_the_model(family, tmp_path):
    model = model_of(checkpoint(family))
    outline = outline_of(model)
    assert {weight.device.type for weight in outline.parameters()} == {"meta"}
    network, _ = load_chat_model(model, BUDGET, str(tmp_path), BOTH)
    assert lora_on(model, BOTH, outline).target_modules == lora_on(model, BOTH, network).target_modules
    with without_weights():
        load_chat_model(model, BUDGET, str(tmp_path), BOTH)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_5", "ovis2"])
def test_an_adapter_trains_on_where_its_parts_are_asked_for_again(family, tmp_path, capsys):
    model = model_of(checkpoint(family))
    network, processor = load_chat_model(model, BUDGET, str(tmp_path / "out"), BOTH)
    get_peft_model(network, lora_on(model, BOTH, network)).save_pretrained(tmp_path / "first")
    processor.save_pretrained(tmp_path / "first")
    again = replace(model, model_name_or_path=str(tmp_path / "first"))
    network, _ = load_chat_model(again, BUDGET, str(tmp_path / "second"), BOTH)
    assert isinstance(network, PeftModel) and any(weight.requires_grad for weight in network.parameters())
    assert lora_on(again, BOTH, network) is None and not (tmp_path / "second").exists()
    # On another part it is another adapter.
    network, _ = load_chat_model(again, BUDGET, str(tmp_path / "third"), LANGUAGE)
    assert not isinstance(network, PeftModel) and (tmp_path / "third" / "merged_base").is_dir()
    assert "merged into" in capsys.readouterr().out


@pytest.mark.parametrize(("parts", "layers"), [(LANGUAGE, EARLIER), (BOTH, EARLIER_BOTH)])
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_an_adapter_of_an_earlier_version_trains_on_as_it_began(family, parts, layers, tmp_path):
    base = AutoModelForImageTextToText.from_pretrained(checkpoint(family))
    adapter = LoraConfig(target_modules=layers, r=4, lora_alpha=32, task_type="CAUSAL_LM")
    get_peft_model(base, adapter).save_pretrained(tmp_path / "first")
    AutoProcessor.from_pretrained(checkpoint(family)).save_pretrained(tmp_path / "first")
    model = model_of(tmp_path / "first", lora_r=4, lora_alpha=32)
    network, _ = load_chat_model(model, BUDGET, str(tmp_path / "out"), parts)
    assert isinstance(network, PeftModel) and network.active_peft_config.target_modules == layers
    assert not (tmp_path / "out").exists()
    other = LANGUAGE if parts == BOTH else BOTH
    network, _ = load_chat_model(model, BUDGET, str(tmp_path / "out"), other)
    assert not isinstance(network, PeftModel)
    assert lora_on(model, other, network).target_modules == layers_of(outline_of(model), other)


def test_a_model_that_does_not_name_its_parts_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(Qwen2VLForConditionalGeneration, "get_encoder", lambda self, modality=None: self)
    model = model_of(checkpoint("qwen2_vl"))
    for parts, advice in (({"lora": LANGUAGE}, "--lora_target_modules"), ({"whole": ("vision",)}, "train all")):
        with pytest.raises(CheckpointError, match=f"^this qwen2_vl does not say which .* are: {advice}"):
            load_chat_model(model, BUDGET, str(tmp_path), **parts)
    network, _ = load_chat_model(model, BUDGET, str(tmp_path), whole=())
    assert all(weight.requires_grad for weight in network.parameters())


def test_layers_that_the_user_names_are_taken_as_they_are(tmp_path):
    model = model_of(checkpoint("internvl"), lora_target_modules=["q_proj", "v_proj"])
    network, _ = load_chat_model(model, BUDGET, str(tmp_path), LANGUAGE)
    assert lora_on(model, LANGUAGE, network).target_modules == {"q_proj", "v_proj"}
    assert lora_on(model, (), network) is None


@pytest.mark.parametrize("family", ["qwen2_vl", "llava", "ovis2"])
def test_only_the_language_model_is_loaded_in_four_bits(family, tmp_path):
    network, _ = load_chat_model(model_of(checkpoint(family), load_in_4bit=True), BUDGET, str(tmp_path), LANGUAGE)
    layers = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    quantised = {name for name, layer in layers.items() if isinstance(layer, Linear4bit)}
    assert quantised == {name for name in layers if name.startswith("model.language_model.")} != set(layers)
    plain = outline_of(model_of(checkpoint(family)))
    assert lora_on(model_of("x"), LANGUAGE, network).target_modules == layers_of(plain, LANGUAGE)


def test_what_lora_leaves_out_of_a_mixture_of_experts_is_one_line(tmp_path, capsys):
    network, _ = load_chat_model(model_of(checkpoint("qwen3_vl_moe")), BUDGET, str(tmp_path), LANGUAGE)
    fused = sum(weight.numel() for name, weight in network.named_parameters() if ".experts." in name)
    share = f"{fused / sum(weight.numel() for weight in network.parameters()):.0%}"
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("LoRA")]
    assert line == (
        f"LoRA is for linear layers: {share} of the weights, fused as "
        "model.language_model.layers.0.mlp.experts.down_proj is, stay as they are"
    )
    for family, lora in (("qwen3_vl_moe", ()), ("qwen3_vl", LANGUAGE)):
        load_chat_model(model_of(checkpoint(family)), BUDGET, str(tmp_path), lora)
    assert "LoRA" not in capsys.readouterr().out


# --- areas


@pytest.mark.parametrize("family", OTHERS)
def test_a_budget_does_nothing_in_one_line_where_the_processor_has_none(family, tmp_path, capsys):
    _, processor = load_chat_model(model_of(checkpoint(family)), BUDGET, str(tmp_path))
    said = capsys.readouterr().out
    assert ("resizes pictures in its own way" in said) == (family not in AREAS) == (not has_budget(processor))
    assert said.count("\n") <= 1


@pytest.mark.parametrize("family", AREAS)
@pytest.mark.parametrize("largest", [9, 64, 400])
def test_every_picture_gets_an_area_within_the_budget(family, largest):
    """Each side is a multiple of a token's, and within half a token of what the area asks for."""
    processor = AutoProcessor.from_pretrained(checkpoint(family))
    image_processor = processor.image_processor
    token = image_processor.patch_size * image_processor.merge_size
    least, most = 4 * token**2, largest * token**2
    set_pixel_budget(processor, least, most)
    for width, height in ((10, 10), (900, 500), (3000, 400), (300, 300)):
        grid = image_processor(Image.new("RGB", (width, height)), return_tensors="pt")["image_grid_thw"][0]
        area = int(grid.prod()) * image_processor.patch_size**2
        assert least <= area <= most
        wanted = min(max(width * height, least), most)
        assert area > 0.5 * wanted  # rounded down to whole tokens, and no less: GLM-4V counts an image twice


def test_a_processor_with_its_own_limits_is_refused(monkeypatch):
    processor = AutoProcessor.from_pretrained(checkpoint("qwen2_vl"))
    monkeypatch.setattr(type(processor.image_processor), "__call__", lambda *a, **k: {"image_grid_thw": GRID})
    with pytest.raises(ValueError, match="more than max_pixels=3136"):
        set_pixel_budget(processor, 784, 3136)


GRID = torch.tensor([[1, 64, 64]])


# --- libraries


def test_a_library_that_a_model_needs_is_named_in_one_line(tmp_path, monkeypatch):
    needs = "\nSmolVLMProcessor requires the num2words library but it was not found.\nInstall it.\n"

    def missing(*arguments, **settings):
        raise ImportError(needs)

    monkeypatch.setattr(AutoProcessor, "from_pretrained", missing)
    with pytest.raises(CheckpointError, match="cannot load .*: SmolVLMProcessor requires the num2words") as e:
        load_chat_model(model_of(checkpoint("qwen2_vl")), BUDGET, str(tmp_path))
    assert "\n" not in str(e.value)


def test_the_adapter_s_own_configuration_is_short_enough_to_read(tmp_path):
    model = model_of(checkpoint("qwen2_vl"))
    network, _ = load_chat_model(model, BUDGET, str(tmp_path), BOTH)
    get_peft_model(network, lora_on(model, BOTH, network)).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"] == (
        r"model\.language_model\.layers\.\d+\.(self_attn\.q_proj|self_attn\.k_proj|self_attn\.v_proj|"
        r"self_attn\.o_proj|mlp\.gate_proj|mlp\.up_proj|mlp\.down_proj)|"
        r"model\.visual\.blocks\.\d+\.(attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)|"
        r"(model\.visual\.merger\.mlp\.0|model\.visual\.merger\.mlp\.2)"
    )


# --- what would have no effect


def test_a_module_to_train_whole_that_there_is_not_is_refused_by_its_name(tmp_path):
    """PEFT passes over it, and writes it into the adapter's configuration all the same."""
    model = model_of(checkpoint("qwen2_vl"), lora_modules_to_save=["lm_head", "embed_token"])
    with pytest.raises(CheckpointError, match="^--lora_modules_to_save embed_token would train nothing: no module"):
        load_chat_model(model, BUDGET, str(tmp_path), LANGUAGE)
    load_chat_model(replace(model, lora_modules_to_save=["lm_head", "embed_tokens"]), BUDGET, str(tmp_path), LANGUAGE)


@pytest.mark.parametrize(
    "asked", [{"lora_modules_to_save": ["lm_head"]}, {"use_dora": True}, {"lora_alpha": 7}], ids=str
)
def test_lora_s_settings_are_refused_where_what_trains_trains_whole(asked, tmp_path):
    model = ChatModel(str(checkpoint("qwen2_vl")), dtype="float32", load_in_4bit=False, **asked)
    with pytest.raises(CheckpointError, match=f"^--{next(iter(asked))} .* has no effect: .* without LoRA$"):
        load_chat_model(model, BUDGET, str(tmp_path), (), ("vision",))
    load_chat_model(model, BUDGET, None)  # to answer, they are those that it was trained with


def test_to_train_without_lora_is_refused_where_what_trains_is_lora(tmp_path):
    model = model_of(checkpoint("qwen2_vl"), use_peft=False)
    with pytest.raises(CheckpointError, match="^--use_peft False has no effect: what trains here is LoRA$"):
        load_chat_model(model, BUDGET, str(tmp_path), LANGUAGE)
    load_chat_model(model, BUDGET, str(tmp_path), (), ("vision",))


def test_pixels_that_would_make_small_pictures_the_larger_ones_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="^--min_pixels 200704 is more than --max_pixels 50176"):
        load_chat_model(model_of(checkpoint("qwen2_vl")), PixelBudget(max_pixels=50176), str(tmp_path), LANGUAGE)


def test_eight_bits_that_are_asked_for_are_those_on_a_small_card(tmp_path, monkeypatch):
    monkeypatch.setattr("vlm_recipes.models.chat.small_card", lambda: True)
    model = ChatModel(str(checkpoint("qwen2_vl")), dtype="float32", load_in_8bit=True)
    network, _ = load_chat_model(model, BUDGET, str(tmp_path), LANGUAGE)
    assert network.is_loaded_in_8bit and not getattr(network, "is_loaded_in_4bit", False)


@pytest.mark.parametrize("family", ["qwen2_vl", "glm4v"])
def test_a_trained_model_answers_with_the_pixels_that_it_was_trained_with_and_says_so(family, tmp_path, capsys):
    trained = PixelBudget(8 * 28 * 28, 50 * 28 * 28)
    network, processor = load_chat_model(model_of(checkpoint(family)), trained, str(tmp_path))
    for part in (network, processor):
        part.save_pretrained(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    assert budget_of(processor) == (6272, 39200)
    capsys.readouterr()
    for asked in (trained, PixelBudget()):
        _, again = load_chat_model(model_of(tmp_path), asked, None)
        assert again.image_processor.size == processor.image_processor.size
    said = f"pictures are shown as {tmp_path} was trained: --min_pixels 6272 --max_pixels 39200\n"
    assert capsys.readouterr().out == said  # once: of what was asked for nothing is to be said
    with pytest.raises(CheckpointError, match=f"^--max_pixels 9999 has no effect: {tmp_path} is shown"):
        load_chat_model(model_of(tmp_path), PixelBudget(max_pixels=9999), None)
