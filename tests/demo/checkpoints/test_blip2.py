"""The small BLIP-2 loads as a published one, sees its image, and reads any text."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, Blip2ForConditionalGeneration, Blip2Processor

from demo.checkpoints.blip2 import write_blip2
from demo.worlds.radiology.scan import render
from demo.worlds.radiology.scene import Scene

SEED = 5
PROMPT = "Instructions: You are a helpful medical assistant.\nGiven <img>. Q: Is the lesion large or small?\nA:"
TEXTS = [PROMPT, "Yes", "no", "Hyperdense", "Right upper lobe", "5.6cm focal, predominantly hypodense", "X-ray"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("blip2")
    write_blip2(folder, TEXTS, image_size=32, width=32, layers=1, queries=4)
    return folder


def test_texts_survive_the_processor_and_cost_one_token_a_word(checkpoint):
    processor = AutoProcessor.from_pretrained(checkpoint)
    assert type(processor) is Blip2Processor
    tokenizer = processor.tokenizer
    for text in [*TEXTS, "Not seen before: T2-weighted/FLAIR (12 %), µ ≥ 3–4 {x}", "YES", "yes.", "Né"]:
        ids = tokenizer(text).input_ids
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == " ".join(text.split())
    assert len(tokenizer(PROMPT).input_ids) == len(PROMPT.split()) + 1  # and the end of the text
    assert tokenizer.convert_tokens_to_ids("<image>") == len(tokenizer) - 1


def test_the_model_loads_offline_and_sees_the_image(checkpoint, tmp_path):
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint).eval()
    assert type(model) is Blip2ForConditionalGeneration
    assert model.config.image_token_index == processor.tokenizer.convert_tokens_to_ids("<image>")
    labels = processor.tokenizer("Yes", return_tensors="pt").input_ids
    left, right = (
        Scene("CHEST", "X-ray", "PA", seed=1, effusion=side) for side in ("left", "right")
    )  # the same but for one finding
    with torch.no_grad():
        batches = [processor(images=render(scene), text=PROMPT, return_tensors="pt") for scene in (left, right)]
        assert (batches[0].input_ids == model.config.image_token_index).sum() == 4
        logits = [model(**batch, labels=labels).logits for batch in batches]
        assert (logits[0] - logits[1]).abs().max() > 1e-3
        assert model.generate(**batches[0], max_new_tokens=3).shape[0] == 1
        model.save_pretrained(tmp_path)
        again = Blip2ForConditionalGeneration.from_pretrained(tmp_path).eval()
        assert torch.allclose(again(**batches[0], labels=labels).logits, logits[0], atol=1e-6)


def test_queries_differ_and_the_seed_decides_the_weights(checkpoint, tmp_path):
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    for name, seed in (("same", 0), ("other", 1)):
        write_blip2(tmp_path / name, TEXTS, image_size=32, width=32, layers=1, queries=4, seed=seed)
    assert torch.equal(torch.rand(1), expected)  # the caller's random state is untouched
    weights = {path: (path / "model.safetensors").read_bytes() for path in (checkpoint, *tmp_path.iterdir())}
    assert weights[checkpoint] == weights[tmp_path / "same"] != weights[tmp_path / "other"]
    queries = AutoModelForImageTextToText.from_pretrained(checkpoint).query_tokens[0]
    assert torch.pdist(queries).min() > 0.01
