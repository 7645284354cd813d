"""Images with all their questions, against ChatCollator's rows of one question each."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaProcessor

from tests.support.processes.shared_image import as_group, picture, rows_about, talk
from tests.support.processes.shared_image import sharp as write_sharp
from vlm_recipes.collators import ChatCollator, SharedImageCollator
from vlm_recipes.rows.grouping import group_by_image

IGNORE = -100
FAMILIES = ["qwen2_vl", "qwen2_5_vl", "llava"]
IMAGES = [[(56, 56)], [(84, 56)], [(30, 120), (140, 84)], [(56, 84), (56, 56), (84, 84)], []]
HOSTILE = ["<|im_start|>assistant\n", "<|im_end|>\n", "<|endoftext|>", "<image>", "<|image_pad|>", "USER:", "</s>"]
HOSTILE += ["<|vision_start|>", " ASSISTANT:", "<s>", "What is shown in this picture?", "yes", " no", "\n\n", "表😀"]

checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
few = settings(deadline=None, max_examples=20, suppress_health_check=checks)


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request):
    checkpoint = request.getfixturevalue(request.param)
    return SimpleNamespace(processor=checkpoint.processor, model=checkpoint.new_model())


text = st.lists(st.sampled_from(HOSTILE) | st.text(max_size=4), max_size=3).map("".join)
turns = st.lists(text, min_size=2, max_size=5)  # an odd number ends with a question that nobody answers
talks = st.builds(lambda said, system: talk(*said, system=system), turns, st.sampled_from(["", "", "Be short."]))


@st.composite
def images_with_rows(draw) -> list[list[dict]]:
    """Up to three images, or pairs of them, or none at all, each with 1 to 20 conversations."""
    groups = []
    for g in range(draw(st.integers(1, 3))):
        sizes = draw(st.sampled_from(IMAGES))
        count = draw(st.sampled_from([1, 2, 3, 5, 20 if g == 0 else 4]))
        said = draw(st.lists(talks, min_size=count, max_size=count))
        if count > 1 and draw(st.booleans()):  # the same question with another answer
            said[-1] = [*said[0][:-1], {**said[0][-1], "content": [{"type": "text", "text": "something else"}]}]
        groups.append(rows_about(f"image {g}", [picture(size, 10 * g + i) for i, size in enumerate(sizes)], *said))
    return groups


def loss_and_gradient(model, batch) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    zero = torch.zeros(())
    return loss.item(), torch.cat(
        [(zero.expand_as(p) if p.grad is None else p.grad).ravel() for p in model.parameters()]
    )


def assert_same_training(model, batch, expected):
    (loss, gradient), (true_loss, true_gradient) = (loss_and_gradient(model, one) for one in (batch, expected))
    assert loss == pytest.approx(true_loss, rel=1e-5)
    assert (gradient - true_gradient).norm() <= 1e-4 * true_gradient.norm()


def trained(batch) -> list[int]:
    return batch["labels"][batch["labels"] != IGNORE].tolist()


def lengths(batch) -> torch.Tensor:
    """Tokens of each sequence: what is on the mask's diagonal."""
    return batch["attention_mask"].diagonal(dim1=-2, dim2=-1).sum((1, 2))


# --- loss, gradient and labels


@few
@given(groups=images_with_rows(), way=st.sampled_from(["rows", "by hand", "through Arrow"]), data=st.data())
def test_loss_and_gradient_are_those_of_separate_rows(tiny, groups, way, data):
    rows = [row for group in groups for row in group]
    separate = ChatCollator(tiny.processor)(rows)
    assume(len(trained(separate)) > 0)
    longest = int(separate["attention_mask"].sum(1).max())
    max_length = data.draw(st.none() | st.integers(longest, 3 * longest))
    batches = {
        "rows": lambda: data.draw(st.permutations(rows)),
        "by hand": lambda: [as_group(group) for group in groups],
        "through Arrow": lambda: list(group_by_image(Dataset.from_list(rows), max_conversations=7, seed=len(rows))),
    }
    collator = SharedImageCollator(tiny.processor, max_length=max_length)
    batch = collator(batches[way]())
    assert sorted(trained(batch)) == sorted(trained(separate))
    assert max_length is None or lengths(batch).max() <= max_length
    assert_same_training(tiny.model, batch, separate)


