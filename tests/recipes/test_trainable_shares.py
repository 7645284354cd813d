"""What recipes state of their own models' trainable parameters, counted on those models' shapes without weights."""

import pytest
import torch
from peft import get_peft_model
from transformers import AutoTokenizer, Blip2ForConditionalGeneration
from trl import get_peft_config

from benchmarks import full_size
from recipes import kvasir_vqa, nutrition_tables, reasonseg, vqa_rad
from tests.support import tiny
from vlm_recipes.callbacks.preflight.model import check_trainable
from vlm_recipes.models.lisa.config import LisaConfig
from vlm_recipes.models.lisa.model import LisaForConditionalGeneration


def adapted(network, model):
    model.use_peft, model.load_in_4bit, model.load_in_8bit = True, False, False
    return get_peft_model(network, get_peft_config(model))


def qwen2_vl_7b():
    config = full_size.full_size("Qwen2-VL-7B", AutoTokenizer.from_pretrained(tiny.qwen2_vl()))
    return full_size.random_weights(config, "meta", torch.bfloat16)


def tuned(tune: str):
    model, network = nutrition_tables.Model(tune=tune), qwen2_vl_7b()
    model.lora_target_modules = nutrition_tables.LANGUAGE
    if tune == "joint":
        model.lora_target_modules += f"|{nutrition_tables.VISION}"
    if tune != "vision":
        return adapted(network, model), nutrition_tables.expected(model)
    network.requires_grad_(False)
    network.model.visual.requires_grad_(True)
    return network, nutrition_tables.expected(model)


def kvasir():
    model = kvasir_vqa.Model()
    return adapted(qwen2_vl_7b(), model), kvasir_vqa.expected(model)


def blip2_flan_t5_xl():
    model = vqa_rad.Model()
    with torch.device("meta"):
        network = Blip2ForConditionalGeneration(full_size.blip2_flan_t5_xl())
    return adapted(network, model), vqa_rad.expected(model)


def lisa_7b():
    model = reasonseg.Model()
    config = LisaConfig(llava=full_size.llava_7b(), sam=full_size.sam_vit("huge"), seg_token_id=32002)
    with torch.device("meta"):
        network = adapted(LisaForConditionalGeneration(config), model)
    return network, reasonseg.expected(model, network)


MODELS = {f"nutrition_tables, {tune}": lambda tune=tune: tuned(tune) for tune in ("language", "vision", "joint")}
MODELS |= {"kvasir_vqa": kvasir, "vqa_rad": blip2_flan_t5_xl, "reasonseg": lisa_7b}


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_the_preflight_of_the_recipe_s_own_model_finds_what_the_recipe_states(build):
    network, expected = build()
    found = check_trainable(network, expected)
    assert found.status == "pass" and expected.share is not None
    assert round(found.numbers["share"], 4) == pytest.approx(expected.share)
