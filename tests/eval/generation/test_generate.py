from functools import partial

import datasets
import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.support import tiny
from tests.support.processes import launch
from vlm_recipes.collators import ChatCollator, Seq2SeqCollator
from vlm_recipes.eval.evaluation import Evaluation
from vlm_recipes.eval.generation.generate import generate
from vlm_recipes.eval.metrics.number import Number, Scores

LAUNCHES = [launch.ddp, *(pytest.param(partial(launch.deepspeed, i), marks=pytest.mark.slow) for i in (2, 3))]

LENGTH = 30  # tokens, enough for the longest answer


def load(folder):
    return AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def qwen():
    return load(tiny.trained_qwen2_vl())


@pytest.fixture(scope="module")
def blip():
    return load(tiny.trained_blip2())


def answer(model, processor, rows=None, collator=ChatCollator, **settings):
    rows = tiny.chat_rows() if rows is None else rows
    return generate(model, rows, collator(processor, prompt_only=True), max_new_tokens=LENGTH, **settings)


@torch.no_grad()
def one_by_one(model, processor, rows, ends=("<|im_end|>", "<|endoftext|>")):
    """The oracle: the processor and `generate` by themselves, for one row at a time, with no padding anywhere."""
    model.eval()
    texts = []
    for row in rows:
        prompt = processor.apply_chat_template(row["messages"][:1], tokenize=False, add_generation_prompt=True)
        batch = processor(text=[prompt], images=row["images"] or None, return_tensors="pt")
        tokens = model.generate(**batch, max_new_tokens=LENGTH, do_sample=False)[0, batch["input_ids"].shape[1] :]
        text = processor.tokenizer.decode(tokens)
        for end in ends:
            text = text.split(end)[0]
        texts.append(text.strip())
    return texts


def test_rows_have_answers_of_different_length_so_that_a_mix_up_shows(qwen, blip):
    expected = one_by_one(*qwen, tiny.chat_rows())
    assert expected == [row["answer"] for row in tiny.chat_rows()]  # learnt by heart
    assert len({len(text) for text in expected}) >= 5
    answers = answer(*blip, tiny.question_rows(), Seq2SeqCollator)
    assert answers == [row["answer"] for row in tiny.question_rows()]


@pytest.mark.parametrize(("batch_size", "num_workers"), [(1, 0), (3, 0), (3, 2), (8, 0)])
@pytest.mark.parametrize("checkpoint", [tiny.qwen2_vl, tiny.trained_qwen2_vl])
def test_batches_of_qwen2_vl_give_the_texts_of_one_row_at_a_time(checkpoint, batch_size, num_workers):
    model, processor = load(checkpoint())
    rows = tiny.chat_rows()
    expected = one_by_one(model, processor, rows)
    assert answer(model, processor, rows, batch_size=batch_size, num_workers=num_workers) == expected
    assert answer(model, processor, rows[::-1], batch_size=batch_size) == expected[::-1]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batches_of_blip2_give_the_texts_of_one_row_at_a_time(blip, batch_size):
    model, processor = blip
    expected = []
    for row in tiny.question_rows():
        batch = processor(images=row["image"], text=row["prompt"], return_tensors="pt")
        tokens = model.generate(**batch, max_new_tokens=LENGTH, do_sample=False)
        expected.append(processor.tokenizer.decode(tokens[0], skip_special_tokens=True).strip())
    assert len(set(expected)) == len(expected)
    assert answer(model, processor, tiny.question_rows(), Seq2SeqCollator, batch_size=batch_size) == expected


@pytest.mark.parametrize("training", [True, False])
def test_the_model_comes_back_in_the_mode_it_came_in_and_without_gradients(qwen, training):
    model, processor = qwen
    model.train(training)
    answer(model, processor, tiny.chat_rows()[:2])
    assert model.training is training and model.model.language_model.training is training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_modules_that_were_frozen_into_eval_mode_stay_there(qwen):
    model, processor = qwen
    model.train()
    model.model.visual.eval()  # as one does with a frozen tower
    answer(model, processor, tiny.chat_rows()[:2])
    assert model.training and not model.model.visual.training


