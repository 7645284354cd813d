import re
from pathlib import Path

import pytest
import transformers
from PIL import Image
from trl.data_utils import prepare_multimodal_messages
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from vlm_recipes.rows.errors import BadRow
from vlm_recipes.rows.formats.chat import MARKER, messages_of, refuse_markers, untrained_messages

ASKED = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "What is it?"}]
SAID = [{"role": "assistant", "content": "a bowl"}]
IMAGE = {"type": "image"}


def text(words: str) -> dict:
    return {"type": "text", "text": words}


# --- where the messages are


def test_a_prompt_and_its_completion_are_one_conversation_as_in_trl():
    row = {"prompt": ASKED, "completion": SAID, "messages": None}
    assert messages_of(row) == messages_of({"messages": ASKED + SAID}) == ASKED + SAID
    assert (untrained_messages(row), untrained_messages({"messages": ASKED + SAID})) == (2, 0)


def test_the_answers_in_a_prompt_are_not_trained_as_trl_does_not(qwen2_vl):
    """Its labels begin where the completion does, whoever spoke before."""
    row = {"prompt": [*ASKED, *SAID, ASKED[1]], "completion": SAID, "images": [Image.new("RGB", (56, 56))]}
    collator = DataCollatorForVisionLanguageModeling(qwen2_vl.processor, completion_only_loss=True)
    labels = collator([dict(row)])["labels"][0]
    assert qwen2_vl.processor.tokenizer.decode(labels[labels != -100]).count("a bowl") == 1
    assert untrained_messages(row) == 4 and messages_of(row)[4:] == SAID


def test_two_texts_are_a_question_and_its_answer():
    row = {"prompt": "What is it?", "completion": "a bowl"}
    assert messages_of(row) == [ASKED[1], *SAID] and untrained_messages(row) == 1


def test_a_prompt_beside_messages_is_only_a_column():
    assert messages_of({"messages": ASKED, "prompt": "What is it?", "completion": None}) == ASKED


def test_keys_that_arrow_gives_every_message_are_none():
    told = [message | {"tool_calls": None, "name": "", "reasoning_content": None} for message in [*ASKED, *SAID]]
    assert messages_of({"messages": told, "tools": None}) == told


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "no 'messages', and no 'prompt' with a 'completion'"),
        ({"messages": None, "prompt": ASKED}, "no 'messages', and no 'prompt' with a 'completion'"),
        ({"completion": SAID}, "no 'messages', and no 'prompt' with a 'completion'"),
        ({"messages": ASKED, "prompt": ASKED, "completion": SAID}, "both 'messages' and a 'completion'"),
        ({"prompt": ASKED, "completion": "a bowl"}, "of 'prompt' and 'completion' one is a text"),
        ({"prompt": 7, "completion": SAID}, "'prompt' is a int, and no list of messages"),
        ({"messages": "What is it?"}, "'messages' is a str, and no list of messages"),
        ({"messages": {"role": "user", "content": ""}}, "'messages' is a dict, and no list of messages"),
        ({"messages": ["What is it?"]}, "'messages' has something without 'role' and 'content': 'What is it?'"),
        ({"messages": [{"from": "human", "value": "?"}]}, "'messages' has something without 'role' and 'content'"),
        ({"messages": [{"role": "user", "content": 7}]}, "'messages' has a content that is no text and no list of"),
        ({"messages": [{"role": "user", "content": ["So?"]}]}, "'messages' has a content that is no text and no"),
        ({"messages": [{"role": "user", "content": [text(7)]}]}, "'messages' has a content that is no text and no"),
        ({"messages": [None]}, "'messages' has something without 'role' and 'content': 'None'"),
        (
            {"messages": [*ASKED, {**SAID[0], "tool_calls": [{"type": "function"}]}]},
            "a message has 'tool_calls', which",
        ),
        (
            {"prompt": ASKED, "completion": [{**SAID[0], "reasoning_content": "So."}]},
            "a message has 'reasoning_content'",
        ),
        ({"messages": [*ASKED, *SAID], "tools": [{"name": "zoom"}]}, "'tools' is not read"),
    ],
    ids=range(17),
)
def test_another_row_is_refused_with_the_reason(row, reason):
    with pytest.raises(BadRow, match=f"^{re.escape(reason)}"):
        messages_of(row)


