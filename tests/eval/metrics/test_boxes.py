import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from torchvision.ops import generalized_box_iou

from vlm_recipes.eval.metrics import boxes
from vlm_recipes.eval.metrics.number import flat


def box_metrics(predictions, references, groups=None) -> dict[str, float]:
    return flat(boxes.box_metrics(predictions, references, groups))


def some_boxes(generator: np.random.Generator, n: int) -> list[list[float]]:
    corner, extent = generator.uniform(0, 60, (n, 2)), generator.uniform(5, 60, (n, 2))
    return np.concatenate([corner, corner + extent], axis=1).tolist()


def coco_iou(predicted: list[list[float]], true: list[list[float]]) -> np.ndarray:
    def xywh(boxes: list[list[float]]) -> np.ndarray:
        return np.array([[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in boxes])

    return coco_mask.iou(xywh(predicted), xywh(true), [0] * len(true))


def assignments(n_predicted: int, n_true: int) -> list[list[tuple[int, int]]]:
    if n_predicted <= n_true:
        return [list(enumerate(chosen)) for chosen in itertools.permutations(range(n_true), n_predicted)]
    return [[(p, t) for t, p in enumerate(chosen)] for chosen in itertools.permutations(range(n_predicted), n_true)]


@pytest.mark.parametrize("n_predicted", [1, 2, 4])
@pytest.mark.parametrize("n_true", [1, 3, 4])
def test_the_matching_is_the_best_of_all_permutations(n_predicted, n_true):
    generator = np.random.default_rng(n_predicted * 10 + n_true)
    every_matching = assignments(n_predicted, n_true)
    for _ in range(8):
        predicted, true = some_boxes(generator, n_predicted), some_boxes(generator, n_true)
        iou = coco_iou(predicted, true)
        giou = generalized_box_iou(torch.tensor(predicted), torch.tensor(true)).numpy()
        sums = [(sum(iou[p] for p in pairs), sum(giou[p] for p in pairs), pairs) for pairs in every_matching]
        best = max(sums, key=lambda item: (round(item[0], 6), item[1]))[2]
        matched = np.array([iou[pair] for pair in best])
        larger, n_unmatched = max(n_predicted, n_true), abs(n_predicted - n_true)
        metrics = box_metrics([predicted], [true])
        assert metrics["iou_mean"] == pytest.approx(matched.sum() / larger)
        assert metrics["accuracy_50"] == (matched >= 0.5).sum() / larger
        assert metrics["accuracy_70"] == (matched >= 0.7).sum() / larger
        assert metrics["giou_mean"] == pytest.approx((sum(giou[p] for p in best) - n_unmatched) / larger, abs=1e-5)
        assert metrics["iou_first"] == pytest.approx(iou[0, 0])


def test_iou_and_giou_of_two_boxes_follow_the_formula():
    metrics = box_metrics([[[0, 0, 10, 10]]], [[[5, 0, 15, 10]]])  # intersection 50, union 150, enclosing box 150
    assert metrics["iou_mean"] == pytest.approx(1 / 3) and metrics["giou_mean"] == pytest.approx(1 / 3)
    metrics = box_metrics([[[0, 0, 10, 10]]], [[[20, 0, 30, 10]]])  # union 200, enclosing box 300
    assert metrics["iou_mean"] == 0 and metrics["giou_mean"] == pytest.approx(0 - 100 / 300)


def test_the_greedy_pair_gives_way_to_the_better_sum():
    true = [[0, 0, 10, 10], [8, 0, 18, 10]]
    predicted = [[2, 0, 12, 10], [0, 0, 7, 10]]  # the first overlaps both, the second only the first true box
    assert box_metrics([predicted], [true])["iou_mean"] == pytest.approx((40 / 160 + 70 / 100) / 2)


@given(st.permutations(range(4)), st.permutations(range(3)))
@settings(max_examples=30, deadline=None)
def test_the_order_of_boxes_changes_only_the_first_to_first_number(predicted_order, true_order):
    predicted = [[0, 0, 10, 10], [100, 100, 110, 110], [40, 0, 50, 10], [300, 0, 310, 10]]
    true = [[1, 0, 11, 10], [130, 100, 140, 110], [70, 0, 80, 10]]
    shuffled = box_metrics([[predicted[i] for i in predicted_order]], [[true[i] for i in true_order]])
    straight = box_metrics([predicted], [true])
    shuffled.pop("iou_first"), straight.pop("iou_first")
    assert shuffled == pytest.approx(straight)


def test_extra_and_missing_boxes_cost_alike_and_no_box_for_none_is_right():
    box, other = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]
    for predicted, true in (([box, other], [box]), ([box], [box, other])):
        metrics = box_metrics([predicted], [true])
        assert (metrics["iou_mean"], metrics["giou_mean"], metrics["accuracy_50"]) == (0.5, 0.0, 0.5)
    nothing = box_metrics([[]], [[]])
    assert (nothing["iou_mean"], nothing["giou_mean"], nothing["accuracy_70"]) == (1.0, 1.0, 1.0)
    assert nothing["unparseable_rate"] == 0 and "iou_first" not in nothing and nothing["iou_first_n"] == 0
    invented = box_metrics([[box]], [[]])
    assert (invented["iou_mean"], invented["giou_mean"], invented["detection_rate"]) == (0.0, -1.0, 1.0)


