"""Constrained answers, against plain forward passes over every sequence that the set allows."""

import re
import unicodedata
from itertools import permutations
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, trainers
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.support import tiny
from tests.support.processes import launch
from vlm_recipes.collators import ChatCollator, Seq2SeqCollator
from vlm_recipes.eval.generation.constraints import Constraint, numbers
from vlm_recipes.eval.generation.generate import generate
from vlm_recipes.eval.metrics.question_types import QuestionType
from vlm_recipes.eval.typed import constraints_by_type

WORDS = ["red", "reddish", "red wine", "wine red", "pink", "none", "yes", "yes/no", "not relevant", "it's", "'s", "in"]
SIZES = ["<5mm", "5-10mm", "11-20mm", ">20mm", ">20", "10", "100", "1", "0", "3.5 cm", "≥5", "½"]
SYMBOLS = ["a)", "(b)", ")", "(", "-", "a,", "a, b", "a.", ".", ":", "?!", '"', "\\", "a\nb", "a  b", "a ", "a"]
LETTERS = ["é", "e\u0301", "grün", "красный", "赤", "赤い", "한글", "😀", "👩‍⚕️", "🏥 a", "\u200bx", "ﬁn", "x²", "İ"]
FEW = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
KINDS = ["one of", "several", "only", "counts", "lengths", "free"]
DECODING = [
    {},
    {"num_beams": 3},
    {"num_beams": 4, "length_penalty": 0.0},
    {"do_sample": True, "temperature": 20.0, "top_k": 0},
]
TIE = 1e-4  # closer log-probabilities may swap places between a batch with a cache and a single pass without


def spelt_alike(choice: str) -> str:
    return unicodedata.normalize("NFC", choice)


def usable(choice: str) -> bool:
    """A prompt that ends in a line break takes white space to itself; lists are made with semicolons."""
    return not choice[:1].isspace() and bool(choice.strip()) and ";" not in spelt_alike(choice)


choice = st.one_of(
    st.sampled_from(WORDS + SIZES),
    st.sampled_from(SYMBOLS + LETTERS),
    st.text("ab c5)<", min_size=1, max_size=6),
    st.text(min_size=1, max_size=5),
).filter(usable)


def sets(smallest: int, largest: int) -> st.SearchStrategy[list[str]]:
    return st.lists(choice, min_size=smallest, max_size=largest, unique_by=spelt_alike)


def row(question: str, image=None) -> dict:
    parts = [{"type": "image"}] * (image is not None) + [{"type": "text", "text": question}]
    return {"id": question, "images": [image] * (image is not None), "messages": [{"role": "user", "content": parts}]}


questions = st.tuples(st.sampled_from(["What?", "Which colour?", "", "Valid answers: red, pink"]), st.integers(0, 30))
questions = questions.map(lambda drawn: row(f"{drawn[0]} {'more ' * drawn[1]}"))


def load(folder):
    return AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def qwen():
    """A random Qwen2-VL in float64 with an output layer of its own, so that prompts get different answers."""
    model, processor = load(tiny.qwen2_vl())
    weights = torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(1))
    model.lm_head.weight = torch.nn.Parameter(0.4 * weights)
    for layer in model.model.language_model.layers:
        layer.self_attn.q_proj.weight.data *= 30  # attention that looks at single words
    return model.double().eval(), processor


@pytest.fixture(scope="module")
def counts(qwen):
    return Constraint(numbers(), ChatCollator(qwen[1]).answer_ids)


@pytest.fixture(scope="module")
def lengths(qwen):
    return Constraint(["none", *numbers(("mm", " cm"))], ChatCollator(qwen[1]).answer_ids)


def constrain(processor, choices, several=False) -> Constraint:
    return Constraint(choices, ChatCollator(processor).answer_ids, several)


def answer(qwen, rows, constraints, max_new_tokens=4, **kwargs) -> list[str]:
    model, processor = qwen
    collator = ChatCollator(processor, prompt_only=True)
    return generate(model, rows, collator, max_new_tokens=max_new_tokens, constraints=constraints, **kwargs)


def is_list_of(text: str, choices: list[str]) -> bool:
    parts = text.split("; ")
    return set(parts) <= set(choices) and len(set(parts)) == len(parts)


def every_answer(choices: list[str], several: bool = False) -> list[str]:
    if not several:
        return list(choices)
    return ["; ".join(order) for n in range(1, len(choices) + 1) for order in permutations(choices, n)]


