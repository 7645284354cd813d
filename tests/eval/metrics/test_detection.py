"""Boxes found, missed and invented, against pycocotools, scikit-learn and every permutation."""

import contextlib
import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import precision_recall_fscore_support

from tests.eval.metrics.test_boxes import coco_iou
from vlm_recipes.eval.metrics.average_precision import ranked
from vlm_recipes.eval.metrics.boxes import image_boxes
from vlm_recipes.eval.metrics.detection import detection_metrics, paired_classes
from vlm_recipes.eval.metrics.number import Scores, flat

CLASSES = ["cat", "dog", "cow"]
Drawn = tuple[list, list, list, list]  # predictions, references, and the names of each


def drawn(seed: int, n_images: int = 40, classes: tuple[str, ...] = tuple(CLASSES)) -> Drawn:
    """Crowded images: true boxes moved by a little or a lot, some lost, some invented, some called something else."""
    generator = np.random.default_rng(seed)
    images = []
    for _ in range(n_images):
        corners, sides = generator.integers(0, 60, (generator.integers(0, 6), 2)), generator.integers(10, 50, 2)
        true = np.concatenate([corners, corners + sides], axis=1)
        moved = true + np.tile(generator.integers(-7, 8, (len(true), 2)), 2)
        invented = np.array([[0, 0, 9, 9]]) + np.tile(generator.integers(0, 90, (generator.integers(0, 3), 2)), 2)
        named = generator.choice(classes, len(true))
        said = np.where(generator.random(len(true)) < 0.2, generator.choice(classes, len(true)), named)
        predicted = np.concatenate([moved, invented])
        said = np.concatenate([said, generator.choice(classes, len(invented))])
        kept = generator.permutation(len(predicted))[generator.integers(0, 2) :]
        images.append((predicted[kept].tolist(), true.tolist(), said[kept].tolist(), named.tolist()))
    return tuple(map(list, zip(*images, strict=True)))


def measured(sample: Drawn, groups: list[str] | None = None, **more) -> Scores:
    predictions, references, said, named = sample
    return detection_metrics(predictions, references, groups, said, named, **more)


# --- pairs


def paired_by_trying(iou: np.ndarray, said: list[str], named: list[str]) -> tuple[int, int, float]:
    """Pairs within a class, all pairs and their summed IoU: the most that any way to pair has, in this order."""
    n_predicted, n_true = iou.shape
    best = (0, 0, 0.0)
    for places in itertools.permutations([*range(n_true), *[None] * n_predicted], n_predicted):
        pairs = [(p, t) for p, t in enumerate(places) if t is not None and iou[p, t] >= 0.5]
        best = max(best, (sum(said[p] == named[t] for p, t in pairs), len(pairs), sum(iou[pair] for pair in pairs)))
    return best


@pytest.mark.parametrize("seed", range(30))
def test_pairs_are_the_most_within_a_class_then_the_most_at_all_of_every_permutation(seed):
    generator = np.random.default_rng(seed)
    predicted, true = (
        np.concatenate([corners, corners + 30], axis=1).tolist()
        for corners in (generator.integers(0, 14, (n, 2)) for n in generator.integers(1, 5, 2))
    )
    said, named = (generator.choice(CLASSES[:2], len(own)).tolist() for own in (predicted, true))
    [image] = image_boxes([predicted], [true], [said], [named])
    pairs = paired_classes(image)
    same, every, _ = paired_by_trying(coco_iou(predicted, true), said, named)
    assert sum(one == other for one, other in pairs) == same
    assert sum(None not in pair for pair in pairs) == every
    assert sorted(one for one, _ in pairs if one is not None) == sorted(named)
    assert sorted(other for _, other in pairs if other is not None) == sorted(said)


def test_of_two_ways_to_pair_as_many_boxes_the_one_that_overlaps_more_is_taken():
    true, predicted = [[0, 0, 30, 30], [4, 0, 34, 30]], [[4, 0, 34, 30], [0, 0, 30, 30]]
    [image] = image_boxes([predicted], [true], [["x", "y"]], [["a", "b"]])
    assert sorted(paired_classes(image)) == [("a", "y"), ("b", "x")]