def test_an_error_while_answering_leaves_the_model_in_its_mode(qwen):
    model, processor = qwen
    model.train()
    rows = [*tiny.chat_rows()[:1], {**tiny.chat_rows()[1], "images": ["no such file.png"]}]
    with pytest.raises(Exception, match="no such file"):
        answer(model, processor, rows, batch_size=1)
    assert model.training


def test_a_dataset_gives_the_same_as_a_list(qwen):
    rows = tiny.chat_rows()
    for row in rows:  # Arrow wants one type per column
        row["messages"] = [dict(message) for message in row["messages"]]
    dataset = datasets.Dataset.from_list(rows)
    assert any(None in part.values() for part in dataset[0]["messages"][0]["content"])  # the None keys of Arrow
    expected = [row["answer"] for row in rows]
    assert answer(*qwen, dataset, batch_size=3) == expected
    assert answer(*qwen, dataset.select([4, 0, 2]), batch_size=2) == [expected[i] for i in (4, 0, 2)]


def test_the_longest_rows_come_first_and_the_order_of_answers_is_that_of_rows(qwen):
    model, processor = qwen
    seen = []

    class Recording(ChatCollator):
        def __call__(self, rows):
            seen.extend(row["id"] for row in rows)
            return super().__call__(rows)

    answers = answer(model, processor, collator=Recording, batch_size=3)
    assert answers == [row["answer"] for row in tiny.chat_rows()]
    assert seen[0] == "blue" and seen[-1] == "text only"
    assert sorted(seen) == sorted(row["id"] for row in tiny.chat_rows())


def test_no_rows_give_no_answers(qwen):
    assert answer(*qwen, []) == []
    assert answer(*qwen, datasets.Dataset.from_list(tiny.chat_rows()).select([])) == []


def test_special_tokens_are_kept_and_the_end_is_cut(qwen):
    answers = answer(*qwen)
    assert answers[4] == "<|box_start|>(1,2),(3,4)<|box_end|>"
    assert not any(token in text for text in answers for token in ("<|im_end|>", "<|endoftext|>", "<|im_start|>"))


def test_an_answer_that_does_not_end_is_cut_at_max_new_tokens(qwen):
    model, processor = qwen
    texts = generate(model, tiny.chat_rows(), ChatCollator(processor, prompt_only=True), max_new_tokens=2)
    tokens = [processor.tokenizer(row["answer"]).input_ids for row in tiny.chat_rows()]
    assert texts == [processor.tokenizer.decode(ids[:2]).strip() for ids in tokens]


SETTINGS = [
    {"do_sample": True, "temperature": 5.0, "top_k": 0, "top_p": 1.0},
    {"repetition_penalty": 1e4},
    {"no_repeat_ngram_size": 1},
    {"num_beams": 4, "length_penalty": 5.0},
    {"max_length": 3},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("kind", ["qwen", "blip"])
def test_what_a_checkpoint_asks_of_generation_does_not_change_the_answers(kind, settings, tmp_path):
    folder = tiny.trained_qwen2_vl() if kind == "qwen" else tiny.trained_blip2()
    rows = tiny.chat_rows() if kind == "qwen" else tiny.question_rows()
    model, processor = load(folder)
    for module in model.modules():  # BLIP-2's language model has one of its own
        if hasattr(module, "generation_config"):
            module.generation_config.update(**settings)
    torch.manual_seed(0)
    assert answer(model, processor, rows, ChatCollator if kind == "qwen" else Seq2SeqCollator) == [
        row["answer"] for row in rows
    ]


def test_a_caller_can_override_greedy_decoding(qwen):
    torch.manual_seed(0)
    wild = answer(*qwen, do_sample=True, temperature=50.0)
    assert wild != [row["answer"] for row in tiny.chat_rows()]


@pytest.mark.parametrize("kind", ["qwen", "blip"])
def test_a_model_with_an_adapter_answers_as_one_with_the_adapter_merged(kind):
    model, processor = load(tiny.trained_qwen2_vl() if kind == "qwen" else tiny.trained_blip2())
    task, targets = ("CAUSAL_LM", ["q_proj", "v_proj"]) if kind == "qwen" else ("SEQ_2_SEQ_LM", ["q", "v"])
    torch.manual_seed(0)
    settings = LoraConfig(task_type=task, target_modules=targets, lora_alpha=200, init_lora_weights=False)
    adapted = get_peft_model(model, settings)
    rows, collator = (tiny.chat_rows(), ChatCollator) if kind == "qwen" else (tiny.question_rows(), Seq2SeqCollator)
    expected = answer(model, processor, rows, collator, batch_size=1)
    assert answer(adapted, processor, rows, collator, batch_size=3) == expected
    assert expected != [row["answer"] for row in rows]  # the adapter says something else
    assert answer(adapted.merge_and_unload(), processor, rows, collator, batch_size=8) == expected


def test_autocast_computes_in_the_dtype_of_training(qwen):
    model, processor = qwen
    seen = []
    with model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype)):
        answer(model, processor, tiny.chat_rows()[:2], autocast=torch.bfloat16)
    assert set(seen) == {torch.bfloat16}


