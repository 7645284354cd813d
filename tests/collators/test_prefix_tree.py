"""Sequences, masks and positions of conversations that begin alike, against slow loops and transformers itself."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.processes.shared_image import as_group, picture, rows_about, talk
from vlm_recipes.collators import ChatCollator, SharedImageCollator
from vlm_recipes.collators.prefix_tree import NONE, Conversation, rope_positions, seen_pairs, shared_length

IGNORE = -100
IMAGE = 9
FAMILIES = ["qwen2_vl", "qwen2_5_vl", "llava"]
# The image after the question, as no template of these models has it.
LATE = """\
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}
{%- for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}
{%- for p in m.content if p.type == 'image' %}{{ '<|vision_start|>IMAGE<|vision_end|>' }}{% endfor %}
{{- '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
many = settings(deadline=None, max_examples=60)


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request):
    checkpoint = request.getfixturevalue(request.param)
    return SimpleNamespace(processor=checkpoint.processor, model=checkpoint.new_model())


# --- positions


@pytest.fixture(scope="module", params=FAMILIES[:2])
def qwen(request):
    return request.getfixturevalue(request.param).new_model().model


sides = st.integers(1, 9)


@given(before=st.lists(st.tuples(sides, sides, sides), max_size=4), after=st.integers(0, 5))
@many
def test_positions_are_those_of_get_rope_index(qwen, before, after):
    """Each image's height and width in tokens, with so many tokens of text before it."""
    merge = qwen.config.vision_config.spatial_merge_size
    ids = [token for text, height, width in before for token in [1] * text + [IMAGE] * (height * width)] + [1] * after
    if not ids:
        return
    ids = torch.tensor(ids)
    grid = torch.tensor([[1, merge * height, merge * width] for _, height, width in before]).long().reshape(-1, 3)
    expected, _ = qwen.get_rope_index(ids[None], (ids == IMAGE).int()[None], grid)
    found = rope_positions(ids, IMAGE, grid, merge)
    assert found.dtype == torch.long and torch.equal(found, expected[:, 0])


# --- masks


@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.lists(st.integers(1, 5), min_size=1, max_size=6)), min_size=1, max_size=4
    ),
    st.integers(0, 3),
)
@many
def test_the_mask_is_that_of_a_slow_loop(batch, padding):
    """A sequence is a shared part's length with its branches' lengths."""
    totals = [shared + sum(own) for shared, own in batch]
    size = max(totals) + padding
    branch_ids = torch.full((len(batch), size), NONE)
    expected = torch.zeros(len(batch), size, size, dtype=torch.bool)
    for b, (shared, own) in enumerate(batch):
        parts, at = [range(shared)], shared
        for length in own:
            parts.append(range(at, at + length))
            at += length
        for branch, part in enumerate(parts):
            for i in part:
                branch_ids[b, i] = branch
                for j in (*range(shared), *part):
                    expected[b, i, j] = j <= i
        for i in range(at, size):
            expected[b, i, 0] = True
    mask = seen_pairs(branch_ids)
    assert mask.shape == (len(batch), 1, size, size) and mask.nbytes == len(batch) * size**2  # a byte for each pair
    assert torch.equal(mask[:, 0], expected)
    for b, total in enumerate(totals):
        assert not mask[b, 0, :, total:].any()
        assert (mask[b, 0].diagonal() == (torch.arange(size) < total)).all()


# --- shared parts

few_tokens = st.lists(st.sampled_from([1, 1, 1, 2, IMAGE]), min_size=1, max_size=8)


@given(st.lists(st.tuples(few_tokens, few_tokens), min_size=1, max_size=4))
@many
def test_what_is_shared_is_the_longest_beginning_that_leaves_each_an_untrained_token_of_its_own(said):
    conversations, trained_from = [], []
    for i, (asked, answered) in enumerate(said):
        ids = torch.tensor(asked + answered)
        labels = torch.where(torch.arange(len(ids)) < len(asked), IGNORE, ids)
        conversations.append(Conversation(i, ids, labels, torch.arange(len(ids))[None]))
        trained_from.append(len(asked))
    whole = [one.input_ids.tolist() for one in conversations]
    possible = [
        length for length in range(min(trained_from)) if all(ids[:length] == whole[0][:length] for ids in whole)
    ]
    longest = max(possible)
    expected = 0 if any(IMAGE in ids[longest:] for ids in whole) else longest
    assert shared_length(conversations, IMAGE) == expected


def trained(batch) -> list[int]:
    return batch["labels"][batch["labels"] != IGNORE].tolist()


