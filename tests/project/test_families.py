"""The families' tiny checkpoints are what tests take them for: real processors before models that look."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.support.families import FAMILIES, STRANGERS, WRITERS, checkpoint


def inputs(processor, seed: int):
    picture = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    question = "What do you see?"
    if processor.chat_template is None:  # PaliGemma's
        return processor(images=picture, text=f"{processor.image_token}{question}", return_tensors="pt")
    content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    return processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")


@pytest.mark.parametrize("family", FAMILIES + STRANGERS)
def test_the_model_reads_what_its_processor_gives_and_sees_the_picture(family):
    processor = AutoProcessor.from_pretrained(checkpoint(family))
    model = AutoModelForImageTextToText.from_pretrained(checkpoint(family)).eval()
    here, there = inputs(processor, 1), inputs(processor, 2)
    assert torch.equal(here["input_ids"], there["input_ids"]) and here["input_ids"].shape[1] < 120
    with torch.no_grad():
        seen, other = model(**here).logits, model(**there).logits
    assert seen.isfinite().all()
    assert (seen - other)[0, -1].abs().max() > 0.05


@pytest.mark.parametrize("family", FAMILIES + STRANGERS)
def test_any_text_can_be_written_and_an_answer_can_end(family):
    processor = AutoProcessor.from_pretrained(checkpoint(family))
    model = AutoModelForImageTextToText.from_pretrained(checkpoint(family))
    text = "It's naïve: 12,345 «ß» 日本 \U0001f600.\n\nNo  more"
    ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert processor.tokenizer.decode(ids) == text
    ends = model.generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else ends
    names = processor.tokenizer.convert_ids_to_tokens(ends)
    assert len(set(names)) == len(ends) and all(name.startswith("<") for name in names)


def test_the_same_weights_are_written_again(tmp_path):
    WRITERS["qwen3_vl"](tmp_path)
    written = [folder / "model.safetensors" for folder in (tmp_path, checkpoint("qwen3_vl"))]
    assert written[0].read_bytes() == written[1].read_bytes()
