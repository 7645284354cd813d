"""What recipes state of their own models' trainable parameters, counted on those models' shapes without weights."""

import pytest
import torch
from peft import get_peft_model
from transformers import AutoTokenizer, Blip2ForConditionalGeneration
from trl import get_peft_config

from benchmarks import full_size
from recipes import kvasir_vqa, nutrition_tables, reasonseg, visual_chat, vqa_rad
from tests.support import tiny
from vlm_recipes.callbacks.preflight.lora import check_lora
from vlm_recipes.callbacks.preflight.model import Expected, check_trainable
from vlm_recipes.models.chat import lora_on
from vlm_recipes.models.lisa.config import LisaConfig
from vlm_recipes.models.lisa.loading import with_adapter
from vlm_recipes.models.lisa.model import LisaForConditionalGeneration
from vlm_recipes.models.parts import train_only


def qwen2_vl_7b():
    config = full_size.full_size("Qwen2-VL-7B", AutoTokenizer.from_pretrained(tiny.qwen2_vl()))
    return full_size.random_weights(config, "meta", torch.bfloat16)


def tuned(tune: str):
    network, share = qwen2_vl_7b(), nutrition_tables.TRAINABLE_SHARE[tune]
    if tune != "vision":
        parts = nutrition_tables.LORA[tune]
        return with_lora(network, nutrition_tables.Model(), parts), "lora_", share, parts
    train_only(network, nutrition_tables.WHOLE["vision"])
    return network, "visual", share, nutrition_tables.WHOLE["vision"]


def with_lora(network, model, parts):
    return get_peft_model(network, lora_on(model, parts, network))


def kvasir():
    network = with_lora(qwen2_vl_7b(), kvasir_vqa.Model(), kvasir_vqa.LORA)
    return network, "lora_", kvasir_vqa.TRAINABLE_SHARE, kvasir_vqa.LORA


def chat():
    network = with_lora(qwen2_vl_7b(), visual_chat.Model(), visual_chat.LORA)
    return network, "lora_", visual_chat.TRAINABLE_SHARE, visual_chat.LORA


def blip2_flan_t5_xl():
    with torch.device("meta"):
        network = Blip2ForConditionalGeneration(full_size.blip2_flan_t5_xl())
    return get_peft_model(network, get_peft_config(vqa_rad.Model())), "lora_", vqa_rad.TRAINABLE_SHARE, ()


def lisa_7b(tune: str):
    config = LisaConfig(llava=full_size.llava_7b(), sam=full_size.sam_vit("huge"), seg_token_id=32002)
    with torch.device("meta"):
        network = LisaForConditionalGeneration(config)
        network = with_adapter(network, reasonseg.Model(), tune != "decoder", tune == "lisa")
    return network, "|".join(reasonseg.TRAINS[tune]), reasonseg.TRAINABLE_SHARE[tune], ()


MODELS = {f"nutrition_tables, {tune}": lambda tune=tune: tuned(tune) for tune in ("language", "vision", "joint")}
MODELS |= {"kvasir_vqa": kvasir, "visual_chat": chat, "vqa_rad": blip2_flan_t5_xl}
MODELS |= {f"reasonseg, {tune}": lambda tune=tune: lisa_7b(tune) for tune in reasonseg.TRAINABLE_SHARE}


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_the_preflight_of_the_recipe_s_own_model_finds_what_the_recipe_states(build):
    network, trains, share, parts = build()
    expected = Expected(trains, share, parts=parts)
    found = check_trainable(network, expected)
    assert found.status == "pass"
    assert round(found.numbers["share"], 4) == pytest.approx(share)
    lora = check_lora(network, expected)
    assert lora is None if trains != "lora_" or not parts else lora.status == "pass"
