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


# --- boxes with names


def within_classes(predicted_names: list[str], true_names: list[str]) -> list[list[tuple[int, int]]]:
    """Every way to pair as many boxes of each class as there can be."""
    every = [[]]
    for name in {*predicted_names, *true_names}:
        ours, theirs = ([i for i, own in enumerate(names) if own == name] for names in (predicted_names, true_names))
        own = [[(ours[p], theirs[t]) for p, t in pairs] for pairs in assignments(len(ours), len(theirs))]
        every = [[*before, *pairs] for before in every for pairs in own]
    return every


@pytest.mark.parametrize("seed", range(25))
def test_within_classes_the_matching_is_the_best_of_all_permutations_and_what_is_left_over_costs(seed):
    generator = np.random.default_rng(seed)
    predicted, true = (some_boxes(generator, n) for n in generator.integers(1, 6, 2))
    said, named = (generator.choice(["cat", "dog", "cow"], len(own)).tolist() for own in (predicted, true))
    iou = coco_iou(predicted, true)
    giou = generalized_box_iou(torch.tensor(predicted), torch.tensor(true)).numpy()
    sums = [(sum(iou[p] for p in pairs), sum(giou[p] for p in pairs), pairs) for pairs in within_classes(said, named)]
    best = max(sums, key=lambda item: (round(item[0], 6), item[1]))[2]
    unmatched = len(predicted) + len(true) - 2 * len(best)
    n, matched = len(best) + unmatched, np.array([iou[pair] for pair in best])
    [score] = boxes.box_scores([predicted], [true], [said], [named])
    assert score["iou"] == pytest.approx(matched.sum() / n) and score["accuracy_50"] == (matched >= 0.5).sum() / n
    assert score["giou"] == pytest.approx((sum(giou[p] for p in best) - unmatched) / n, abs=1e-5)
    assert score["iou_first"] == pytest.approx(iou[0, 0]), "the reference's number knows no names"


def test_a_right_box_with_a_wrong_name_is_one_missed_and_one_invented():
    box = [[0.0, 0.0, 10.0, 10.0]]
    wrong = boxes.box_metrics([box], [box], None, [["dog"]], [["cat"]])
    names = ("iou_mean", "giou_mean", "accuracy_50", "iou_first", "detection_rate", "unparseable_rate")
    assert [wrong[name].value for name in names] == [0, -1, 0, 1, 1, 0]
    assert boxes.box_metrics([box], [box])["iou_mean"].value == 1


def test_right_boxes_called_as_the_next_class_score_next_to_nothing():
    generator, classes = np.random.default_rng(0), ["square", "disc", "cross"]
    places = [[60.0 * x, 60.0 * y, 60.0 * x + 40, 60.0 * y + 40] for x in range(3) for y in range(3)]
    true = [[places[i] for i in generator.permutation(9)[: generator.integers(1, 6)]] for _ in range(100)]
    named = [generator.choice(classes, len(own)).tolist() for own in true]
    rotated = [[classes[(classes.index(name) + 1) % 3] for name in own] for own in named]
    assert boxes.box_metrics(true, true, None, named, named)["iou_mean"].value == 1
    wrong = boxes.box_metrics(true, true, None, rotated, named)
    assert wrong["iou_mean"].value <= 0.05 and wrong["accuracy_50"].value <= 0.05 and wrong["iou_first"].value == 1


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=6), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_one_name_for_all_boxes_changes_no_number(sizes, seed):
    generator = np.random.default_rng(seed)
    predictions, references = ([some_boxes(generator, n) for n in own] for own in zip(*sizes, strict=True))
    said, named = ([[name] * len(own) for own in of] for name, of in (("A b", predictions), ("a_b", references)))
    assert boxes.box_metrics(predictions, references, None, said, named) == boxes.box_metrics(predictions, references)


def test_names_are_one_for_case_and_what_stands_between_words_and_nothing_else():
    for one in ("Traffic-light", " traffic  light\n", "TRAFFIC_LIGHT", "traffic - light"):
        assert boxes.category_key(one) == boxes.category_key("traffic light")
    for other in ("trafficlight", "traffic lights", "the traffic light", "traffic light.", "traffic", ""):
        assert boxes.category_key(other) != boxes.category_key("traffic light")
    assert boxes.category_key("Ka\u0308se") == boxes.category_key("K\u00c4SE") != boxes.category_key("kase")


def test_names_that_do_not_fit_the_boxes_are_named():
    box = [[0.0, 0.0, 10.0, 10.0]]
    with pytest.raises(ValueError, match=r"predicted_categories\[1\]: 2 names for 1 boxes"):
        boxes.box_scores([box, box], [box, box], [["a"], ["a", "b"]], [["a"], ["a"]])
    with pytest.raises(ValueError, match="reference_categories: names of 1 images for 2"):
        boxes.box_metrics([box, box], [box, box], None, [["a"], ["a"]], [["a"]])
    with pytest.raises(ValueError, match="give both or none"):
        boxes.box_metrics([box], [box], None, [["a"]])
