"""The small Qwen2-VL, Qwen2.5-VL and LLaVA load as published ones, train, and write as they do."""

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl.chat_template_utils import get_training_chat_template

from demo.checkpoints.llava import write_llava
from demo.checkpoints.qwen2_vl import SPECIAL_TOKENS, write_qwen2_vl

TEXTS = ["Detect the bounding box of the nutrition table.", "nutrition-table<|box_start|>(14,57),(991,603)<|box_end|>"]


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "llava"])
def test_checkpoints_load_offline_train_and_generate(tmp_path, family):
    if family == "llava":
        write_llava(tmp_path, TEXTS, hidden_size=32, layers=1, image_size=56)
    else:
        write_qwen2_vl(tmp_path, TEXTS, family=family, hidden_size=32, layers=1)
    processor = AutoProcessor.from_pretrained(tmp_path)
    model, loading = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values())
    assert model.config.model_type == family
    assert model.config.image_token_id == processor.image_token_id
    assert model.get_input_embeddings().num_embeddings == len(processor.tokenizer)

    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": TEXTS[0]}]}]
    prompt = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    image = Image.effect_noise((150, 90), 60).convert("RGB")
    batch = processor(text=[prompt], images=[image], return_tensors="pt")
    model(**batch, labels=batch["input_ids"]).loss.backward()
    patches = [parameter for name, parameter in model.named_parameters() if "patch_embed" in name]
    assert all(parameter.grad.abs().sum() > 0 for parameter in patches)
    tokens = model.generate(**batch, max_new_tokens=3, do_sample=False)
    assert tokens.shape[1] > batch["input_ids"].shape[1]


def test_the_same_seed_writes_the_same_weights(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.rand(3)
        write_qwen2_vl(tmp_path / name, TEXTS, hidden_size=16, layers=1, seed=seed)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]
    tokenizers = [(tmp_path / name / "tokenizer.json").read_bytes() for name in "ab"]
    assert tokenizers[0] == tokenizers[1]


def test_the_qwen2_tokenizer_is_as_the_original(tmp_path):
    write_qwen2_vl(tmp_path, TEXTS, hidden_size=16, layers=1)
    processor = AutoProcessor.from_pretrained(tmp_path)
    tokenizer = processor.tokenizer
    assert get_training_chat_template(processor)  # TRL compares the whole template
    ids = tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))
    assert ids == list(range(tokenizer.vocab_size, len(tokenizer)))
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == ("<|im_end|>", "<|endoftext|>", None)
    numbers = [token for token in tokenizer.tokenize(TEXTS[1]) if any(map(str.isdigit, token))]
    assert numbers == [*"1457991603"]  # a token for each digit
    for text in ("Ünïcödé 漢字 🥣 <|im_start|> \n\n x", *TEXTS):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.decode(tokenizer("e\u0301")["input_ids"]) == "é"  # NFC
    assert tokenizer.decode(ids, skip_special_tokens=True) == ""


def test_a_phrase_is_one_token(tmp_path):
    write_qwen2_vl(tmp_path, TEXTS[1:], phrases=TEXTS[:1], hidden_size=16, layers=1)
    tokenizer = AutoProcessor.from_pretrained(tmp_path).tokenizer
    (token,) = tokenizer(TEXTS[0])["input_ids"]
    assert tokenizer.decode(token, skip_special_tokens=True) == TEXTS[0]  # ordinary text, not a control token


def test_the_pixel_budget_bounds_the_grid(tmp_path):
    write_qwen2_vl(tmp_path, TEXTS, hidden_size=16, layers=1, min_pixels=16 * 784, max_pixels=24 * 784)
    image_processor = AutoProcessor.from_pretrained(tmp_path).image_processor
    for size in ((120, 120), (400, 280), (210, 300), (4000, 3000)):
        grid = image_processor(images=[Image.new("RGB", size)], return_tensors="pt")["image_grid_thw"]
        assert 16 <= grid.prod().item() // 4 <= 24


def test_llavas_template_renders_as_the_hubs(tmp_path):
    write_llava(tmp_path, TEXTS, hidden_size=16, layers=1, image_size=28)
    processor = AutoProcessor.from_pretrained(tmp_path)
    question = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "A box."}]}
    again = {"role": "user", "content": [{"type": "text", "text": "Sure?"}]}
    assert (
        processor.apply_chat_template([question, answer, again], tokenize=False, add_generation_prompt=True)
        == "USER: <image>\nWhat is this? ASSISTANT: A box. USER: Sure? ASSISTANT:"
    )
