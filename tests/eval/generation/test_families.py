"""Closed sets of answers with tiny checkpoints of every family, against the loss that training has of each answer."""

from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.support.families import FAMILIES, STRANGERS, checkpoint
from vlm_recipes.collators import ChatCollator, SharedImageCollator
from vlm_recipes.eval.generation.agreement import SharingError
from vlm_recipes.eval.generation.constraints import Constraint
from vlm_recipes.eval.generation.generate import generate
from vlm_recipes.eval.generation.label_tree import LabelTree
from vlm_recipes.eval.generation.shared_prefix import score_labels

pytestmark = pytest.mark.filterwarnings("ignore:the chat template writes nothing behind an answer")

CHATS = [name for name in (*FAMILIES, *STRANGERS) if name != "paligemma"]
SHARES = [name for name in CHATS if name not in ("qwen3_5", "gemma3", "mllama", *STRANGERS)]
ANSWERS = ["red", "reddish", "red wine", "none", "no", "yes", "12", "1", "grün"]


@cache
def loaded(name: str):
    network = AutoModelForImageTextToText.from_pretrained(checkpoint(name), attn_implementation="sdpa").eval()
    return network, AutoProcessor.from_pretrained(checkpoint(name))


@cache
def collator(name: str, kind: type = ChatCollator, prompt_only: bool = False) -> ChatCollator:
    return kind(loaded(name)[1], prompt_only=prompt_only)


def asked(question: str, image_id: int, *answer: str) -> dict:
    pixels = np.random.default_rng(image_id).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    content = [{"type": "image"}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    messages += [{"role": "assistant", "content": [{"type": "text", "text": text}]} for text in answer]
    return {"id": question, "image_id": image_id, "images": [Image.fromarray(pixels)], "messages": messages}


QUESTIONS = [("What colour is it?", 1), ("And the box?", 1), ("How many are there?", 1), ("What colour is this?", 2)]


@torch.no_grad()
def log_probabilities(name: str, question: tuple[str, int]) -> torch.Tensor:
    """Of each of `ANSWERS` `[A]`, summed over the tokens that training has in its labels, each read by itself."""
    batch = collator(name)([asked(*question, answer) for answer in ANSWERS])
    labels = batch.pop("labels")[:, 1:]
    each = loaded(name)[0](**batch).logits[:, :-1].log_softmax(-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
    return (each * (labels != -100)).sum(1)


def kinds(name: str) -> list[type]:
    return [ChatCollator, SharedImageCollator] if name in SHARES else [ChatCollator]


@pytest.mark.parametrize("name", CHATS)
def test_an_answer_kept_to_a_closed_set_is_one_of_it(name):
    network, ids, rows = loaded(name)[0], collator(name).answer_ids, [asked(*question) for question in QUESTIONS]
    one, several = Constraint(ANSWERS, ids), Constraint(["pink", "red"], ids, several=True)
    counts = Constraint([str(number) for number in range(30)], ids)
    for kind in kinds(name):
        ask, constraints = collator(name, kind, prompt_only=True), [one, several, counts, one]
        first, second, third, fourth = generate(network, rows, ask, constraints=constraints, max_new_tokens=8)
        assert {first, fourth} <= {*ANSWERS} and third in {*map(str, range(30))}
        assert second in {"pink", "red", "pink; red", "red; pink"}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHATS)
def test_a_wide_search_of_a_closed_set_finds_the_answer_with_the_least_loss(name):
    network, rows = loaded(name)[0], [asked(*question) for question in QUESTIONS]
    kept = [Constraint(ANSWERS, collator(name).answer_ids)] * len(rows)
    widely = {"constraints": kept, "num_beams": len(ANSWERS), "length_penalty": 0.0, "max_new_tokens": 12}
    expected = [ANSWERS[int(log_probabilities(name, question).argmax())] for question in QUESTIONS]
    for kind in kinds(name):
        assert generate(network, rows, collator(name, kind, prompt_only=True), **widely) == expected


@pytest.mark.parametrize("name", SHARES)
def test_scores_of_a_closed_set_are_minus_the_loss_of_each_answer(name):
    network, ids = loaded(name)[0], {answer: collator(name).answer_ids(answer) for answer in ANSWERS}
    [end] = {tokens[-1] for tokens in ids.values()}
    tree = LabelTree([tokens[:-1] for tokens in ids.values()], end)
    batch = collator(name, SharedImageCollator, True)([asked(*question) for question in QUESTIONS])
    assert len(batch["prefix_input_ids"]) == 2
    found = score_labels(network, batch, [tree] * len(QUESTIONS), mean=False)
    for question, scores in zip(QUESTIONS, found, strict=True):
        torch.testing.assert_close(scores, log_probabilities(name, question), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["qwen3_5", "lfm2_vl"])
def test_a_model_that_reads_shared_images_otherwise_answers_nothing(name):
    """What a run that only evaluates has in place of the proof before a training's first step."""
    network, _ = loaded(name)
    shared = collator(name, SharedImageCollator, True)
    with pytest.raises(
        SharingError, match=f"^{name} cannot share an image, it does not read such a batch: .*question a row$"
    ):
        generate(network, [asked(*question) for question in QUESTIONS], shared, max_new_tokens=2)


def test_positions_of_another_kind_of_model_are_found_before_an_answer(monkeypatch):
    network, _ = loaded("qwen2_vl")
    shared = collator("qwen2_vl", SharedImageCollator, True)
    rows = [asked(*question) for question in QUESTIONS]
    assert all(generate(network, rows, shared, max_new_tokens=2))
    monkeypatch.setattr(shared, "has_grid", False)  # as for a model without a multimodal rotary embedding
    with pytest.raises(SharingError, match="off by"):
        generate(network, rows, shared, max_new_tokens=2)


def test_answers_are_not_scored_by_an_attention_without_masks_of_pairs(monkeypatch):
    network, processor = loaded("qwen2_vl")
    tree = LabelTree([[5], [6]], processor.tokenizer.eos_token_id)
    batch = collator("qwen2_vl", SharedImageCollator, True)([asked(*QUESTIONS[0])])
    monkeypatch.setattr(network.config.get_text_config(), "_attn_implementation_internal", "flash_attention_2")
    with pytest.raises(SharingError, match="'flash_attention_2' reads no mask of pairs"):
        score_labels(network, batch, [tree])