def test_a_wrong_name_is_a_pair_of_two_classes_and_boxes_without_partner_are_missed_or_invented():
    true = [[0, 0, 10, 10], [50, 50, 60, 60]]
    [image] = image_boxes([[[0, 0, 10, 10], [90, 0, 99, 9]]], [true], [["Dog", "dog"]], [["cat", "cow"]])
    assert paired_classes(image) == [("cat", "dog"), ("cow", None), (None, "dog")]
    assert paired_classes(image_boxes([[]], [[]])[0]) == []


# --- precision, recall, F1


def as_labels(sample: Drawn) -> tuple[list[str], list[str]]:
    """What scikit-learn takes: for every box one label each, "nothing" where there is no partner."""
    images = image_boxes(*sample)
    pairs = [pair for image in images for pair in paired_classes(image)]
    return [true or "nothing" for true, _ in pairs], [said or "nothing" for _, said in pairs]


@pytest.mark.parametrize("seed", range(5))
def test_precision_recall_and_f1_are_scikit_learn_s_by_class_and_in_all(seed):
    sample = drawn(seed)
    scores, labels = measured(sample, classes=CLASSES), as_labels(sample)
    for average, parts in ((None, CLASSES), ("micro", [None])):
        expected = precision_recall_fscore_support(*labels, labels=CLASSES, average=average, zero_division=np.nan)
        for name, values in zip(("precision_50", "recall_50", "f1_50"), expected, strict=False):
            own = [scores[name] if part is None else scores[name].groups[part] for part in parts]
            assert [number.value for number in own] == pytest.approx(np.atleast_1d(values).tolist())
    assert list(scores["f1_50"].groups) == CLASSES and scores.n == 40
    n_predicted, n_true = (sum(map(len, boxes)) for boxes in sample[:2])
    counted = [scores[name].n for name in ("precision_50", "recall_50", "f1_50", "ap_50", "ap_50_95")]
    assert counted == [n_predicted, n_true, n_predicted + n_true, n_true, n_true]
    assert scores["precision_50"].groups["dog"].n == sum(own.count("dog") for own in sample[2])


def test_twenty_invented_boxes_cost_precision_and_what_follows_but_no_recall():
    true = [[[0.0, 0.0, 40.0, 40.0]]] * 10
    invented = [[50.0 + 2 * i, 60.0, 90.0 + 2 * i, 99.0] for i in range(20)]
    for named in (None, [["table"]] * 10):
        said = named and [["table"] * 21] * 10
        right = detection_metrics(true, true, None, named, named)
        assert {number.value for number in right.values()} == {1.0}
        many = detection_metrics([[*own, *invented] for own in true], true, None, said, named)
        assert many["precision_50"].value == pytest.approx(1 / 21) and many["recall_50"].value == 1
        assert many["f1_50"].value == pytest.approx(2 / 22)
        assert many["ap_50"].value == 1, "they stand last"
        before = detection_metrics([[*invented, *own] for own in true], true, None, said, named)
        assert before["ap_50"].value == pytest.approx(1 / 21)


def test_right_boxes_called_as_the_next_class_score_next_to_nothing():
    references, named = drawn(0, 60)[1::2]
    rotated = [[CLASSES[(CLASSES.index(name) + 1) % 3] for name in own] for own in named]
    right = detection_metrics(references, references, None, named, named)
    apart = [[[120.0 * i, 0.0, 120.0 * i + 50, 50.0] for i in range(len(own))] for own in references]
    wrong = detection_metrics(apart, apart, None, rotated, named)
    assert {number.value for number in right.values()} == {1.0}
    assert all(number.value <= 0.05 for number in wrong.values())
    assert all(own.value <= 0.05 for number in wrong.values() for own in number.groups.values())
    blind = detection_metrics(apart, apart)
    assert {number.value for number in blind.values()} == {1.0} and not blind["f1_50"].groups


