"""Mask metrics against pycocotools, scikit-learn, LISA's formula in numpy and numbers by hand."""

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco
from sklearn.metrics import f1_score, jaccard_score

from vlm_recipes.eval.metrics import masks as metrics_of_masks
from vlm_recipes.eval.metrics.baselines import ConstantMask, best_constant_mask
from vlm_recipes.eval.metrics.masks import decode, encode, overlap, union
from vlm_recipes.eval.metrics.number import flat
from vlm_recipes.rows.run_lengths import counts_in


def mask_metrics(*rows, **more) -> dict[str, float]:
    return flat(metrics_of_masks.mask_metrics(*rows, **more))


def masks(*pictures: str) -> list[dict]:
    """Drawn masks: rows of `#` and `.`, parted by spaces."""
    return [encode(np.array([[pixel == "#" for pixel in line] for line in text.split()])) for text in pictures]


@st.composite
def some_rows(draw, least=1, most=4):
    """Rows of (predicted, true, ignored) bools of one size each; empty, full and crowded ones among them."""
    rows = []
    for _ in range(draw(st.integers(least, most))):
        height, width, seed = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(0, 2**32 - 1))
        random = np.random.default_rng(seed)
        shares = draw(st.tuples(*[st.sampled_from([0.0, 0.1, 0.5, 1.0])] * 3))
        rows.append([random.random((height, width)) < share for share in shares])
    return rows


def rows_of(rows: list) -> tuple[list, list, list]:
    predicted, true, ignored = zip(*rows, strict=True)
    return [[encode(mask)] for mask in predicted], [[encode(mask)] for mask in true], list(map(encode, ignored))


def lisa(rows: list) -> tuple[float, float]:
    """gIoU and cIoU as LISA's `validate` and `intersectionAndUnionGPU` compute them, for 255 as ignored label."""
    intersection_sum, union_sum, iou_sum = np.zeros(2), np.zeros(2), np.zeros(2)
    for predicted, true, ignored in rows:
        output, target = predicted.astype(int), np.where(ignored, 255, true.astype(int))
        output = np.where(target == 255, 255, output)
        area_of_both = np.bincount(output[output == target], minlength=256)[:2]
        area_of_output, area_of_target = (np.bincount(x.ravel(), minlength=256)[:2] for x in (output, target))
        area_of_union = area_of_output + area_of_target - area_of_both
        iou = area_of_both / (area_of_union + 1e-5)
        iou[area_of_union == 0] += 1.0
        intersection_sum, union_sum, iou_sum = (
            intersection_sum + area_of_both,
            union_sum + area_of_union,
            iou_sum + iou,
        )
    return (iou_sum / len(rows))[1], (intersection_sum / (union_sum + 1e-10))[1]


@given(some_rows())
@settings(max_examples=60, deadline=None)
def test_giou_and_ciou_are_lisa_s(rows):
    metrics, (giou, ciou) = mask_metrics(*rows_of(rows)), lisa(rows)
    assert metrics["giou"] == pytest.approx(giou, abs=1e-5)
    if any(((predicted | true) & ~ignored).any() for predicted, true, ignored in rows):
        assert metrics["ciou"] == pytest.approx(ciou, abs=1e-8)
    else:
        assert metrics["ciou"] == 1 and metrics["giou"] == 1


@given(some_rows(1, 1))
@settings(max_examples=60, deadline=None)
def test_one_row_agrees_with_pycocotools_and_with_scikit_learn_where_nothing_is_ignored(rows):
    [(predicted, true, _)] = rows
    predictions, references, _ = rows_of(rows)
    metrics = mask_metrics(predictions, references)
    assert metrics["giou"] == jaccard_score(true.ravel(), predicted.ravel(), zero_division=1.0)
    assert metrics["dice"] == pytest.approx(f1_score(true.ravel(), predicted.ravel(), zero_division=1.0))
    assert metrics["accuracy_50"] == (metrics["giou"] >= 0.5) and metrics["empty_rate"] == (not predicted.any())
    if (predicted | true).any():
        assert metrics["giou"] == metrics["ciou"] == coco.iou(predictions[0], references[0], [0])[0, 0]


