"""What recipes state of their own models' trainable parameters, counted on those models' shapes without weights."""

import pytest
import torch
from peft import get_peft_model
from transformers import AutoTokenizer, Blip2Config, Blip2ForConditionalGeneration, LlavaConfig, SamConfig
from trl import get_peft_config

from benchmarks.full_size import full_size, random_weights
from recipes import kvasir_vqa, nutrition_tables, reasonseg, vqa_rad
from tests.support import tiny
from vlm_recipes.callbacks.preflight.model import check_trainable
from vlm_recipes.models.lisa.config import LisaConfig
from vlm_recipes.models.lisa.model import LisaForConditionalGeneration


def adapted(network, model):
    model.use_peft, model.load_in_4bit, model.load_in_8bit = True, False, False
    return get_peft_model(network, get_peft_config(model))


def qwen2_vl_7b():
    return random_weights(
        full_size("Qwen2-VL-7B", AutoTokenizer.from_pretrained(tiny.qwen2_vl())), "meta", torch.bfloat16
    )


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
    vision = {"hidden_size": 1408, "intermediate_size": 6144, "num_hidden_layers": 39, "num_attention_heads": 16}
    text = {"d_model": 2048, "d_ff": 5120, "num_layers": 24, "num_decoder_layers": 24, "num_heads": 32}
    text |= {"model_type": "t5", "d_kv": 64, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    with torch.device("meta"):
        network = Blip2ForConditionalGeneration(Blip2Config(vision_config=vision, text_config=text))
    return adapted(network, model), vqa_rad.expected(model)


def lisa_7b():
    model = reasonseg.Model()
    clip = {"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "patch_size": 14}
    clip |= {"num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336, "projection_dim": 768}
    llama = {"model_type": "llama", "vocab_size": 32064}  # LLaMA's own sizes are the 7B's
    sam = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "mlp_dim": 5120}
    config = LisaConfig(
        llava=LlavaConfig(vision_config=clip, text_config=llama), sam=SamConfig(vision_config=sam), seg_token_id=32002
    )
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