def test_what_there_is_none_of_is_not_known():
    box, cat = [[0.0, 0.0, 10.0, 10.0]], ["cat"]
    silent = detection_metrics([[], []], [box, box], None, [[], []], [cat, cat], classes=["cat", "dog"])
    assert [silent[name].value for name in ("precision_50", "recall_50", "f1_50", "ap_50")] == [None, 0, 0, 0]
    assert silent["precision_50"].n == 0 and silent["precision_50"].low is None
    assert {number.groups["dog"].value for number in silent.values()} == {None}
    invented = detection_metrics([box], [[]], None, [["dog"]], [[]], classes=["cat", "dog"])
    assert [invented[name].value for name in ("precision_50", "recall_50", "f1_50", "ap_50")] == [0, None, 0, None]
    assert invented["precision_50"].groups["dog"].value == 0 and invented["precision_50"].groups["cat"].value is None
    nothing = detection_metrics([box], [[]], None, [["dog"]], [[]])
    assert nothing["precision_50"].value == 0 and nothing["ap_50"].value is None and not nothing["ap_50"].groups
    assert flat(detection_metrics([], [])) == {"n": 0}


def test_a_box_of_no_known_class_counts_in_all_and_in_no_class():
    box = [[0.0, 0.0, 10.0, 10.0]]
    scores = detection_metrics([box], [box], None, [["banana"]], [["cat"]])
    assert list(scores["precision_50"].groups) == ["cat"] and scores["precision_50"].groups["cat"].n == 0
    assert (scores["precision_50"].value, scores["precision_50"].n) == (0, 1)


def test_classes_have_the_first_of_their_spellings_and_the_order_they_are_named_in():
    box = [[0.0, 0.0, 10.0, 10.0]]
    scores = detection_metrics([box] * 2, [box] * 2, None, [["DOG"], ["stop_sign"]], [["dog"], ["Stop sign"]])
    assert list(scores["f1_50"].groups) == ["dog", "Stop sign"] and scores["f1_50"].value == 1
    named = detection_metrics([box], [box], None, [["DOG"]], [["dog"]], classes=["cat", "Dog", "dog"])
    assert list(named["f1_50"].groups) == ["cat", "Dog"]


# --- average precision


def coco_precisions(sample: Drawn, classes: list[str]) -> np.ndarray:
    """`[10 thresholds, 101 recalls, classes]` of pycocotools, -1 where it has none."""
    numbers = {name: i for i, name in enumerate(classes, start=1)}

    def annotations(boxes: list, names: list) -> list[dict]:
        found = []
        for image, (own, of_own) in enumerate(zip(boxes, names, strict=True)):
            for place, ((x1, y1, x2, y2), name) in enumerate(zip(own, of_own, strict=True)):
                one = {"image_id": image, "category_id": numbers[name], "bbox": [x1, y1, x2 - x1, y2 - y1]}
                found.append(one | {"area": (x2 - x1) * (y2 - y1), "iscrowd": 0, "score": 1 / (1 + place)})
        return [{"id": i, **one} for i, one in enumerate(found, start=1)]

    predictions, references, said, named = sample
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"images": [{"id": i} for i in range(len(references))]}
        truth.dataset |= {"categories": [{"id": i, "name": name} for name, i in numbers.items()]}
        truth.dataset |= {"annotations": annotations(references, named)}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(annotations(predictions, said)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][:, :, :, 0, -1]


@pytest.mark.parametrize("seed", range(8))
def test_average_precision_is_pycocotools_s_where_a_box_s_score_falls_with_its_place(seed):
    sample, classes = drawn(seed), [*CLASSES, "hen"]  # hens are predicted, and there are none
    sample[0][0].append([0, 0, 50, 50]), sample[2][0].append("hen")
    scores, precisions = measured(sample, classes=classes), coco_precisions(sample, classes)
    for name, own in (("ap_50", precisions[:1]), ("ap_50_95", precisions)):
        expected = [own[:, :, i].mean() for i in range(3)]
        assert [scores[name].groups[one].value for one in CLASSES] == pytest.approx(expected)
        assert scores[name].value == pytest.approx(own[own > -1].mean())
        assert scores[name].groups["hen"].value is None and (precisions[:, :, 3] == -1).all()
    assert 0.05 < scores["ap_50_95"].value < scores["ap_50"].value < 0.95


