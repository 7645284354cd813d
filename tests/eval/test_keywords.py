"""Sentences with a keyword, beside the answer that training gives most."""

from vlm_recipes.eval.keywords import keyword_evaluation
from vlm_recipes.eval.metrics.baselines import majority_answers


def test_a_kind_that_training_has_not_has_the_overall_majority_for_its_baseline():
    majority = majority_answers(["It is red.", "It is red.", "a tool"], [["colour"], ["colour"], ["tool"]])
    row = {"question": "?", "answer": "It is red.", "short_answer": "red", "image_id": "a"}
    rows = [row | {"kind": kind} for kind in ("colour", "tool", "shade")]
    evaluation = keyword_evaluation(None, 9, majority, ("colour", "tool", "shade"))
    groups = evaluation.metric(["a knife"] * 3, rows)["keyword_accuracy"].groups
    assert {kind: number.baseline for kind, number in groups.items()} == {"colour": 1, "tool": 0, "shade": 1}
