"""What is right without looking, counted by hand; the constant mask is in test_masks.py."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.paths import VQA_RAD
from vlm_recipes.eval.metrics.baselines import (
    Majority,
    as_json,
    constant_box,
    from_json,
    majority_answers,
    most_frequent,
    typed_majority,
)
from vlm_recipes.eval.metrics.text import text_metrics
from vlm_recipes.eval.text import text_majority


@given(st.lists(st.sampled_from(["a", "A", "b", "B ", "c"]), min_size=1, max_size=12))
def test_the_most_frequent_answer_is_that_of_a_count_and_of_a_tie_the_first_of_the_alphabet(answers):
    most = max(Counter(answers).values())
    assert most_frequent(answers) == sorted(answer for answer in answers if answers.count(answer) == most)[0]
    alike = [answer.lower().strip() for answer in answers]
    found = most_frequent(answers, canonical=lambda answer: answer.lower().strip())
    assert alike.count(found.lower().strip()) == max(Counter(alike).values())
    spellings = [answer for answer in answers if answer.lower().strip() == found.lower().strip()]
    assert spellings.count(found) == max(Counter(spellings).values())


def test_the_majority_does_not_depend_on_the_order_of_the_rows():
    assert majority_answers(["b", "a"]) == majority_answers(["a", "b"]) == Majority("a", {})
    with pytest.raises(ValueError, match="none given"):
        majority_answers([])
    with pytest.raises(ValueError):
        majority_answers(["a", "b"], [("x",)])


def test_the_majority_answer_is_counted_over_all_rows_and_per_type():
    majority = text_majority(
        ["Yes", "yes ", "no", "red", "blue", "blue"], ["exists", "exists", "exists", "color", "color", "color"]
    )
    assert majority == Majority(overall="blue", by_type={"exists": "yes", "color": "blue"})
    assert [majority.of_type(kind) for kind in ("exists", "color", "unheard of")] == ["yes", "blue", "blue"]
    with pytest.raises(ValueError, match="none given"):
        text_majority([], [])


def test_the_majority_of_the_real_training_rows_is_no_which_is_better_than_yes():
    rows = json.loads(VQA_RAD.read_text(encoding="utf-8"))
    train = [row for row in rows if not row["phrase_type"].startswith("test_")]
    majority = text_majority([str(row["answer"]) for row in train], [row["answer_type"].strip() for row in train])
    assert majority.overall == majority.by_type["CLOSED"] == "no"
    references = [str(row["answer"]) for row in rows if row["phrase_type"].startswith("test_")]
    assert text_metrics([majority.overall] * 451, references)["exact_match"].value == 133 / 451


def test_the_majority_answer_is_counted_without_regard_to_order_or_case():
    answers = ["pink; red", "red;pink", "Pink; Red", "pink", "pink", "yes", "no", "Yes"]
    majority = typed_majority(answers, ["color"] * 5 + ["yes_no"] * 3, ["hue?"] * 3 + ["tone?"] * 2 + ["?"] * 3)
    assert majority.by_type == {"color": "Pink; Red", "yes_no": "Yes"}
    assert majority.by_question == {"hue?": "Pink; Red", "tone?": "pink", "?": "Yes"}


def test_the_constant_box_is_the_median_of_relative_training_boxes():
    boxes = [[[0, 0, 50, 50]], [[20, 100, 100, 200], [40, 0, 200, 400]], []]
    sizes = [(100, 100), (200, 400), (7, 7)]
    constant = constant_box(boxes, sizes)
    assert constant.box == pytest.approx([0.1, 0.0, 0.5, 0.5]) and constant.categories == []
    with pytest.raises(ValueError, match="none in 1 training images"):
        constant_box([[]], [(10, 10)])


def test_the_constant_box_is_called_as_most_training_boxes_are():
    boxes, sizes = [[[0, 0, 5, 5]] * 3, [], [[0, 0, 5, 5]] * 3], [(10, 10)] * 3
    constant = constant_box(boxes, sizes, [["dog", "stop sign", "cat"], [], ["Stop-Sign", "cow", "stop sign"]])
    assert constant.categories == ["stop sign", "cat", "cow", "dog"]
    assert from_json(as_json(constant)) == constant