def test_average_precision_by_hand():
    true = [[[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]]]
    predicted = [[[0, 0, 10, 10], [80, 0, 90, 10], [20, 0, 30, 10], [40, 0, 50, 6]]]  # right, invented, right, IoU .6
    scores = detection_metrics(predicted, true)
    at_50 = (26 * 1 + 50 * 3 / 4) / 101  # recalls 0 to .25 are had at precision 1, those to .75 at 3/4
    at_65 = (26 * 1 + 25 * 2 / 3) / 101
    assert scores["ap_50"].value == pytest.approx(at_50)
    assert scores["ap_50_95"].value == pytest.approx((3 * at_50 + 7 * at_65) / 10)


# --- intervals and baselines


def test_an_interval_is_that_of_the_numbers_of_images_drawn_again():
    sample = drawn(3, 8)
    scores, values = measured(sample, classes=CLASSES), {}
    for drawn_again in np.random.default_rng(0).integers(0, 8, (1000, 8)):  # as `interval` draws
        # in their order: of boxes of the same place in their answers those of the first image rank first
        resample = tuple([column[i] for i in sorted(drawn_again)] for column in sample)
        for name, number in measured(resample, ["one group"] * 8, classes=CLASSES).items():
            for part, own in {"": number, **number.groups}.items():
                values.setdefault((name, part), []).append(np.nan if own.value is None else own.value)
    for (name, part), own in values.items():
        number = scores[name].groups[part] if part else scores[name]
        expected = np.nanpercentile(own, [2.5, 97.5])
        assert (number.low, number.high) == pytest.approx(tuple(expected))
        assert number.low < number.value < number.high


@given(st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_images_that_are_drawn_twice_count_as_two(seed):
    sample = drawn(seed, 6)
    times = np.random.default_rng(seed).integers(0, 4, (3, 6))
    every = ranked(image_boxes(*sample), CLASSES, np.arange(6))
    for row in times:
        again = [[column[i] for i in range(6) for _ in range(row[i])] for column in sample]
        if any(again[1]):
            expected = [one.value for one in measured(tuple(again), classes=CLASSES)["ap_50_95"].groups.values()]
            found = [float(of_class.average_precision(row[None])[0, 1]) for of_class in every]
            assert [None if np.isnan(one) else pytest.approx(one) for one in found] == expected


def test_groups_widen_the_interval_and_one_group_has_none():
    sample = drawn(1)
    repeated = tuple([one for one in column for _ in range(4)] for column in sample)
    alone = measured(repeated, classes=CLASSES)
    grouped = measured(repeated, [str(i // 4) for i in range(160)], classes=CLASSES)
    for name in ("precision_50", "recall_50", "f1_50", "ap_50"):
        assert grouped[name].value == alone[name].value
        assert grouped[name].high - grouped[name].low > 1.5 * (alone[name].high - alone[name].low)
    assert all(number.low is None for number in measured(sample, ["a"] * 40).values())


def test_the_baseline_is_the_same_numbers_of_what_is_answered_blindly():
    sample = drawn(2)
    blind = [[[5.0, 5.0, 40.0, 40.0]]] * 40, [["dog"]] * 40
    scores = measured(sample, classes=CLASSES, baseline=blind)
    expected = measured((blind[0], sample[1], blind[1], sample[3]), classes=CLASSES)
    for name, number in scores.items():
        assert number.baseline == expected[name].value is not None
        assert {own: of.baseline for own, of in number.groups.items()} == {
            own: of.value for own, of in expected[name].groups.items()
        }
    assert scores["precision_50"].groups["cat"].baseline is None and scores["recall_50"].groups["cat"].baseline == 0


def test_pictures_without_any_box_have_no_number_of_boxes():
    found = detection_metrics([[], []], [[], []])
    assert {(number.value, number.n, number.low) for number in found.values()} == {(None, 0, None)}