class Oracle:
    """The tokenizer's own tokens and plain forward passes, one sequence at a time; no batch, padding or cache.

    Args:
        tokens: every answer that is allowed -> its token ids, end of turn included.
        step: the ids said so far -> log-probabilities of the token after the prompt and after each of them,
            `[1 + said, vocabulary]`.
    """

    def __init__(self, tokens, step):
        self.tokens, self.step = tokens, step

    def greedy(self) -> tuple[str, float]:
        """Token by token the likeliest that any answer has there; and the narrowest margin."""
        path, margin, left = (), float("inf"), self.tokens
        while len(left) > 1:
            scores = self.step(path)[-1]
            best, *others = sorted({ids[len(path)] for ids in left.values()}, key=lambda token: -scores[token])
            margin = min([margin, *(float(scores[best] - scores[token]) for token in others)])
            path += (best,)
            left = {text: ids for text, ids in left.items() if ids[: len(path)] == path}
        return next(iter(left)), margin

    def likeliest(self) -> tuple[str, float]:
        """The answer of the highest log-probability in all, and its margin."""
        scores = {text: float(self.step(ids[:-1])[range(len(ids)), ids].sum()) for text, ids in self.tokens.items()}
        best, second = sorted(scores, key=lambda text: -scores[text])[:2]
        return best, scores[best] - scores[second]


def chat_oracle(qwen, row, answers, end="<|im_end|>", before="") -> Oracle:
    model, processor = qwen
    prompt = processor.apply_chat_template(row["messages"], tokenize=False, add_generation_prompt=True)
    batch = processor(text=[prompt], images=row["images"] or None, return_tensors="pt")
    short, tokens = processor.tokenizer(prompt).input_ids, {}
    for text in answers:
        ids = processor.tokenizer(prompt + before + text + end).input_ids
        assert ids[: len(short)] == short
        tokens[text] = tuple(ids[len(short) :])

    @torch.no_grad()
    def step(said):
        longer = {"input_ids": torch.cat([batch["input_ids"], torch.tensor([said], dtype=torch.long)], dim=1)}
        for key in {"attention_mask", "mm_token_type_ids"} & set(batch):
            longer[key] = torch.nn.functional.pad(batch[key], (0, len(said)), value=int(key == "attention_mask"))
        return model(**{**batch, **longer}).logits[0, len(batch["input_ids"][0]) - 1 :].log_softmax(-1)

    return Oracle(tokens, step)


# Nothing else comes out.


@settings(max_examples=80, **FEW)
@given(data=st.data())
def test_answers_stay_in_their_sets_and_free_rows_say_what_they_would_say_alone(qwen, counts, lengths, data):
    rows = data.draw(st.lists(questions, min_size=1, max_size=5))
    kinds = data.draw(st.lists(st.sampled_from(KINDS), min_size=len(rows), max_size=len(rows)))
    closed, constraints = [], []
    for i, kind in enumerate(kinds):
        choices = []
        if kind in ("one of", "several", "only"):
            choices = data.draw(sets(1, 1) if kind == "only" else sets(2, 6))
        if choices and data.draw(st.booleans()):  # the prompt names what may be answered
            rows[i] = row(rows[i]["id"] + " Valid answers: " + ", ".join(choices))
        ready = {"free": None, "counts": counts, "lengths": lengths}
        constraints.append(ready[kind] if kind in ready else constrain(qwen[1], choices, kind == "several"))
        closed.append(choices)
    how = {"max_new_tokens": data.draw(st.integers(1, 12)), "batch_size": data.draw(st.integers(1, 4))}
    how |= data.draw(st.sampled_from(DECODING))

    answers = answer(qwen, rows, constraints, **how)
    for kind, choices, text in zip(kinds, closed, answers, strict=True):
        if kind in ("one of", "only"):
            assert text in choices
        elif kind == "several":
            assert is_list_of(text, choices)
        elif kind == "counts":
            assert text.isdecimal() and text == str(int(text)) and int(text) <= 999
        elif kind == "lengths":
            assert text == "none" or re.fullmatch(r"(0|[1-9]\d{0,2})(mm| cm)", text)
    if "do_sample" not in how and "free" in kinds:
        asked = [i for i, kind in enumerate(kinds) if kind != "only"]  # what is known takes no place in a batch
        alone = answer(qwen, [rows[i] for i in asked], None, **how)
        free = {i: text for i, text in zip(asked, alone, strict=True) if kinds[i] == "free"}
        assert {i: answers[i] for i in free} == free


