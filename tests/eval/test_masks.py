"""The evaluation of rows with masks: kinds, first queries, and the constant mask beside the model."""

import numpy as np
import pytest

from vlm_recipes.eval.masks import mask_evaluation
from vlm_recipes.eval.metrics.baselines import ConstantMask, best_constant_mask
from vlm_recipes.eval.metrics.masks import encode, mask_metrics
from vlm_recipes.eval.metrics.number import flat

LEFT, TOP = np.arange(16).reshape(4, 4) % 4 < 2, np.arange(16).reshape(4, 4) < 8
ALL, NONE = np.ones((4, 4), dtype=bool), np.zeros((4, 4), dtype=bool)


def row(number: int, image: str, kind: str, first: bool, *true: np.ndarray, ignore=None) -> dict:
    return {
        "id": f"{image}-{number}",
        "image_id": image,
        "question": f"{kind} {number}?",
        "answer": "Sure, [SEG]." if true else "There is none.",
        "kind": kind,
        "first": first,
        "masks": [encode(mask) for mask in true],
        "ignore": None if ignore is None else encode(ignore),
    }


def answer(text: str, *predicted: np.ndarray) -> dict:
    return {"text": text, "masks": [encode(mask) for mask in predicted]}


ROWS = [
    row(0, "a", "sentence", True, LEFT),
    row(1, "a", "sentence", False, TOP),
    row(2, "b", "phrase", True, ALL, ignore=TOP),
    row(3, "c", "absent", True),
]
# IoU 1, 4 / 12, 4 / 8 and 1; intersections 8, 4, 4, 0 of unions 8, 12, 8, 0
ANSWERS = [answer("[SEG]", LEFT), answer("It is [SEG].", LEFT), answer("[SEG] [SEG]", LEFT, TOP), answer("No.")]


def metrics_of(answers, rows, **settings) -> dict[str, float]:
    return flat(evaluation(**settings).metric(answers, rows))


def evaluation(**settings):
    return mask_evaluation(lambda rows: rows, 8, kinds=("sentence", "phrase", "absent", "other"), **settings)


def test_the_numbers_of_all_rows_are_the_mask_metrics_with_intervals_over_images():
    metrics = metrics_of(ANSWERS, ROWS)
    by_row = ([given["masks"] for given in ANSWERS], *([row[key] for row in ROWS] for key in ("masks", "ignore")))
    expected = flat(mask_metrics(*by_row, [row["image_id"] for row in ROWS]))
    assert {name: metrics[name] for name in expected} == expected
    assert (metrics["giou"], metrics["ciou"]) == (pytest.approx((1 + 1 / 3 + 1 / 2 + 1) / 4), 16 / 28)
    assert metrics["n"] == 4 and metrics["giou_low"] <= metrics["giou"] <= metrics["giou_high"]


def test_each_kind_has_its_giou_and_its_number_of_rows():
    metrics = metrics_of(ANSWERS, ROWS)
    assert (metrics["giou_sentence"], metrics["giou_sentence_n"]) == (pytest.approx((1 + 1 / 3) / 2), 2)
    assert (metrics["giou_phrase"], metrics["giou_phrase_n"]) == (0.5, 1)
    assert metrics["giou_other_n"] == 0 and "giou_other" not in metrics
    assert "giou_sentence_low" not in metrics, "both sentences ask about one image"
    one_kind = metrics_of(ANSWERS[:1] * 3, [row(0, image, "phrase", True, TOP) for image in "xyz"])
    assert one_kind["giou_phrase_n"] == 3 and one_kind["giou_phrase_low"] == pytest.approx(1 / 3)


def test_the_seg_rate_counts_answers_with_as_many_seg_as_the_true_one():
    assert metrics_of(ANSWERS, ROWS)["seg_rate"] == 3 / 4
    assert metrics_of([answer("[SEG]", LEFT)], [row(0, "a", "absent", True)])["seg_rate"] == 0


