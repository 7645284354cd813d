"""Answers and scores from one reading of an image, against each question by itself, which reads it again."""

import copy
import random
from os.path import commonprefix

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

from tests.support import tiny
from tests.support.processes import launch
from tests.support.processes.shared_prefix import COUNTS, LENGTH, dealt_rows, draw_rows, noise, recorded, said, speaker
from vlm_recipes.collators import ChatCollator, SharedImageCollator
from vlm_recipes.eval.generation.constraints import Constraint
from vlm_recipes.eval.generation.generate import generate
from vlm_recipes.eval.generation.label_tree import LabelTree
from vlm_recipes.eval.generation.shared_prefix import generate_after_prefix, score_labels

FAMILIES = ["qwen2_vl", "qwen2_5_vl", "llava"]
ANSWERS = ["red", "reddish", "red wine", "red wine and the left one", "none", "no", "yes", "1", "12", "a", "grün"]
GREEDY = {"max_new_tokens": LENGTH, "do_sample": False}


@pytest.fixture(scope="module", params=FAMILIES)
def each(request, tmp_path_factory):
    return speaker(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return speaker("qwen2_vl", tmp_path_factory.mktemp("qwen"))


@torch.no_grad()
def one_by_one(speaking, rows, **template):
    """The oracle: `model.generate`, a question at a time, no padding, nothing shared."""
    model, processor = speaking
    collate, tokenizer, texts = ChatCollator(processor, prompt_only=True, **template), processor.tokenizer, []
    for row in rows:
        batch = collate([row])
        silent = {tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id}
        tokens = new_tokens(model.generate(**batch, **GREEDY), batch)[0].tolist()
        texts.append(tokenizer.decode([token for token in tokens if token not in silent]).strip())
    return texts


def shared(speaking, rows, collator=SharedImageCollator, template=None, **settings):
    collate = collator(speaking[1], prompt_only=True, chat_template=template)
    return generate(speaking[0], rows, collate, **{"max_new_tokens": LENGTH, **settings})


def prompts(processor, rows):
    return SharedImageCollator(processor, prompt_only=True)(rows), ChatCollator(processor, prompt_only=True)(rows)


def new_tokens(tokens, batch):
    return tokens[:, batch["input_ids"].shape[1] :]


# What is said.


@pytest.mark.parametrize("seed", [0, 1])
def test_shared_prompts_give_the_texts_of_one_question_at_a_time(each, seed):
    rows = draw_rows(seed)
    expected = one_by_one(each, rows)
    assert len(set(expected)) > len(rows) / 2
    for batch_size in (1, 3, 8, 64):
        assert shared(each, rows, batch_size=batch_size) == expected
    once, _ = prompts(each[1], rows)
    assert len(once["prefix_input_ids"]) == 4 + 3  # groups of images, and rows without


def test_one_question_about_different_pictures_gets_different_answers(each):
    rng, asked = random.Random(3), [said("user", "which is it?")]
    rows = [{"image_id": i, "images": [noise(rng)], "messages": asked} for i in range(8)]
    expected = one_by_one(each, rows)
    assert len(set(expected)) > 4 and shared(each, rows) == expected


def test_what_was_learnt_by_heart_is_said():
    path, rows = tiny.trained_qwen2_vl(), [{**row, "image_id": row["id"]} for row in tiny.chat_rows()] * 3
    speaking = AutoModelForImageTextToText.from_pretrained(path), AutoProcessor.from_pretrained(path)
    for batch_size in (4, 24):
        assert shared(speaking, rows, batch_size=batch_size, max_new_tokens=30) == [row["answer"] for row in rows]


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}, {"do_sample": True, "temperature": 3.0, "top_k": 0}])
def test_tokens_are_those_of_generate_for_the_padded_batch(each, settings):
    model, processor = each
    once, whole = prompts(processor, draw_rows(2, groups=3, most=6))
    torch.manual_seed(0)
    expected = new_tokens(model.generate(**whole, **GREEDY | settings), whole)
    for _ in range(2):  # the batch is not used up
        torch.manual_seed(0)
        tokens = generate_after_prefix(model, once, **GREEDY | settings)
        assert torch.equal(tokens[:, : once["input_ids"].shape[1]], once["input_ids"])
        assert torch.equal(new_tokens(tokens, once), expected)
    assert len({tuple(row) for row in expected.tolist()}) > len(expected) / 2
    assert not settings or not torch.equal(new_tokens(model.generate(**whole, **GREEDY), whole), expected)