@pytest.mark.parametrize("decoding", [{}, {"num_beams": 4}, {"num_beams": 4, "length_penalty": 3.0}])
def test_free_rows_end_where_they_would_beside_a_longer_answer(qwen, decoding):
    rows = [row(f"What {n}? {'more ' * n}") for n in range(12)]
    constraints = [None, constrain(qwen[1], ["an answer of many tokens", "and another one of many tokens"])] * 6
    for max_new_tokens in (1, 3, 5):
        alone = answer(qwen, rows, None, max_new_tokens, batch_size=4, **decoding)
        assert answer(qwen, rows, constraints, max_new_tokens, batch_size=4, **decoding)[::2] == alone[::2]


def test_different_prompts_get_different_answers_so_that_a_mix_up_shows(qwen):
    rows = [row(f"What {n}? {'more ' * n}") for n in range(12)]
    answers = answer(qwen, rows, [constrain(qwen[1], ["red", "pink", "<5mm", "none", "a)"], several=True)] * 12)
    assert len(set(answers)) >= 5
    alone = [answer(qwen, [one], [constrain(qwen[1], ["red", "pink", "<5mm", "none", "a)"], True)])[0] for one in rows]
    assert answers == alone


def test_a_large_set_and_a_long_list_of_choices(qwen, lengths):
    rows = [row(f"What {n}? {'more ' * n}") for n in range(8)]
    assert len(lengths.choices) == 2001
    answers = answer(qwen, rows, [lengths] * 8, max_new_tokens=1)
    assert answers == [chat_oracle(qwen, one, lengths.choices).greedy()[0] for one in rows]
    twelve = (WORDS + SIZES)[:12]
    answers = answer(qwen, rows, [constrain(qwen[1], twelve, several=True)] * 8, max_new_tokens=1)
    assert all(is_list_of(text, twelve) for text in answers)


# The likeliest of them.


@pytest.mark.parametrize("several", [False, True])
def test_greedy_decoding_takes_the_likeliest_token_that_an_answer_has_there(qwen, several):
    sure = []

    @settings(max_examples=30, **FEW)
    @given(choices=sets(2, 4 if several else 8), rows=st.lists(questions, min_size=1, max_size=3))
    def check(choices, rows):
        answers = answer(qwen, rows, [constrain(qwen[1], choices, several)] * len(rows))
        for one, text in zip(rows, answers, strict=True):
            expected, margin = chat_oracle(qwen, one, every_answer(choices, several)).greedy()
            sure.append(margin > TIE)
            assert text == expected or margin < TIE

    check()
    assert sum(sure) > 0.9 * len(sure)


@pytest.mark.parametrize("several", [False, True])
def test_as_many_beams_as_there_are_answers_find_the_likeliest_of_all(qwen, several):
    sure = []

    @settings(max_examples=15, **FEW)
    @given(
        choices=sets(2, 4 if several else 8),
        rows=st.lists(questions, min_size=1, max_size=2),
        more=st.sampled_from([0, 1, 7]),
        free=st.booleans(),
    )
    def check(choices, rows, more, free):
        possible = every_answer(choices, several)
        beams = {"num_beams": len(possible) + more, "length_penalty": 0.0}
        constraints = [constrain(qwen[1], choices, several)] * len(rows) + [None] * free
        answers = answer(qwen, rows + rows[:free], constraints, **beams)
        for one, text in zip(rows, answers, strict=False):
            expected, margin = chat_oracle(qwen, one, possible).likeliest()
            sure.append(margin > TIE)
            assert text == expected or margin < TIE

    check()
    assert sum(sure) > 0.9 * len(sure)


def test_pictures_count(qwen):
    rows = [row("What?", image) for chat in tiny.chat_rows() for image in chat["images"]]
    choices = ["red", "reddish", "<5mm", "a)", "none", "pink"]
    constraint = constrain(qwen[1], choices)
    assert answer(qwen, rows, [constraint] * 7) == [chat_oracle(qwen, one, choices).greedy()[0] for one in rows]
    beams = answer(qwen, rows, [constraint] * 7, num_beams=6, length_penalty=0.0)
    assert beams == [chat_oracle(qwen, one, choices).likeliest()[0] for one in rows]
    assert len(set(beams)) > 1


