"""Accuracy by type against counts by hand and scikit-learn; empty types are n = 0 and never a number."""

import json
from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, recall_score

from tests.support.paths import written_and_real
from vlm_recipes.eval.metrics import type_accuracy as typed
from vlm_recipes.eval.metrics.baselines import typed_majority
from vlm_recipes.eval.metrics.number import flat
from vlm_recipes.eval.metrics.question_types import QuestionTypes
from vlm_recipes.eval.metrics.statistics import macro_average
from vlm_recipes.eval.metrics.typed_answers import TYPES

PREDICTIONS = ["Yes", "no", "red; pink", "pink", "2", "3", "<5 mm"]
REFERENCES = ["yes", "yes", "pink; red", "pink; red", "2", "4", "<5mm"]
ROW_TYPES = ["yes_no", "yes_no", "color", "color", "count_numeric", "count_numeric", "size_numeric"]


def type_accuracy(*columns, **more) -> dict[str, float]:
    return flat(typed.type_accuracy(*columns, **more))


def test_each_type_has_its_accuracy_and_its_number_of_rows():
    metrics = type_accuracy(PREDICTIONS, REFERENCES, ROW_TYPES)
    assert metrics["n"] == 7 and metrics["accuracy"] == pytest.approx(4 / 7)
    by_type = {"yes_no": 1 / 2, "color": 1 / 2, "count_numeric": 1 / 2, "size_numeric": 1}
    assert {kind: metrics[f"accuracy_{kind}"] for kind in by_type} == by_type
    assert metrics["accuracy_macro"] == pytest.approx(np.mean(list(by_type.values())))
    assert metrics["jaccard"] == pytest.approx((1 + 1 / 2 + 1) / 3) and metrics["jaccard_n"] == 3


def test_a_type_without_rows_is_a_line_with_n_0_and_no_number():
    metrics = type_accuracy(PREDICTIONS, REFERENCES, ROW_TYPES)
    assert metrics["accuracy_mcq_n"] == metrics["accuracy_open_ended_n"] == 0
    assert "accuracy_mcq" not in metrics and "accuracy_mcq_low" not in metrics
    assert all(np.isfinite(value) for value in metrics.values())


def test_without_rows_there_are_only_counts():
    majority = typed_majority(["yes"], ["yes_no"])
    assert type_accuracy([], [], [], majority=majority) == {"n": 0} | {f"accuracy_{kind}_n": 0 for kind in TYPES}


def test_the_macro_average_is_scikit_learn_s_macro_recall_over_types():
    """With a type as class and a right answer as hit, the mean over types is macro-averaged recall."""
    random = np.random.default_rng(0)
    kinds = random.choice(["a", "b", "c"], 200, p=[0.7, 0.2, 0.1])
    right = random.random(200) < 0.6
    found = np.where(right, kinds, "missed")
    expected = recall_score(kinds, found, labels=["a", "b", "c"], average="macro")
    metrics = macro_average(right.astype(float).tolist(), kinds.tolist())
    assert metrics.value == pytest.approx(expected)
    assert metrics.low < expected < metrics.high
    resamples = [random.integers(0, 200, 200) for _ in range(2000)]
    by_hand = [np.mean([right[rows][kinds[rows] == kind].mean() for kind in "abc"]) for rows in resamples]
    assert [metrics.low, metrics.high] == pytest.approx(np.percentile(by_hand, [2.5, 97.5]), abs=0.012)


def test_whole_images_are_resampled():
    """Ten rows that always agree are one observation: the interval is as wide as for one row each."""
    random = np.random.default_rng(1)
    per_image = (random.random(60) < 0.5).astype(float)
    alone = macro_average(per_image.tolist(), ["a"] * 60)
    images = [str(i) for i in range(60) for _ in range(10)]
    together = macro_average(np.repeat(per_image, 10).tolist(), ["a"] * 600, images)
    width = alone.high - alone.low
    assert together.high - together.low == pytest.approx(width, rel=0.15)
    rows = macro_average(np.repeat(per_image, 10).tolist(), ["a"] * 600)
    assert rows.high - rows.low < 0.5 * width


def test_a_question_spelt_otherwise_in_the_test_part_has_the_same_majority_answer():
    majority = typed_majority(["0", "0", "1"], ["count_numeric"] * 3, ["How many instrumnets?"] * 3)
    metrics = type_accuracy(["1"], ["0"], ["count_numeric"], ["how many  instruments?"], majority=majority)
    assert metrics["question_baseline_accuracy"] == 1


def test_lists_of_different_lengths_are_an_error():
    with pytest.raises(ValueError, match="2 predictions, 1 references, 1 types"):
        type_accuracy(["a", "b"], ["a"], ["mcq"])


MOST_FREQUENT = (
    {"yes_no": ("yes", 4), "count_numeric": ("1", 3), "size_numeric": ("<5mm", 3), "mcq": ("none", 4), "color": 4},
    {
        "yes_no": ("yes", 372),
        "count_numeric": ("1", 278),
        "size_numeric": ("11-20mm", 52),
        "mcq": ("colonoscopy", 152),
        "color": 36,
    },
)


@pytest.mark.parametrize(
    ("file", "expected"), written_and_real("kvasir_vqa/rows.jsonl", MOST_FREQUENT[:1], MOST_FREQUENT[1:])
)
def test_the_baseline_of_each_type_equals_a_count_by_hand(file, expected):
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    questions, answers = [row["question"] for row in rows], [row["answer"] for row in rows]
    inferred = QuestionTypes.infer(questions, answers)
    types = [inferred[question].name for question in questions]
    metrics = type_accuracy(
        answers, answers, types, questions, [row["img_id"] for row in rows], typed_majority(answers, types, questions)
    )
    assert metrics["accuracy"] == metrics["accuracy_macro"] == metrics["jaccard"] == 1
    by_hand = {
        kind: Counter(answers[i] for i, own in enumerate(types) if own == kind)[expected[kind][0]]
        for kind in ("yes_no", "count_numeric", "size_numeric", "mcq")
    }
    by_hand["color"] = Counter(
        tuple(sorted(colour.strip().lower() for colour in answers[i].split(";")))
        for i, kind in enumerate(types)
        if kind == "color"
    )[("pink", "red")]
    assert by_hand == {kind: most if kind == "color" else most[1] for kind, most in expected.items()}
    for kind, right in by_hand.items():
        assert metrics[f"baseline_accuracy_{kind}"] == pytest.approx(right / types.count(kind))
    assert metrics["baseline_accuracy"] == pytest.approx(sum(by_hand.values()) / len(rows))
    yes_no = [i for i, kind in enumerate(types) if kind == "yes_no"]
    always_yes = accuracy_score([answers[i] for i in yes_no], ["yes"] * len(yes_no))
    assert metrics["baseline_accuracy_yes_no"] == pytest.approx(always_yes)
    frequent = [
        Counter(answers[i] for i in yes_no if questions[i] == q).most_common(1)[0][1]
        for q in {questions[i] for i in yes_no}
    ]
    assert metrics["question_baseline_accuracy_yes_no"] == pytest.approx(sum(frequent) / len(yes_no))