@pytest.mark.parametrize("beams", [{"num_return_sequences": 2, "do_sample": True}, {"num_beams": 3}], ids=str)
def test_a_generation_config_is_followed(qwen, beams):
    model, (once, whole) = qwen[0], prompts(qwen[1], draw_rows(2, groups=3, most=6))
    settings = {"generation_config": GenerationConfig(max_new_tokens=3, pad_token_id=0, **beams)}
    torch.manual_seed(0)
    expected = new_tokens(model.generate(**whole, **settings), whole)
    torch.manual_seed(0)
    assert torch.equal(new_tokens(generate_after_prefix(model, once, **settings), once), expected)


def test_settings_that_cannot_be_kept_are_refused(qwen):
    """Bans of n-grams would not see one that goes on behind the padding between what is shared and the question."""
    rows = draw_rows(2, groups=3, most=6)
    for name, value in {"use_cache": False, "no_repeat_ngram_size": 2}.items():
        with pytest.raises(ValueError, match=name):
            shared(qwen, rows, **{name: value})
        model, config = qwen[0], GenerationConfig(max_new_tokens=2, **{name: value})
        with pytest.raises(ValueError, match=name):
            generate_after_prefix(model, prompts(qwen[1], rows)[0], generation_config=config)


@pytest.mark.parametrize("beams", [1, 3])
def test_constrained_answers_are_those_of_one_question_at_a_time(each, beams):
    rows, ids = draw_rows(1), ChatCollator(each[1]).answer_ids
    kinds = [Constraint(ANSWERS, ids), None, Constraint(ANSWERS[:4], ids, several=True), Constraint(["only"], ids)]
    settings = {"constraints": [kinds[i % 4] for i in range(len(rows))], "num_beams": beams}
    expected = shared(each, rows, ChatCollator, batch_size=1, **settings)
    assert len(set(expected[::4])) > 1 and set(expected[::4]) <= set(ANSWERS) and set(expected[3::4]) == {"only"}
    assert len(set(expected)) > 8
    for batch_size in (4, 64):
        assert shared(each, rows, batch_size=batch_size, **settings) == expected


def test_an_image_that_comes_after_the_question_is_read_for_each(each):
    image = "<image>" if "Llava" in type(each[1]).__name__ else "<|vision_start|><|image_pad|><|vision_end|>"
    parts = "{% for part in m.content if part.type == 'KIND' %}{{ part.text or '" + image + "' }} {% endfor %}"
    parts = parts.replace("KIND", "text") + parts.replace("KIND", "image")
    template = "{% for m in messages %}{{ m.role }}: " + parts + "{% endfor %}{{ 'assistant:' }}"
    rows = [{**row, "messages": row["messages"][-1:]} for row in draw_rows(5) if row["images"]]
    for row in rows:
        row["messages"][0]["content"] = row["messages"][0]["content"][-1:]
    once = SharedImageCollator(each[1], prompt_only=True, chat_template=template)(rows)
    assert len(once["prefix_input_ids"]) == len(rows)
    expected = one_by_one(each, rows, chat_template=template)
    assert len(set(expected)) > 4
    assert shared(each, rows, template=template, batch_size=7) == expected


def test_a_user_s_own_rows_have_no_image_id(each):
    rng = random.Random(6)
    rows = [{"image": noise(rng), "messages": [said("user", "which is it?")]} for _ in range(5)]
    rows += [{**rows[0], "image_id": None}, rows[1]]
    expected = one_by_one(each, rows)
    assert len(set(expected)) > 2
    assert shared(each, rows) == expected and shared(each, rows[:1]) == expected[:1]