def test_an_answer_is_as_likely_as_the_tokens_that_training_shows_for_it(qwen):
    """Also where the checkpoint itself does not know the end of turn as an end, and where it knows several."""
    model, processor = qwen
    known = model.generation_config.eos_token_id
    rows = [row(f"What {n}? {'more ' * n}") for n in range(8)]
    choices = ["red", "reddish", "<5mm", "a)", "none"]
    expected = [chat_oracle(qwen, one, every_answer(choices[:3], True)).likeliest()[0] for one in rows]
    try:
        for ends in (known, known[::-1], [processor.tokenizer.pad_token_id], known[0]):
            model.generation_config.eos_token_id = ends
            constraint = constrain(processor, choices[:3], several=True)
            assert answer(qwen, rows, [constraint] * 8, num_beams=15, length_penalty=0.0) == expected
            assert set(answer(qwen, rows, [constrain(processor, choices)] * 8)) <= set(choices)
    finally:
        model.generation_config.eos_token_id = known


# What it costs.


def test_the_only_answer_needs_no_step_of_the_model(qwen):
    model, processor = qwen
    steps = []
    only = constrain(processor, ["not relevant"]), constrain(processor, ["red", "red"], several=True)
    with model.register_forward_hook(lambda *call: steps.append(1)):
        rows = [row("What?"), row("Which?"), row("And?")]
        assert answer(qwen, rows[:2], only) == ["not relevant", "red"] and not steps
        assert answer(qwen, rows, [only[0], constrain(processor, ["yes", "no"]), only[0]])[::2] == ["not relevant"] * 2
    assert 0 < len(steps) <= max(len(processor.tokenizer(text).input_ids) for text in ("yes", "no")) + 1


def test_tensors_are_kept_per_state_of_an_answer_and_not_per_row(qwen):
    constraint = constrain(qwen[1], ["red", "reddish", "red wine", "<5mm"], several=True)
    rows = [row(f"What {n}? {'more ' * n}") for n in range(4)]
    answer(qwen, rows, [constraint] * 4)
    kept = len(constraint._cached)
    answer(qwen, rows * 10, [constraint] * 40, batch_size=16)
    assert len(constraint._cached) == kept > 0


# Other models.


@pytest.mark.parametrize("checkpoint", ["qwen2_vl", "qwen2_5_vl", "llava"])
def test_a_constraint_is_made_of_the_labels_of_training(checkpoint, request):
    collator = ChatCollator(request.getfixturevalue(checkpoint).processor)

    def labels(text):
        turns = [*row("What?")["messages"], {"role": "assistant", "content": [{"type": "text", "text": text}]}]
        trained = collator([{"messages": turns, "images": []}])["labels"][0]
        return trained[trained != -100].tolist()

    @settings(max_examples=60, **FEW)
    @given(choices=sets(1, 4), free=st.text(max_size=20).filter(lambda text: text.strip()))
    def check(choices, free):
        constraint = Constraint(choices, collator.answer_ids, several=True)
        for text in every_answer(choices, several=True):
            trained = labels(text)
            assert collator.answer_ids(text) == trained
            assert all(token in constraint.allowed(trained[:i]) for i, token in enumerate(trained))
            said = constraint.text(trained)  # LLaVA's template makes no difference between "a" and "a "
            assert said == text or (is_list_of(said, choices) and labels(said) == trained)
            assert [constraint.text(trained[:i]) for i in range(len(trained))] == [None] * len(trained)
        try:
            ids = collator.answer_ids(free)
        except ValueError as error:
            assert repr(free) in str(error) and free[0].isspace()  # the prompt's line break would swallow the space
        else:
            assert ids == labels(free)

    check()


def test_llava_whose_template_ends_no_turn_answers_from_the_set(llava):
    llava_in_float64 = model, processor = llava.new_model().double().eval(), llava.processor
    model.lm_head.weight.data *= 50
    rows = [row(f"What {n}? {'more ' * n}", image) for n, image in enumerate(tiny.chat_rows()[0]["images"] * 8)]
    for choices, several in (
        (["red", "reddish", "red wine", "<5mm", "a)", "é", "赤"], False),
        (["a)", "a", "<5"], True),
    ):
        constraint = constrain(processor, choices, several)
        possible = every_answer(choices, several)
        oracles = [chat_oracle(llava_in_float64, one, possible, end="</s>", before=" ") for one in rows]
        answers = answer(llava_in_float64, rows, [constraint] * 8)
        assert answers == [oracle.greedy()[0] for oracle in oracles]
        answers = answer(llava_in_float64, rows, [constraint] * 8, num_beams=len(possible), length_penalty=0.0)
        assert answers == [oracle.likeliest()[0] for oracle in oracles]