def test_lisa_s_protocol_scores_the_first_query_of_each_image():
    metrics = metrics_of(ANSWERS, ROWS)
    assert (
        metrics["giou_first_query"] == pytest.approx((1 + 1 / 2 + 1) / 3)
        and metrics["giou_first_query_n"] == metrics["ciou_first_query_n"] == 3
    )
    assert metrics["ciou_first_query"] == 12 / 16
    assert metrics["ciou_first_query_low"] <= 12 / 16 <= metrics["ciou_first_query_high"]
    firsts = [0, 2, 3]
    only = metrics_of([ANSWERS[i] for i in firsts], [ROWS[i] for i in firsts])
    assert not [name for name in only if "first_query" in name] and only["ciou"] == metrics["ciou_first_query"]


def test_the_constant_mask_is_scored_on_the_same_rows():
    """The left half everywhere: IoU 1, 1/3, 1/2 and 0, for it answers where nothing is there."""
    constant = best_constant_mask([[encode(LEFT)]], grid=2)
    metrics = metrics_of(ANSWERS, ROWS, constant=constant)
    assert metrics["baseline_giou"] == pytest.approx((1 + 1 / 3 + 1 / 2 + 0) / 4)
    assert metrics["baseline_giou_sentence"] == pytest.approx((1 + 1 / 3) / 2)
    assert (metrics["baseline_giou_phrase"], metrics["baseline_giou_absent"]) == (0.5, 0)
    assert 0 < metrics["baseline_ciou"] < 16 / 28 and "baseline_giou_other" not in metrics
    sized = metrics_of(ANSWERS[:3], ROWS[:3], constant=constant)
    assert sized["baseline_ciou"] == 16 / 28


def test_an_image_s_size_is_that_of_any_of_its_rows():
    rows = [row(0, "a", "absent", True), row(1, "a", "phrase", False, LEFT)]
    metrics = metrics_of([answer("No.")] * 2, rows, constant=ConstantMask(LEFT))
    assert (metrics["baseline_giou"], metrics["baseline_ciou"]) == (0.5, 8 / 16)


def test_rows_whose_image_has_no_name_have_a_size_each():
    wide = np.ones((4, 8), dtype=bool)
    rows = [row(i, None, "phrase", True, mask) for i, mask in enumerate((ALL, wide))]
    metrics = metrics_of([answer("[SEG]", ALL), answer("[SEG]", wide)], rows, constant=ConstantMask(ALL))
    assert metrics["baseline_giou"] == metrics["giou"] == metrics["giou_low"] == 1


def test_one_row_has_its_kind_and_its_baseline_and_no_interval():
    metrics = metrics_of(ANSWERS[1:2], ROWS[1:2], constant=ConstantMask(ALL))
    assert metrics["n"] == 1 and metrics["giou"] == metrics["giou_sentence"] == pytest.approx(1 / 3)
    assert metrics["baseline_giou"] == metrics["baseline_giou_sentence"] == metrics["baseline_ciou"] == 1 / 2
    assert not [name for name in metrics if name.endswith(("_low", "_high")) or "first_query" in name]
    assert metrics_of([], [], constant=ConstantMask(ALL))["n"] == 0


def test_a_row_s_score_is_its_iou():
    assert evaluation().score(ANSWERS, ROWS) == [1, pytest.approx(1 / 3), 1 / 2, 1]


def test_the_true_answer_scores_1_and_the_report_s_columns_are_there():
    ours = evaluation(batch_size=2)
    assert ours.metric([ours.reference(row) for row in ROWS], ROWS)["giou"].value == 1
    assert (ours.headline, ours.max_new_tokens, ours.batch_size) == ("giou", 8, 2)
    assert [ours.group(row) for row in ROWS] == ["sentence", "sentence", "phrase", "absent"]
    assert ours.question(ROWS[0]) == "sentence 0?" and set(ours.keep) <= set(ROWS[0])