def test_an_image_on_disk_is_opened_in_the_collator(qwen, tmp_path):
    rows = tiny.chat_rows()[:2]
    for row in rows:
        row["images"][0].save(tmp_path / f"{row['id']}.png")
        row["images"] = [str(tmp_path / f"{row['id']}.png")]
    assert answer(*qwen, rows) == [row["answer"] for row in rows]


def test_an_evaluation_scores_every_row_and_keeps_their_order(qwen):
    model, processor = qwen
    rows = tiny.chat_rows()
    rows[2]["answer"] = "something else"
    evaluation = Evaluation(
        collator=ChatCollator(processor, prompt_only=True),
        metric=tiny.exact_match,
        score=tiny.exact_scores,
        headline="exact",
        max_new_tokens=LENGTH,
        reference=lambda row: row["answer"],
        batch_size=3,
        keep=("image_size",),
    )
    metrics, predictions = evaluation(model, rows)
    assert metrics == Scores(8, {"exact": Number(7 / 8, 8)})
    assert [row["id"] for row in predictions] == [row["id"] for row in rows]
    assert [row["score"] for row in predictions] == [1, 1, 0, 1, 1, 1, 1, 1]
    assert predictions[0] == {
        "id": "red",
        "prediction": "red",
        "reference": "red",
        "score": 1.0,
        "image_size": [56, 56],
    }
    assert isinstance(rows[0]["images"][0], Image.Image)  # the caller's rows are left alone


@pytest.mark.parametrize("launched", LAUNCHES, ids=["ddp", "zero2", "zero3"])
def test_two_processes_of_which_one_sees_no_image_train_as_one(launched, qwen):
    model, processor = AutoModelForImageTextToText.from_pretrained(tiny.trained_qwen2_vl()), qwen[1]
    loss = model(**ChatCollator(processor)(tiny.chat_rows()[2:4])).loss
    loss.backward()
    norm = torch.nn.utils.get_total_norm([weight.grad for weight in model.parameters() if weight.grad is not None])
    for rank in launched("image_losses"):
        assert rank["log"][0]["loss"] == pytest.approx(loss.item(), rel=1e-4)
        assert rank["log"][0]["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)


def test_two_processes_answer_each_row_once_with_the_texts_of_one(qwen):
    expected = answer(*qwen, batch_size=1)
    ranks = launch.ddp("answers")
    for count in (0, 1, 2, 5, 7):
        results = [rank[str(count)] for rank in ranks]
        assert [result["texts"] for result in results] == [expected[:count]] * 2, count
        calls = [result["calls"] for result in results]
        assert len(calls[0]) == len(calls[1]) == -(-count // 4), "both wait for each other at every call"
        assert count <= sum(map(sum, calls)) <= count + 1  # fillers cost next to nothing


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_a_model_divided_by_deepspeed_answers_as_a_whole_one(qwen, stage):
    pytest.importorskip("deepspeed")
    expected = answer(*qwen, batch_size=1)
    for rank in launch.deepspeed(stage, "answers"):
        assert rank["divided"] is (stage == 3)
        for count in (0, 1, 2, 5, 7):
            assert rank[str(count)]["texts"] == expected[:count]