@given(some_rows(1, 1))
@settings(max_examples=60, deadline=None)
def test_areas_and_the_box_are_those_of_the_pixels_that_count(rows):
    [(predicted, true, ignored)] = rows
    found = overlap(encode(predicted), encode(true), encode(ignored))
    assert found.predicted == (predicted & ~ignored).sum() and found.target == (true & ~ignored).sum()
    either = (predicted | true) & ~ignored
    y, x = np.nonzero(either)
    box = (~ignored)[y.min() : y.max() + 1, x.min() : x.max() + 1].sum() if either.any() else 0
    assert found.box == box
    assert found.box_giou == pytest.approx(found.iou - (box - either.sum()) / box if box else 1)


@given(some_rows(), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_what_is_ignored_changes_nothing_but_the_rate_of_empty_predictions(rows, seed):
    random = np.random.default_rng(seed)
    other = [
        (p ^ (i & (random.random(p.shape) < 0.5)), t ^ (i & (random.random(p.shape) < 0.5)), i) for p, t, i in rows
    ]
    before, after = mask_metrics(*rows_of(rows)), mask_metrics(*rows_of(other))
    names = {name for name in before if not name.startswith("empty_rate")}
    assert {name: before[name] for name in names} == {name: after[name] for name in names}


def test_a_row_in_which_everything_is_ignored_is_an_empty_one_answered_empty():
    [full, left, nothing] = masks("## ##", "#. #.", ".. ..")
    metrics = mask_metrics([[left], [nothing]], [[full], [left]], [full, full])
    assert metrics["giou"] == metrics["ciou"] == metrics["dice"] == metrics["mask_box_giou"] == 1
    assert metrics["empty_rate"] == 0.5, "the first prediction has pixels, though none that count"


def test_empty_targets_count_for_giou_but_not_for_ciou():
    [half, nothing] = masks("#. #.", ".. ..")
    right = mask_metrics([[], [half], [nothing]], [[], [half], []])
    assert (right["giou"], right["ciou"], right["dice"], right["empty_rate"]) == (1, 1, 1, pytest.approx(2 / 3))
    invented = mask_metrics([[half], [half]], [[], [half]])
    assert (invented["giou"], invented["ciou"], invented["dice"]) == (0.5, 0.5, 0.5)
    missed = mask_metrics([[], [half]], [[half], [half]])
    assert (missed["giou"], missed["ciou"], missed["empty_rate"]) == (0.5, 0.5, 0.5)


def test_ciou_is_a_ratio_of_sums_and_not_a_mean():
    """A large and a small object: IoU 6/8 and 0/2, so gIoU (3/4 + 0)/2 = 3/8, cIoU (6 + 0)/(8 + 2) = 3/5."""
    large, small = masks("######## ........", "######.. ........"), masks("#.......", ".#......")
    metrics = mask_metrics([[large[1]], [small[1]]], [[large[0]], [small[0]]])
    assert (metrics["giou"], metrics["ciou"]) == (0.375, 0.6)
    assert metrics["dice"] == pytest.approx((12 / 14 + 0) / 2) and metrics["accuracy_50"] == 0.5


def test_two_shares_of_the_rows_cannot_be_averaged_to_their_ciou():
    """Intersection/union 9/10 in one share; 1/2 and 0/4 in the other: (9/10 + 1/6)/2 = 8/15, but 10/16 = 5/8."""
    true = [masks(text) for text in ("##########", "##", "##..")]
    predicted = [masks(text) for text in ("#########.", "#.", "..##")]
    first, second = mask_metrics(predicted[:1], true[:1]), mask_metrics(predicted[1:], true[1:])
    assert (first["ciou"] + second["ciou"]) / 2 == pytest.approx(8 / 15)
    assert mask_metrics(predicted, true)["ciou"] == pytest.approx(5 / 8)


def test_a_perfect_mask_that_does_not_fill_its_box_has_a_mask_box_giou_below_1():
    """An L of 5 pixels in a box of 9: 1 - 4/9. Two corners of a box of 4, none right: 0 - 2/4."""
    ell = masks("#.. #.. ###")
    metrics = mask_metrics([ell], [ell])
    assert metrics["giou"] == 1 and metrics["mask_box_giou"] == pytest.approx(5 / 9)
    assert mask_metrics([masks("#. ..")], [masks(".. .#")])["mask_box_giou"] == -0.5


def test_a_row_s_masks_are_joined_before_they_are_compared():
    parts, whole = masks("##.. ....", ".##. ....", ".... ...#"), masks("###. ...#")
    assert mask_metrics([parts], [whole])["giou"] == mask_metrics([whole], [parts[::-1]])["giou"] == 1
    assert (union(parts, (2, 4)) == decode(whole[0])).all()
    assert union([], (2, 4)).shape == (2, 4) and not union([], (2, 4)).any()


def test_run_lengths_survive_json_and_are_read_by_pycocotools():
    mask = np.random.default_rng(0).random((13, 7)) < 0.3
    rle = json.loads(json.dumps(encode(mask)))
    assert rle["size"] == [13, 7] and decode(rle).dtype == bool and (decode(rle) == mask).all()
    assert coco.area(rle) == mask.sum()


def test_intervals_run_over_images_and_lie_around_their_numbers():
    random = np.random.default_rng(1)
    true = [[encode(random.random((8, 8)) < share)] for share in random.uniform(0.2, 0.8, 20)]
    predicted = [[encode(random.random((8, 8)) < 0.5)] for _ in true]
    rows = [row for row in range(20) for _ in range(5)]  # each image five times: no news in the copies
    repeated = [predicted[row] for row in rows], [true[row] for row in rows]
    naive, grouped = mask_metrics(*repeated), mask_metrics(*repeated, image_ids=[str(row) for row in rows])
    for name in ("giou", "ciou", "dice", "mask_box_giou"):
        assert grouped[f"{name}_low"] < grouped[name] == naive[name] < grouped[f"{name}_high"]
        spread, naive_spread = (m[f"{name}_high"] - m[f"{name}_low"] for m in (grouped, naive))
        assert spread > 1.5 * naive_spread
    names = {key for key in grouped if not key.endswith(("_low", "_high"))} - {"n"}
    assert names == {"giou", "ciou", "dice", "accuracy_50", "mask_box_giou", "empty_rate"}
    assert set(grouped) == {"n"} | names | {f"{name}_{end}" for name in names for end in ("low", "high")}


def test_one_row_has_no_interval_and_no_rows_have_only_n():
    assert not [key for key in mask_metrics([masks("#")], [masks("#")]) if key.endswith(("_low", "_high"))]
    assert mask_metrics([], []) == mask_metrics([], [], [], []) == {"n": 0}


def test_masks_of_another_size_and_lists_of_other_lengths_are_refused():
    [wide, high] = masks("##", "# #")
    for predicted, true, ignore in (([high], [wide], None), ([wide], [high, wide], None), ([wide], [wide], high)):
        with pytest.raises(ValueError, match=r"^row 1: masks of .* need to be of the image's, \[\d, \d\]$"):
            mask_metrics([[wide], predicted], [[wide], true], [None, ignore])
    with pytest.raises(ValueError, match="1 predictions, 2 references, 2 ignores"):
        mask_metrics([[]], [[], []])
    with pytest.raises(ValueError, match="masks of"):
        overlap(wide, high)


def test_a_large_mask_is_compared_without_its_pixels():
    y, x = np.mgrid[:3000, :4000]
    true, ignored = encode((y - 1500) ** 2 + (x - 1500) ** 2 < 1000**2), encode(x > 2000)
    overlap(true, true, ignored)  # the ignored pixels are turned over once per image
    started = time.perf_counter()
    for _ in range(20):
        assert overlap(true, true, ignored).iou == 1
    assert time.perf_counter() - started < 1.0


def giou_of(constant: np.ndarray, references: list, ignores: list | None = None) -> float:
    """By hand: the mean of each image's IoU over the pixels that count, where two empty masks are the same."""
    ious = []
    for i, [true] in enumerate(references):
        counts = ~decode(ignores[i]) if ignores else np.ones_like(constant)
        shown, sought = constant & counts, decode(true) & counts
        either = (shown | sought).sum()
        ious.append((shown & sought).sum() / either if either else 1.0)
    return float(np.mean(ious))


def test_the_constant_mask_is_the_best_of_all_512_where_true_masks_are_nested():
    """Growing squares from one corner: the best mask is one of them, and each is a threshold of the heat map."""
    texts = ["#.. ... ...", "##. ##. ...", "##. ##. ...", "### ### ###", "##. ##. #.."]
    references = [masks(text) for text in texts]
    constant = best_constant_mask(references, grid=3)
    every = [np.array([number >> bit & 1 for bit in range(9)], dtype=bool).reshape(3, 3) for number in range(512)]
    assert giou_of(constant.mask, references) == max(giou_of(mask, references) for mask in every)
    assert (constant.mask == decode(masks("##. ##. ...")[0])).all()


@given(some_rows(1, 6))
@settings(max_examples=40, deadline=None)
def test_no_threshold_of_the_heat_map_and_neither_extreme_is_better_than_the_constant_mask(rows):
    shape = (4, 4)
    rows = [[np.resize(mask, shape) for mask in row] for row in rows]
    _, references, ignores = rows_of(rows)
    constant = best_constant_mask(references, ignores, grid=4)
    best = giou_of(constant.mask, references, ignores)
    counted = np.sum([~ignored for _, _, ignored in rows], axis=0)
    heat = np.sum([true & ~ignored for _, true, ignored in rows], axis=0) / np.maximum(counted, 1)
    candidates = [heat >= threshold for threshold in (0, *np.unique(heat), 2)]
    assert best == pytest.approx(max(giou_of(mask, references, ignores) for mask in candidates))


def test_objects_smaller_than_a_cell_do_not_make_the_empty_mask_look_good():
    """A true pixel of a cell's four, rounded, is none. The first cell: IoU 1/(4 + 3) and 1/4; all: 4/16 and 1/16."""
    references = [masks("#.#. .... #.#. ...."), masks("#... .... .... ....")]
    constant = best_constant_mask(references, grid=2)
    assert constant.mask.tolist() == [[True, False], [False, False]]
    assert giou_of(decode(constant.rle((4, 4))), references) == pytest.approx((1 / 7 + 1 / 4) / 2)


def test_the_constant_mask_is_resized_to_an_image_cell_by_cell():
    constant = ConstantMask(np.array([[True, False], [False, True]]))
    assert constant.rle((4, 6)) == masks("###... ###... ...### ...###")[0]
    assert decode(constant.rle((3000, 17))).shape == (3000, 17)


def test_a_row_without_a_target_pulls_the_constant_mask_to_nothing():
    some = masks("#. ..")
    assert not best_constant_mask([[], [], some], grid=2).mask.any()
    assert best_constant_mask([[], some, some], grid=2).mask.sum() == 1
    with pytest.raises(ValueError, match="none, so there is no constant mask"):
        best_constant_mask([])


def test_ten_thousand_small_masks_take_seconds():
    random = np.random.default_rng(2)
    corners = random.integers(0, 40, (2000, 2))
    references = []
    for y, x in corners:
        mask = np.zeros((64, 64), dtype=bool)
        mask[y : y + 24, x : x + 24] = True
        references.append([encode(mask)])
    started = time.perf_counter()
    mask = best_constant_mask(references * 5).mask
    assert time.perf_counter() - started < 5.0
    assert mask[28:36, 28:36].all() and not mask[:4].any()


@pytest.mark.parametrize("counts", ["", "zzzz", "0", "1" * 9, "oo"])
def test_run_lengths_of_no_mask_are_refused_where_pycocotools_would_hang_or_crash(counts):
    true = encode(np.eye(20, dtype=bool))
    for wrong in ({"size": [20, 20], "counts": counts}, {"size": [20, 20], "counts": encode(np.eye(40))["counts"]}):
        with pytest.raises(ValueError, match="^row 0: its counts "):
            metrics_of_masks.mask_metrics([[wrong]], [[true]])
        with pytest.raises(ValueError, match="^row 0: its counts "):
            metrics_of_masks.mask_metrics([[true]], [[wrong]])


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 9))
def test_the_counts_of_a_text_are_those_that_pycocotools_wrote(height, width, share, seed):
    mask = np.random.default_rng(seed).random((height, width)) < share
    runs = np.diff(np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=~mask[0, 0], append=~mask[-1, -1])))
    expected = [0] * int(mask[0, 0]) + runs.tolist()
    assert counts_in(encode(mask)["counts"]).tolist() == expected