def test_a_prompt_that_does_not_fit_is_refused_as_by_the_chat_collator(each):
    rows, refusals = draw_rows(0)[:8], []
    for collator in (ChatCollator, SharedImageCollator):
        collate = collator(each[1], prompt_only=True, max_length=12)
        with pytest.raises(ValueError, match="tokens, more than max_length=12") as refused:
            generate(each[0], rows, collate, max_new_tokens=1, batch_size=1)
        refusals.append(str(refused.value))
    assert refusals[0] == refusals[1]


# What it costs, and what it leaves.


def test_the_decoder_reads_what_is_shared_once_and_the_tower_each_image_once(each):
    model, processor = each
    rows = draw_rows(0, most=10)
    once, whole = prompts(processor, rows)
    tower = model.model.vision_tower if hasattr(model.model, "vision_tower") else model.model.visual
    read, seen = [], []

    def look(module, arguments, keywords, output):  # patches of Qwen-VL, images of LLaVA
        seen.append(len([*arguments, *keywords.values()][0]))

    layer = model.model.language_model.layers[0]
    counting = layer.register_forward_hook(lambda module, inputs, output: read.append(output[..., 0].numel()))
    with counting, tower.register_forward_hook(look, with_kwargs=True):
        tokens = new_tokens(generate_after_prefix(model, once, **GREEDY), once)

    groups, pixels = {}, 0
    for row in rows:
        key = row.get("image_id", row["id"])
        if row["images"] and key not in groups:
            pixels += len(processor.image_processor(row["images"], return_tensors="pt")["pixel_values"])
        ids = ChatCollator(processor, prompt_only=True)([row])["input_ids"][0].tolist()
        groups.setdefault(key, []).append(ids)
    begins = [min(len(commonprefix(ids)), *(len(one) - 1 for one in ids)) for ids in groups.values()]
    own = max(len(one) - begin for begin, ids in zip(begins, groups.values(), strict=True) for one in ids)
    expected = len(groups) * max(begins) + len(rows) * own
    assert sum(read) == expected + len(rows) * (tokens.shape[1] - 1)
    assert expected < whole["input_ids"].numel() and seen == [pixels]


def test_ordinary_generation_and_training_go_on_as_before(each):
    model, processor = copy.deepcopy(each[0]), each[1]
    untouched, rows = copy.deepcopy(model), draw_rows(8, groups=3, most=5)
    (once, whole), (fewer, whole_fewer) = prompts(processor, rows), prompts(processor, rows[:3])
    answered = [{**row, "messages": [*row["messages"], said("assistant", "red")]} for row in rows]
    training = ChatCollator(processor)(answered[2:6])
    text = ChatCollator(processor)([row for row in answered if not row["images"]][:2])

    def ordinary(model):
        losses = [model.train()(**batch).loss for batch in (training, text)]
        losses[0].backward()
        gradient = model.lm_head.weight.grad.clone()
        model.zero_grad()
        model.eval()
        return *losses, gradient, *(model.generate(**batch, **GREEDY) for batch in (whole, whole_fewer))

    first = generate_after_prefix(model, once, **GREEDY)
    results = [ordinary(model)]
    second = generate_after_prefix(model, fewer, **GREEDY)  # now with what those leave behind
    assert torch.equal(new_tokens(second, fewer), new_tokens(results[0][-1], whole_fewer))
    assert torch.equal(generate_after_prefix(model, once, **GREEDY), first)
    score_labels(model, once, [LabelTree([[5], [5, 6]], 7)] * len(rows))
    for result in (*results, ordinary(model)):
        assert all(torch.equal(one, other) for one, other in zip(result, ordinary(untouched), strict=True))


# Which question comes when.