def lengths(batch) -> torch.Tensor:
    """Tokens of each sequence: what is on the mask's diagonal."""
    return batch["attention_mask"].diagonal(dim1=-2, dim2=-1).sum((1, 2))


def n_images(batch) -> int:
    return len(batch.get("image_grid_thw", batch.get("pixel_values", [])))


def assert_same_loss(model, batch, expected):
    with torch.no_grad():
        assert model(**batch).loss.item() == pytest.approx(model(**expected).loss.item(), rel=1e-5)


# --- sequences


def test_an_image_is_encoded_once_and_what_conversations_begin_with_is_there_once(tiny):
    rows = rows_about("one", [picture((84, 140))], *(talk(f"{word}?", "yes") for word in ("why", "where", "who")))
    rows[1]["messages"], alone = talk("why so?", "no"), ChatCollator(tiny.processor)(rows)
    batch = SharedImageCollator(tiny.processor)(rows)
    assert torch.equal(batch["pixel_values"], ChatCollator(tiny.processor)(rows[:1])["pixel_values"])
    images = int((alone["input_ids"][0] == tiny.processor.image_token_id).sum())
    assert (batch["input_ids"] == tiny.processor.image_token_id).sum() == images > 0
    assert len(batch["input_ids"]) == 1
    assert lengths(batch)[0] + 2 * images < alone["attention_mask"].sum()


def test_a_group_that_is_too_long_goes_on_in_another_sequence(tiny):
    rows = rows_about("one", [picture((84, 140))], *(talk(f"{i}?", "a bowl of muesli") for i in range(7)))
    separate = ChatCollator(tiny.processor)(rows)
    max_length = separate["input_ids"].shape[1] + 30
    batch = SharedImageCollator(tiny.processor, max_length=max_length)(rows)
    assert 1 < len(batch["input_ids"]) == n_images(batch) < 7
    assert max_length - 30 <= lengths(batch).min() <= lengths(batch).max() <= max_length
    assert trained(batch) == trained(separate)


def test_several_images_keep_their_order_of_pixels(tiny):
    rows = [
        rows_about(str(i), [picture((56 + 28 * i, 84), i)], talk("a" * i, "yes"), talk("b", "no")) for i in range(4)
    ]
    rows = [row for group in rows for row in group]
    batch = SharedImageCollator(tiny.processor)(rows)
    assert len(batch["input_ids"]) == n_images(batch) == 4
    assert trained(batch) == trained(ChatCollator(tiny.processor)(rows))
    assert_same_loss(tiny.model, batch, ChatCollator(tiny.processor)(rows))


def test_a_conversation_that_is_too_long_by_itself_is_refused_as_by_the_chat_collator(tiny):
    rows = rows_about("one", [picture((168, 168))], talk("a", "yes"), talk("b", "no " * 60), talk("c", "2"))
    length, refusals = ChatCollator(tiny.processor)(rows)["input_ids"].shape[1], []
    for kind in (ChatCollator, SharedImageCollator):
        batch = kind(tiny.processor, max_length=length)(rows)
        assert n_images(batch) == len(batch["input_ids"])  # each sequence with the image of its own
        collator = kind(tiny.processor, max_length=length - 1)
        assert [collator.fits(row) for row in [*rows, as_group(rows)]] == [True, False, True, False]
        with pytest.raises(ValueError, match=f"^row 'one 1': {length} tokens, more than max_length=") as refused:
            collator(rows)
        refusals.append(str(refused.value))
    assert refusals[0] == refusals[1]


@pytest.mark.parametrize("tiny", ["qwen2_vl", "llava"], indirect=True)
def test_an_image_behind_the_question_makes_each_conversation_a_sequence_of_its_own(tiny):
    template = LATE.replace("IMAGE", tiny.processor.image_token)
    rows = rows_about("one", [picture((84, 56))], talk("a", "yes"), talk("b", "no, a bowl"), talk("c", "2", "d", "3"))
    separate = ChatCollator(tiny.processor, chat_template=template)(rows)
    batch = SharedImageCollator(tiny.processor, chat_template=template)(rows)
    assert len(batch["input_ids"]) == n_images(batch) == 3
    assert torch.equal(batch["input_ids"], separate["input_ids"])
    assert torch.equal(batch["labels"], separate["labels"])
    assert_same_loss(tiny.model, batch, separate)


def test_other_processors_are_refused(blip2):
    with pytest.raises(ValueError, match="Blip2Processor"):
        SharedImageCollator(blip2.processor)


def test_a_batch_without_an_answer_is_refused(qwen2_vl):
    with pytest.raises(ValueError, match="no answer"):
        SharedImageCollator(qwen2_vl.processor)(rows_about("one", [picture()], talk("a"), talk("b")))
