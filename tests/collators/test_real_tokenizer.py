"""Answers as Qwen's own tokenizer has them, of 151,643 tokens: labels, constraints and boxes."""

import json

import numpy as np
import pytest
from PIL import Image
from transformers import (
    AutoTokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from trl.chat_template_utils import qwen2_5_vl_chat_template, qwen3_vl_chat_template

from recipes import kvasir_vqa, nutrition_tables
from tests.support.paths import SHARED_DATA
from vlm_recipes.collators import ChatCollator, SharedImageCollator
from vlm_recipes.eval.metrics.box_codecs import box_codec
from vlm_recipes.eval.metrics.question_types import QuestionTypes
from vlm_recipes.eval.typed import constraints_by_type

TOKENIZER, KVASIR = SHARED_DATA / "tokenizers" / "qwen", SHARED_DATA / "kvasir_vqa" / "rows.jsonl"
pytestmark = pytest.mark.skipif(not TOKENIZER.exists(), reason="no real tokenizer in ../shared/data")
KINDS = {
    "qwen2_vl": (Qwen2VLProcessor, Qwen2VLVideoProcessor, qwen2_5_vl_chat_template),
    "qwen3_vl": (Qwen3VLProcessor, Qwen3VLVideoProcessor, qwen3_vl_chat_template),
}


@pytest.fixture(scope="module", params=["qwen2_vl", pytest.param("qwen3_vl", marks=pytest.mark.slow)])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def processor(kind):
    made, video, template = KINDS[kind]
    size = {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    return made(Qwen2VLImageProcessor(size=size), tokenizer, video(size=size), chat_template=template)


@pytest.fixture(scope="module")
def rows():
    raw = [json.loads(line) for line in KVASIR.read_text().splitlines()]
    raw = [row for row in raw if row["question"] != "none"]
    types = QuestionTypes.infer([row["question"] for row in raw], [row["answer"] for row in raw])
    return [kvasir_vqa.to_chat({**row, "id": f"{i}"}, types, typed_prompt=True) for i, row in enumerate(raw)], types


def trained(batch, processor, i: int) -> str:
    labels = batch["labels"][i]
    return processor.tokenizer.decode(labels[labels != -100])


def test_each_real_row_trains_its_answer_and_its_end_and_nothing_else(processor, rows):
    picture, collator, shared = (
        Image.effect_noise((80, 60), 90),
        ChatCollator(processor),
        SharedImageCollator(processor),
    )
    asked = [{**row, "images": [picture]} for row in rows[0]]
    for start in range(0, len(asked), 48):
        some = asked[start : start + 48]
        batch = collator(some)
        for i, row in enumerate(some):
            assert trained(batch, processor, i) == f"{row['answer']}<|im_end|>"
    together = shared([{**row, "image_id": "x"} for row in asked[:20]])
    assert trained(together, processor, 0) == "".join(f"{row['answer']}<|im_end|>" for row in asked[:20])


def test_each_real_answer_can_be_given_under_its_types_constraint(processor, rows):
    collator = ChatCollator(processor)
    chats, types = rows
    constraint_of = constraints_by_type(collator.answer_ids)
    seen = 0
    for row in chats:
        constraint = constraint_of(types[row["question"]])
        said = row["answer"].split("; ")
        if constraint is None or not {*said} <= {*constraint.choices} or len({*said}) < len(said):
            continue
        ids = collator.answer_ids(row["answer"])
        assert constraint.text(ids) == row["answer"]
        for n, token in enumerate(ids):
            assert token in constraint.allowed(ids[:n]), (row["question"], row["answer"], n)
        seen += 1
    assert seen > 1500  # of 2,152; the others are open, or say one thing twice


def test_boxes_are_written_in_the_familys_tokens_and_read_back(processor, kind):
    codec, size = box_codec(kind, processor), (612, 816)
    answer = codec.encode([(10, 20, 300, 400), (5, 5, 600, 800)], size, ["nutrition-table", "table"])
    messages = [*nutrition_tables.prompt(), {"role": "assistant", "content": [{"type": "text", "text": answer}]}]
    batch = ChatCollator(processor)([{"images": [Image.new("RGB", size)], "messages": messages}])
    assert trained(batch, processor, 0) == f"{answer}<|im_end|>"
    ids = batch["labels"][0][batch["labels"][0] != -100].tolist()
    if kind == "qwen2_vl":
        marks = ("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>")
        assert [ids.count(processor.tokenizer.convert_tokens_to_ids(mark)) for mark in marks] == [2] * 4
    found = codec.decode(trained(batch, processor, 0), size)
    np.testing.assert_allclose(found, [(10, 20, 300, 400), (5, 5, 600, 800)], atol=1)