@pytest.mark.parametrize("count", COUNTS)
def test_each_row_is_answered_once_and_in_its_place(qwen, count):
    expected = one_by_one(qwen, dealt_rows(count))
    assert len(set(expected)) > count / 2 or not count
    for batch_size in (1, 3, 8, 64):
        texts, batches = recorded(qwen, count, batch_size)
        assert texts == expected
        assert sorted(row for batch in batches for row, _ in batch) == list(range(count))
        assert len(batches) == -(-count // max(batch_size, 4))  # the four questions of an image stay together
        assert not count or max(map(len, batches)) == -(-count // len(batches))


def test_the_questions_of_an_image_share_a_batch_and_the_longest_come_first(qwen):
    lengths = [len(row["messages"][0]["content"][0]["text"]) for row in dealt_rows(48)]
    for batch_size in (4, 8, 12, 48, 5, 7, 1, 3):
        _, batches = recorded(qwen, 48, batch_size)
        assert sum(len({image for _, image in batch}) for batch in batches) == 12
        order = [one for batch in batches for one in batch]
        groups = [order[i : i + 4] for i in range(0, 48, 4)]
        assert all(len({image for _, image in group}) == 1 for group in groups)
        by_length = [[lengths[row] for row, _ in group] for group in groups]
        assert by_length == sorted((sorted(group, reverse=True) for group in by_length), key=max, reverse=True)


def test_two_processes_answer_each_row_once_with_the_texts_of_one(qwen):
    sizes = [(count, batch_size) for count in COUNTS for batch_size in (2, 8)]
    ranks = launch.in_two_processes(lambda: {size: recorded(qwen, *size) for size in sizes})
    for count in COUNTS:
        expected = one_by_one(qwen, dealt_rows(count))
        for batch_size in (2, 8):
            texts, batches = zip(*(rank[count, batch_size] for rank in ranks), strict=True)
            whole = max(4, batch_size)  # the four questions of an image stay together
            rounds = -(-count // (2 * whole))
            assert [*texts] == [expected] * 2
            assert [*map(len, batches)] == [rounds] * 2, "both wait for each other at every batch"
            asked = [row for batch in batches[0] + batches[1] for row, _ in batch]
            assert set(asked) == set(range(count)) and len(asked) <= count + 1
            assert not count or max(map(len, batches[0] + batches[1])) <= max(4, min(batch_size, -(-count // 2)))


# The scores of a closed set.


@torch.no_grad()
def cross_entropy(model, collate, row, text):
    """Minus the loss of the last answer in the full sequence of training, and how many tokens it has."""
    batch = collate([{**row, "messages": [*row["messages"], said("assistant", text)]}])
    ids, trained = collate.answer_ids(text), (batch["labels"][0] != -100).nonzero().flatten()
    batch["labels"][0, trained[: -len(ids)]] = -100  # answers of earlier turns
    assert batch["labels"][0, trained[-len(ids) :]].tolist() == ids
    return -model(**batch).loss.item(), len(ids)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_minus_the_loss_of_each_answer_in_training(family, attention, tmp_path):
    model, processor = speaker(family, tmp_path, attention)
    assert model.config.get_text_config()._attn_implementation == attention
    rng, collate, rows = random.Random(10), ChatCollator(processor), draw_rows(2, groups=3, most=6)
    once, _ = prompts(processor, rows)
    assert len(once["prefix_input_ids"]) == 3 + 3 < len(rows)
    tokens = {text: collate.answer_ids(text) for text in ANSWERS}
    [end] = {ids[-1] for ids in tokens.values()}
    assert end == processor.tokenizer.eos_token_id
    sets = [ANSWERS, ["yes"], *(rng.sample(ANSWERS, rng.randint(1, 6)) for _ in rows[2:])]
    assert min(map(len, tokens.values())) == 2 and max(map(len, tokens.values())) > 5  # with the end
    trees = [LabelTree([tokens[text][:-1] for text in choices], end) for choices in sets]
    assert len(trees[0].tokens) < sum(len(ids) - 1 for ids in tokens.values())  # they begin alike
    means, sums = (score_labels(model, once, trees, mean=mean) for mean in (True, False))
    for row, choices, mean, total in zip(rows, sets, means, sums, strict=True):
        losses, lengths = zip(*(cross_entropy(model, collate, row, text) for text in choices), strict=True)
        torch.testing.assert_close(mean, torch.tensor(losses), rtol=0, atol=1e-5)
        torch.testing.assert_close(total, torch.tensor(losses) * torch.tensor(lengths), rtol=0, atol=1e-4)