def test_blip2_whose_decoder_starts_with_padding_answers_from_the_set():
    model, processor = load(tiny.blip2())
    model.language_model.lm_head.weight = torch.nn.Parameter(5 * model.language_model.lm_head.weight.detach())
    rows, collator = tiny.question_rows(), Seq2SeqCollator(processor, prompt_only=True)
    sure = []

    def oracle(one, possible):
        batch = collator([one])

        @torch.no_grad()
        def step(said):
            return model(**batch, decoder_input_ids=torch.tensor([[0, *said]])).logits[0].log_softmax(-1)

        return Oracle({text: tuple(processor.tokenizer(text).input_ids) for text in possible}, step)

    @settings(max_examples=12, **FEW)
    @given(
        choices=st.lists(
            st.sampled_from(WORDS + SIZES[:-2] + ["blue, and", "a)"]), min_size=2, max_size=4, unique=True
        ),
        several=st.booleans(),
        beams=st.booleans(),
        max_new_tokens=st.integers(1, 6),
    )
    def check(choices, several, beams, max_new_tokens):
        constraint = Constraint(choices, lambda text: processor.tokenizer(text).input_ids, several)
        possible = every_answer(choices, several)
        decoding = {"num_beams": len(possible), "length_penalty": 0.0} if beams else {}
        free = generate(model, rows[3:], collator, max_new_tokens=max_new_tokens, **decoding)
        answers = generate(
            model, rows, collator, max_new_tokens=max_new_tokens, constraints=[constraint] * 3 + [None] * 4, **decoding
        )
        assert answers[3:] == free
        for one, text in zip(rows[:3], answers, strict=False):
            best = oracle(one, possible)
            expected, margin = best.likeliest() if beams else best.greedy()
            sure.append(margin > TIE)
            assert text == expected or margin < TIE

    check()
    assert sum(sure) > 0.9 * len(sure)


# What is refused.


@pytest.mark.parametrize(
    ("choices", "several", "complaint"),
    [
        ([], False, "the set is empty"),
        ([], True, "the set is empty"),
        (["red", ""], False, "the answer '' has no tokens"),
        (["red", " \n"], True, r"the answer ' \\n' has no tokens"),
        (["yes<|im_end|>"], False, r"the answer 'yes<\|im_end\|>' ends its turn more than once"),
        (["no", "<|im_end|>yes"], True, r"the answer '<\|im_end\|>yes' ends its turn more than once"),
        (["red", "a; b"], True, "the answer 'a; b' holds the ';'"),
        (["a", "a\u037e b"], True, "the answers 'a' and 'a\u037e b' have the same tokens in a list"),  # NFC: ";"
    ],
)
def test_a_set_that_cannot_be_answered_from_is_refused_by_name(qwen, choices, several, complaint):
    with pytest.raises(ValueError, match=complaint):
        constrain(qwen[1], choices, several)


def test_an_answer_that_changes_the_tokens_of_the_prompt_is_refused_by_name(qwen2_vl):
    with pytest.raises(ValueError, match=r"the tokens of the prompt change before the answer '\\nred'"):
        constrain(qwen2_vl.processor, ["red", "\nred"])  # the prompt ends in a line break, and two are one token


def test_a_list_whose_separator_melts_into_a_choice_is_refused_by_name():
    tokenizer = Tokenizer(models.BPE())  # with nothing that keeps words apart: "; (" becomes one token
    trainer = trainers.BpeTrainer(special_tokens=["<end>"], show_progress=False, min_frequency=10)
    tokenizer.train_from_iterator(["a; (b"] + ["x; (x"] * 20 + ["y; (y"] * 20, trainer)
    assert "; (" in tokenizer.encode("a; (b").tokens

    def answer_ids(text):
        return tokenizer.encode(f"{text}<end>").ids

    with pytest.raises(ValueError, match=r"the tokens of the answer '.*' change when it stands in a list"):
        Constraint(["a", "(b"], answer_ids, several=True)
    assert Constraint(["a", "(b"], answer_ids).choices == ("a", "(b")
    assert Constraint(["a", "b"], answer_ids, several=True).text(answer_ids("b; a")) == "b; a"