def test_an_image_without_a_parsed_box_counts_as_zero():
    box = [0.0, 0.0, 10.0, 10.0]
    metrics = box_metrics([[box], [], [box], [box]], [[box]] * 4)
    assert metrics["n"] == 4
    assert metrics["iou_mean"] == metrics["iou_first"] == metrics["accuracy_50"] == metrics["detection_rate"] == 0.75
    assert metrics["giou_mean"] == 0.5 and metrics["unparseable_rate"] == 0.25
    assert metrics["iou_median"] == 1.0
    assert metrics["iou_mean_low"] <= 0.5 and metrics["iou_mean_high"] == 1.0


def test_accuracy_includes_its_threshold():
    true = [[0.0, 0.0, 10.0, 10.0]]
    for width, at_50, at_70 in ((5.0, 1, 0), (4.9, 0, 0), (7.0, 1, 1), (6.9, 1, 0)):
        metrics = box_metrics([[[0.0, 0.0, width, 10.0]]], [true])
        assert (metrics["accuracy_50"], metrics["accuracy_70"]) == (at_50, at_70)


def test_every_metric_has_an_interval_around_it_and_groups_widen_it():
    generator = np.random.default_rng(0)
    references = [some_boxes(generator, 1) for _ in range(20)]
    predictions = [[[x1, y1, x2, y1 + (y2 - y1) * generator.uniform(0.2, 1)]] for [[x1, y1, x2, y2]] in references]
    rows = [row for row in range(20) for _ in range(5)]  # each image five times: no news in the copies
    repeated = [predictions[row] for row in rows], [references[row] for row in rows]
    alone, naive = box_metrics(predictions, references), box_metrics(*repeated)
    grouped = box_metrics(*repeated, groups=[str(row) for row in rows])
    names = {key.removesuffix("_low") for key in alone if key.endswith("_low")}
    assert names == set(alone) - {"n"} - {f"{name}{end}" for name in names for end in ("_low", "_high")}
    for name in names:
        assert alone[f"{name}_low"] <= alone[name] <= alone[f"{name}_high"]
    for name in ("iou_mean", "giou_mean", "iou_median"):
        spread, naive_spread = (m[f"{name}_high"] - m[f"{name}_low"] for m in (grouped, naive))
        assert spread > 1.5 * naive_spread


def test_one_row_has_no_interval_and_no_rows_have_only_n():
    box = [[0.0, 0.0, 10.0, 10.0]]
    assert not [key for key in box_metrics([box], [box]) if key.endswith(("_low", "_high"))]
    assert not [key for key in box_metrics([box] * 3, [box] * 3, groups=["a"] * 3) if key.endswith(("_low", "_high"))]
    assert box_metrics([], []) == {"n": 0}


def test_what_is_no_box_is_named_with_its_row():
    box = [[0.0, 0.0, 10.0, 10.0]]
    for wrong in ([9.0, 0.0, 1.0, 10.0], [0.0, 0.0, math.nan, 1.0], [1.0, 2.0, 3.0], [1.0] * 8):
        with pytest.raises(ValueError, match=r"^references\[1\]"):
            box_metrics([box, box], [box, [wrong]])
    with pytest.raises(ValueError, match="1 predictions for 2 references"):
        box_metrics([box], [box, box])