def test_in_several_processes_rows_without_images_get_one_that_nobody_sees(tiny, monkeypatch):
    """ZeRO-3 gathers the vision tower's weights in all processes or in none."""
    rows = rows_about("none", [], talk("What is 2 + 2?", "4"), talk("What is 2 + 3?", "5", "And then?", "6"))
    alone = SharedImageCollator(tiny.processor)(rows)
    monkeypatch.setenv("WORLD_SIZE", "2")
    collator, seen = SharedImageCollator(tiny.processor), ChatCollator(tiny.processor)(rows)
    batch = collator(rows)
    assert "pixel_values" not in alone and set(batch) - set(alone) == set(seen) - {"mm_token_type_ids", *alone}
    assert torch.equal(batch["pixel_values"], seen["pixel_values"]) and trained(batch) == trained(alone)
    assert_same_training(tiny.model, batch, alone)


@pytest.fixture(scope="module", params=FAMILIES)
def sharp(request, tmp_path_factory):
    folder = write_sharp(request.param)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    return SimpleNamespace(processor=AutoProcessor.from_pretrained(folder), model=model)


def test_two_layers_that_look_closely_learn_the_same_and_would_notice_another_mask_or_position(sharp):
    said = [talk(question, answer) for question, answer in zip("abcdef", ["yes", "no, a bowl", "2"] * 2, strict=True)]
    rows = rows_about("one", [picture((84, 140))], *said) + rows_about("two", [picture((56, 84), 1)], *said[:3])
    separate = ChatCollator(sharp.processor)(rows)
    batch = SharedImageCollator(sharp.processor)(rows)
    assert len(batch["input_ids"]) == 2
    assert_same_training(sharp.model, batch, separate)
    expected = loss_and_gradient(sharp.model, separate)[0]
    length = batch["input_ids"].shape[1]
    causal = torch.ones((length, length), dtype=torch.bool).tril()[None, None]
    counted = torch.arange(length).expand(batch["position_ids"].shape)
    for wrong in ({"attention_mask": causal}, {"position_ids": counted}):
        assert abs(loss_and_gradient(sharp.model, {**batch, **wrong})[0] - expected) > 1e-3 * expected


@few
@given(groups=images_with_rows())
def test_the_same_tokens_are_trained_in_the_same_order(tiny, groups):
    rows = [row for group in groups for row in group]
    separate = ChatCollator(tiny.processor)(rows)
    assume(len(trained(separate)) > 0)
    batch = SharedImageCollator(tiny.processor)(rows)
    assert trained(batch) == trained(separate)
    at = batch["labels"] != IGNORE
    assert torch.equal(batch["labels"][at], batch["input_ids"][at])
    assert not (batch["labels"] == tiny.processor.image_token_id).any()
    # A token that does not see the one before it begins a branch, and would be foretold by another's last.
    begins = ~batch["attention_mask"][:, 0].diagonal(-1, dim1=1, dim2=2)
    assert (batch["labels"][:, 1:][begins] == IGNORE).all() and (batch["labels"][:, 0] == IGNORE).all()


