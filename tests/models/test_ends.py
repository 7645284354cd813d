"""An answer ends at the tokenizer's end of sequence and wherever the model's generation stops."""

import json
from types import SimpleNamespace

import pytest
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.support.families import FAMILIES, STRANGERS, checkpoint
from vlm_recipes.models.ends import ends_of_answers


@pytest.mark.parametrize("family", FAMILIES + STRANGERS)
def test_the_ends_of_every_family_are_those_of_its_files(family):
    said = json.loads((checkpoint(family) / "generation_config.json").read_text())["eos_token_id"]
    tokenizer = AutoProcessor.from_pretrained(checkpoint(family)).tokenizer
    network = AutoModelForImageTextToText.from_pretrained(checkpoint(family))
    [end] = tokenizer.convert_tokens_to_ids([tokenizer.eos_token])
    assert ends_of_answers(tokenizer, network) == {end, *(said if isinstance(said, list) else [said])}
    assert ends_of_answers(tokenizer) == {end}


@pytest.mark.parametrize(("stops", "ends"), [(None, {1}), (7, {1, 7}), ([1, 7, 9], {1, 7, 9}), ([], {1})])
def test_one_token_several_or_none(stops, ends):
    network = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=stops))
    assert ends_of_answers(SimpleNamespace(eos_token_id=1), network) == ends
    assert ends_of_answers(SimpleNamespace(eos_token_id=1), SimpleNamespace()) == {1}  # it does not generate


def test_a_tokenizer_without_an_end_leaves_the_model_s():
    network = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=7))
    assert ends_of_answers(SimpleNamespace(eos_token_id=None), network) == {7}
