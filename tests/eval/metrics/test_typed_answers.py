"""Answers are compared as their type means them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score
from sklearn.preprocessing import MultiLabelBinarizer

from tests.support.paths import VQA_RAD, written_and_real
from vlm_recipes.eval.metrics.question_types import infer_type
from vlm_recipes.eval.metrics.typed_answers import TYPES, canonical_text, is_right, jaccard, normalize, tidy


@pytest.mark.parametrize(
    ("kind", "said", "true", "right"),
    [
        ("yes_no", "Yes.", "yes", True),
        ("yes_no", "no, there is none", "no", True),
        ("yes_no", "yes and no", "yes", False),
        ("yes_no", "there is no text", "no", False),
        ("yes_no", "yesterday", "yes", False),
        ("yes_no", "", "no", False),
        ("color", "red; pink", "pink;red", True),
        ("color", "Pink and red", "red; pink", True),
        ("color", "grey", "gray", True),
        ("color", "pink", "pink; red", False),
        ("color", "pink red", "pink; red", False),
        ("size_numeric", ">20", ">20mm", True),
        ("size_numeric", "5 - 10 MM.", "5-10mm", True),
        ("size_numeric", "0.5-1 cm", "5-10mm", True),
        ("size_numeric", "less than 5 mm", "<5mm", True),
        ("size_numeric", "<5mm", "5-10mm", False),
        ("size_numeric", "5mm", "5-10mm", False),
        ("size_numeric", "5mm", "<5mm", False),
        ("size_numeric", "none", "none", True),
        ("size_numeric", "<5mm; 5-10mm", "5-10mm;<5mm", True),
        ("size_numeric", "20.9 mm", "20 mm", True),
        ("size_numeric", "21.1 mm", "20 mm", False),
        ("count_numeric", "There are 2 polyps", "2", True),
        ("count_numeric", "2.0", "2", True),
        ("count_numeric", "2.5", "2", False),
        ("count_numeric", "21", "20", True),
        ("count_numeric", "22", "20", False),
        ("count_numeric", "1", "0", False),
        ("count_numeric", "none", "none", True),
        ("count_numeric", "9" * 500, "1", False),
        ("mcq", "lower-rigth; center", "center; lower-right", True),
        ("mcq", "Polyp Snare", "polyp snare", True),
        ("mcq", "polyp; polyp", "polyp", True),
        ("mcq", "", "none", False),
        ("yes_no", "\ufeffＹｅｓ。", "yes", True),
        ("color", "红。", "红", True),
        ("color", "ro\u0302se; pink", "pink; rôse", True),
        ("size_numeric", "５-１０ｍｍ", "5-10mm", True),
        ("color", "pink\u037e red", "red; pink", True),  # NFC makes a semicolon of it
        ("size_numeric", "1．5 cm", "15 mm", True),
        ("size_numeric", "5 mm²", "5 mm2", False),  # no length at all
        ("count_numeric", "１２", "12", True),
        ("count_numeric", "1\u200b2", "12", True),
        ("mcq", "type Ｂ", "type b", True),
        ("mcq", "m²", "m2", False),
        ("open_ended", "Ulce\u0300re｡", "ulcère", True),
        ("open_ended", "The polyp!", "polyp", True),
        ("open_ended", "", "a", False),
    ],
)
def test_right_and_wrong_answers_of_each_type(kind, said, true, right):
    assert is_right(said, true, kind) is right


@pytest.mark.parametrize("true", range(0, 60, 3))
def test_a_count_may_be_off_by_the_tolerance_of_the_formula(true):
    for said in range(60):
        assert is_right(str(said), str(true), "count_numeric") == (
            abs(true - said) <= max(0, 0.05 * max(1, abs(true)))
        )


@given(st.sampled_from(TYPES), st.text(max_size=30))
def test_whatever_stands_in_an_answer_it_is_right_beside_itself(kind, answer):
    assert is_right(answer, answer, kind) and isinstance(canonical_text(answer, kind), str)
    assert normalize(answer, kind) == normalize(f"  {answer}\n", kind)


@given(*[st.sets(st.sampled_from(["red", "pink", "white", "flesh"]), min_size=1)] * 2, st.randoms())
def test_partial_credit_is_scikit_learn_s_jaccard_index_whatever_the_order(said, true, random):
    columns = MultiLabelBinarizer(classes=["red", "pink", "white", "flesh"]).fit_transform([true, said])
    shuffled = ["; ".join(random.sample(sorted(colours), len(colours))) for colours in (said, true)]
    expected = jaccard_score(columns[:1], columns[1:], average="samples")
    assert jaccard(*shuffled, "color") == pytest.approx(expected)
    assert is_right(*shuffled, "color") == (expected == 1)


def in_plain(text: str) -> str:
    """`tidy` without what people do not see."""
    text = " ".join(text.lower().split()).removesuffix(".")
    return text.replace("instrumnets", "instruments").replace("rigth", "right")


@pytest.mark.parametrize(
    "file",
    [pytest.param(VQA_RAD, id="vqa_rad")]
    + [
        case
        for name in ("kvasir_vqa/rows.jsonl", "real_colon_vqa/in_template.jsonl")
        for case in written_and_real(name)
    ],
)
def test_texts_of_real_rows_are_compared_as_before_they_were_read_as_people_do(file):
    text = file.read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()] if file.suffix == ".jsonl" else json.loads(text)
    texts = [str(row[key]) for row in rows for key in ("question", "answer")]
    assert len(texts) > 50 and [tidy(text) for text in texts] == [in_plain(text) for text in texts]


def test_types_without_lists_have_no_partial_credit():
    assert [kind for kind in TYPES if jaccard("1", "1", kind) is None] == ["yes_no", "count_numeric", "open_ended"]


def test_an_unknown_type_is_an_error():
    with pytest.raises(ValueError, match="'essay' is none of yes_no"):
        normalize("a", "essay")


@pytest.mark.parametrize(
    ("said", "true"),
    [("<=10mm", ">=10mm"), ("5 mm or less", "5 mm or more"), ("at most 10 mm", "at least 10 mm"), ("20mm+", "20mm")]
    + [("below 20mm", "above 20mm"), ("<=20mm", ">=21mm"), ("no more than 5mm", "more than 5mm")],
)
def test_classes_of_size_that_end_where_another_begins_are_not_the_same(said, true):
    assert not is_right(said, true, "size_numeric") and not is_right(true, said, "size_numeric")
    assert {*infer_type("How large?", [said, true] * 20).choices} == {said, true} - {"20mm"}  # which is any length


@pytest.mark.parametrize(
    ("said", "true"),
    [("greater than 20mm", ">20mm"), ("5mm-10mm", "5-10mm"), ("20+ mm", "at least 20 mm"), ("<= 5 mm", "≤5mm")]
    + [("up to 5mm", "not more than 5 mm"), ("less than or equal to 1cm", "10 mm or smaller"), ("over 2 cm", ">20")],
)
def test_one_class_of_size_is_written_in_many_ways(said, true):
    assert is_right(said, true, "size_numeric")


@pytest.mark.parametrize(
    ("said", "true", "right"),
    [("6", "6-10", False), ("20", "more than 20", False), ("1,000", "1000", True), ("1,000", "1", False)]
    + [("2 polyps above the fold", "2", True), ("3+", "3", False)],
)
def test_a_range_is_no_count(said, true, right):
    assert is_right(said, true, "count_numeric") is right


def test_only_counts_and_lengths_may_be_near():
    assert is_right("100mm", "104mm", "size_numeric") and not is_right("100mm", "104mm", "mcq")


def test_answers_that_only_begin_with_yes_are_no_yes():
    assert infer_type("Which lung?", ["Yes, left lung", "Yes, right lung", "No"] * 20).name == "mcq"
    assert infer_type("Is it?", ["Yes", "no.", "TRUE"]).name == "yes_no"