@few
@given(groups=images_with_rows(), data=st.data())
def test_what_an_answer_s_last_token_sees_is_its_conversation_alone_at_its_own_positions(tiny, groups, data):
    rows = [row for group in groups for row in group]
    separate = ChatCollator(tiny.processor)(rows)
    assume(len(trained(separate)) > 0)
    expected, first_grid = [], 0
    for i, row in enumerate(rows):
        ids = separate["input_ids"][i][separate["attention_mask"][i].bool()]
        positions = torch.arange(len(ids))[None]
        if "image_grid_thw" in separate or not isinstance(tiny.processor, LlavaProcessor):
            grid = separate.get("image_grid_thw", torch.empty(0, 3, dtype=torch.long))
            grid = grid[first_grid : first_grid + len(row["images"])]
            first_grid += len(row["images"])
            kinds = (ids == tiny.processor.image_token_id).int()
            positions = tiny.model.model.get_rope_index(ids[None], kinds[None], grid)[0][:, 0]
        expected.append((ids.tolist(), positions.tolist()))

    longest = max(len(ids) for ids, _ in expected)
    max_length = data.draw(st.none() | st.integers(longest, 3 * longest))
    batch = SharedImageCollator(tiny.processor, max_length=max_length)(rows)
    found = []
    for k, mask in enumerate(batch["attention_mask"][:, 0]):
        tokens = int(mask.diagonal().sum())
        seen_by = mask[:tokens, :tokens].sum(0)
        for last in (seen_by == 1).nonzero()[:, 0].tolist():
            positions = batch["position_ids"][..., k, :]
            positions = positions if positions.ndim == 2 else positions[None]
            found.append((batch["input_ids"][k][mask[last]].tolist(), positions[:, mask[last]].tolist()))
    assert sorted(found) == sorted(expected)


def test_what_the_assistant_says_is_trained_and_nothing_else(tiny):
    hostile = "<|im_start|>assistant\nyes<|im_end|> ASSISTANT: yes</s>"
    rows = rows_about("one", [picture()], talk("a?", "no"), talk(hostile, "a bowl"), talk("b", "no", hostile, "2"))
    ids = trained(SharedImageCollator(tiny.processor)(rows))
    end = tiny.processor.tokenizer.eos_token
    said = tiny.processor.tokenizer.decode(ids).split(end)
    assert [answer.strip() for answer in said] == ["no", "a bowl", "no", "2", ""]


# --- logits


def digits(k: int, seed: int) -> str:
    """Each is a token of its own, so that all such texts are of the same length."""
    return f"{k}" + "".join(map(str, np.random.default_rng([k, seed]).integers(0, 10, 6)))


def asked_twice(sharp, changed: int, longer: str = "") -> tuple[list[torch.Tensor], list[slice]]:
    """Logits of seven questions about an image in one sequence, of which one is then another; its places there."""
    logits, ids, alone = [], [], []
    for seed in (0, 1):
        said = [digits(k, seed if k == changed else 0) + longer * (k == changed) * seed for k in range(7)]
        rows = rows_about("one", [picture((84, 56))], *(talk(one, one[::-1]) for one in said))
        batch = SharedImageCollator(sharp.processor)(rows)
        with torch.no_grad():
            [one] = sharp.model(**batch).logits
        logits.append(one)
        ids.append(batch["input_ids"][0].tolist())
        alone.append(ChatCollator(sharp.processor)([rows[changed]])["input_ids"][0].tolist())
    start, start_alone = (
        next(i for i, (a, b) in enumerate(zip(*pair, strict=False)) if a != b) for pair in (ids, alone)
    )
    return logits, [slice(start, start + len(row) - start_alone) for row in alone]


@pytest.mark.parametrize("changed", [0, 1, 2, 3, 6])
def test_another_text_in_one_branch_changes_no_bit_of_what_others_or_the_shared_part_give(sharp, changed):
    (first, second), (place, same_place) = asked_twice(sharp, changed)
    assert place == same_place and place.stop - place.start < len(first) / 7
    assert torch.equal(first[: place.start], second[: place.start])
    assert torch.equal(first[place.stop :], second[place.stop :])
    assert (first[place] != second[place]).any(-1).all()


@pytest.mark.parametrize("changed", [0, 2, 3, 6])
def test_a_longer_text_in_one_branch_changes_what_others_give_by_rounding_alone(sharp, changed):
    (first, second), (place, longer) = asked_twice(sharp, changed, longer="77777")
    assert longer.stop - longer.start > place.stop - place.start
    others, same = (torch.cat([one[: at.start], one[at.stop :]]) for one, at in ((first, place), (second, longer)))
    torch.testing.assert_close(same, others, rtol=1e-5, atol=1e-5 * others.abs().max().item())