def test_a_semicolon_is_an_answer_where_no_list_is(qwen):
    choices = [";", "a; b", "a", "; ; "]
    assert set(answer(qwen, [row("What?"), row("Which?")], [constrain(qwen[1], choices)] * 2)) <= set(choices)


def test_an_answer_that_would_be_cut_by_another_end_is_refused_by_name(qwen):
    for choices in (["yes<|endoftext|>no", "red"], ["yes<|endoftext|>"]):
        constraint = constrain(qwen[1], choices)  # one of the two tokens at which this checkpoint ends
        with pytest.raises(ValueError, match=r"the answer 'yes<\|endoftext\|>.*' spells a token that ends answers"):
            answer(qwen, [row("What?")], [constraint])


def test_answers_that_the_tokenizer_takes_for_one_count_once_and_others_are_refused(qwen, llava):
    constraint = constrain(qwen[1], ["e\u0301", "é", "red"], several=True)
    assert constraint.choices == ("e\u0301", "red")
    answers = answer(qwen, [row(f"What {n}?") for n in range(6)], [constraint] * 6)
    assert all(is_list_of(text, ["e\u0301", "red"]) for text in answers)
    assert constrain(qwen[1], ["a", "a ", "a"]).choices == ("a", "a ")  # Qwen's tokenizer sees the space …
    assert constrain(llava.processor, ["a", "a ", "a"]).choices == ("a",)  # … and LLaVA's template removes it
    processor = AutoProcessor.from_pretrained(tiny.blip2())
    with pytest.raises(ValueError, match="the answers '赤' and '青' have the same tokens"):
        Constraint(["red", "赤", "青"], lambda text: processor.tokenizer(text).input_ids)
    with pytest.raises(ValueError, match="the answers 'a, b' and 'c, d' end their turns with different tokens"):
        Constraint(["a, b", "c, d"], lambda text: processor.tokenizer(text, add_special_tokens=False).input_ids)


def test_each_row_has_its_constraint(qwen):
    with pytest.raises(ValueError, match="1 constraints for 2 rows"):
        answer(qwen, [row("What?"), row("Which?")], [None])
    assert answer(qwen, [], []) == []


def test_a_type_of_question_says_what_its_answers_may_be(qwen):
    constraints = constraints_by_type(ChatCollator(qwen[1]).answer_ids)
    counted = constraints(QuestionType("count_numeric", ("none",), units=("",)))
    assert set(counted.choices) == {"none", *map(str, range(1000))}
    assert constraints(QuestionType("open_ended")) is None
    colours = QuestionType("color", ("red", "pink"), several=True)
    assert constraints(colours) is constraints(QuestionType.of(colours.columns()))
    assert is_list_of(answer(qwen, [row("What?")], [constraints(colours)])[0], ["red", "pink"])


# Several processes.


def layouts(processor) -> list[list[Constraint | None]]:
    """For eight rows; rows with one possible answer lie in one share, in the other, in both or everywhere."""
    only, one_of = constrain(processor, ["none"]), constrain(processor, ["red", "reddish", "white"])
    several = constrain(processor, ["blue", "cyan", "none"], several=True)
    return [
        [only, None, only, one_of, only, several, only, one_of],
        [one_of, only, None, only, several, one_of, several, None],
        [only] * 3 + [several] + [only] * 4,
        [only] * 8,
        [one_of, several] * 4,
    ]


def answers_of_layouts(checkpoint: Path, batch_size: int) -> list[dict]:
    model, processor = load(checkpoint)
    calls, whole = [], model.generate
    model.generate = lambda **batch: calls.append(1) or whole(**batch)
    results = []
    for constraints in layouts(processor):
        calls.clear()
        texts = answer((model, processor), tiny.chat_rows(), constraints, batch_size=batch_size)
        results.append({"texts": texts, "calls": len(calls)})
    return results


def test_two_processes_give_the_constrained_answers_of_one():
    expected = answers_of_layouts(tiny.trained_qwen2_vl(), batch_size=1)
    ranks = launch.in_two_processes(answers_of_layouts, tiny.trained_qwen2_vl(), 2)
    for i, alone in enumerate(expected):
        assert [rank[i]["texts"] for rank in ranks] == [alone["texts"]] * 2
        assert ranks[0][i]["calls"] == ranks[1][i]["calls"] == -(-alone["calls"] // 4), "both wait for each other"