@pytest.mark.parametrize("marker", ["<image>", "<|vision_start|><|image_pad|><|vision_end|>", "[IMG]"])
def test_texts_that_mark_their_image_as_trl_wants_it_are_refused_with_the_way_to_write_it(marker):
    row = {"prompt": f"{marker}What is it?", "completion": "a bowl"}
    with pytest.raises(BadRow, match='marks the place of an image: .*{"type": "image"}'):
        messages_of(row | {"image": Image.new("RGB", (2, 2))})
    assert messages_of(row | {"image": None})[0]["content"] == row["prompt"]


# --- marks of other models


FOREIGN = "<image> <|image|> <|image_pad|> <image_soft_token> [IMG] <img> <IMG_CONTEXT> <start_of_image> <|image_1|>"


@pytest.mark.parametrize("marker", [*FOREIGN.split(), "<image 1>", "<image_2>", "<image-placeholder>"])
def test_a_mark_of_an_image_is_refused_by_name_in_any_text_of_a_row_with_images(marker):
    none = {"type": "text", "text": None}
    for turns in (
        [{"role": "user", "content": f"{marker}\nWhat is it?"}, *SAID],
        [
            {"role": "user", "content": [text("So?"), text(f"What is {marker}?"), none]},
            *SAID,
        ],
        [{"role": "system", "content": f"Look at {marker}."}, ASKED[1], *SAID],
        [ASKED[1], {"role": "assistant", "content": f"see {marker}"}],
    ):
        with pytest.raises(
            BadRow, match=rf"^{re.escape(marker)} in a text .* the place of an image: write {{\"type\": \"image"
        ):
            refuse_markers(turns, 1)
        refuse_markers(turns, 0)
        refuse_markers([{"role": "user", "content": [IMAGE, text("And?")]}, *turns], 1)


@pytest.mark.parametrize(
    "words",
    [
        'How do I write <img src="a.png" alt="<a picture>">?',
        "<svg><image href='a.png'/></svg> and <Image> and < image >",
        "a list[IMG_SIZE], x[img], |image|, <imagine>, <images>, image_pad, <image alone>",
        "<|im_start|>user\nHello<|im_end|>",
    ],
)
def test_what_is_no_mark_stays_text(words):
    refuse_markers([{"role": "user", "content": words}, *SAID], 1)


def test_an_arrow_row_without_content_and_with_none_keys_passes():
    turns = [{"role": "user", "content": [{"type": "text", "text": "So?", "image": None}]}]
    refuse_markers([*turns, {"role": "assistant", "content": None}], 1)


def test_trl_leaves_the_mark_as_text_and_moves_the_image_to_the_front():
    """What the refusal is for; once TRL converts marks, they may be read here, too."""
    turns = [{"role": "user", "content": "Is <image> a bowl?"}]
    [shown] = prepare_multimodal_messages(turns, images=[Image.new("RGB", (2, 2))])
    assert [part["type"] for part in shown["content"]] == ["image", "text"]
    assert shown["content"][1]["text"] == "Is <image> a bowl?"


def test_every_image_token_that_a_processor_of_transformers_names_is_known():
    """Read from its source: what is set as a processor's `image_token`, and spelt there."""
    said = re.compile(r"(?:boi|eoi|(?:image|img)_(?:\w+_)?)_?token\w*\s*=[^\n]*?\"([^\"\n]+)\"")
    found = {}
    for file in Path(transformers.__file__).parent.glob("models/*/processing_*.py"):
        for token in said.findall(file.read_text(encoding="utf-8")):
            found.setdefault(token, file.parent.name)
    known = {token: name for token, name in found.items() if token[0] in "<[" and token[-1] in ">]"}
    assert len(known) > 20
    # "<s>" is in a comment on Kosmos-2.5; Chameleon's and Inkling's are no one's to write by hand
    assert {token for token in known if not MARKER.fullmatch(token)} <= {"<eoss>", "<s>", "<|unused_200054|>"}
