import math
import time

import numpy as np
import pytest
from scipy.stats import norm

from vlm_recipes.eval.metrics import statistics
from vlm_recipes.eval.metrics.number import Number, flat
from vlm_recipes.eval.metrics.statistics import average, bootstrap_interval, by_class, macro_average, numbered, ratio


def summarize(*scores, **more) -> dict[str, float]:
    return flat(statistics.summarize(*scores, **more))


def test_the_interval_of_a_mean_agrees_with_the_normal_one():
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    low, high = bootstrap_interval(values)
    half = norm.ppf(0.975) * values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)
    narrow = bootstrap_interval(values, confidence=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_the_interval_covers_the_truth_about_95_times_of_100():
    generator = np.random.default_rng(2)
    inside = 0
    for _ in range(200):
        low, high = bootstrap_interval(generator.binomial(1, 0.3, 60), n_resamples=300)
        inside += low <= 0.3 <= high
    assert 0.88 <= inside / 200 <= 1.0


@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_resampling_groups_covers_the_truth_where_resampling_rows_does_not(statistic):
    generator = np.random.default_rng(3)
    covered = {"rows": 0, "groups": 0}
    for _ in range(60):
        by_group = generator.normal(0.0, 1.0, 30)
        values = np.repeat(by_group, 8) + generator.normal(0.0, 0.1, 240)
        groups = np.repeat([f"image {i}" for i in range(30)], 8).tolist()
        for name, chosen in (("rows", None), ("groups", groups)):
            low, high = bootstrap_interval(values, chosen, n_resamples=200, statistic=statistic)
            covered[name] += low <= 0.0 <= high
    assert covered["groups"] >= 51 and covered["rows"] <= 45


@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_a_resample_of_groups_keeps_their_rows_together_and_weighs_them_by_size(statistic):
    # by hand: two of two groups are drawn, so only three data sets exist: aa, ab, bb
    values, groups = [0.0, 1.0, 1.0, 1.0], ["a", "b", "b", "b"]
    low, high = bootstrap_interval(values, groups, statistic=statistic)
    assert (low, high) == (0.0, 1.0)
    middle = bootstrap_interval(values, groups, confidence=0.02, statistic=statistic)
    assert middle == (statistic(values),) * 2, "the whole data's statistic, rows counted, is the middle of the three"


@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_groups_of_one_row_are_rows(statistic):
    values = np.random.default_rng(4).random(50)
    grouped = bootstrap_interval(values, [f"{i:02d}" for i in range(50)], statistic=statistic)
    assert grouped == pytest.approx(bootstrap_interval(values, statistic=statistic))


@pytest.mark.parametrize("statistic", [np.mean, np.median])
def test_the_rows_of_a_group_need_not_stand_together(statistic):
    values, groups = [0.1, 0.4, 0.9, 0.3, 0.8, 0.7], ["x", "x", "y", "y", "z", "z"]
    order = [3, 0, 4, 2, 5, 1]
    shuffled = bootstrap_interval([values[i] for i in order], [groups[i] for i in order], statistic=statistic)
    assert shuffled == pytest.approx(bootstrap_interval(values, groups, statistic=statistic))


def test_the_seed_decides_and_constant_values_have_no_width():
    values = np.random.default_rng(5).random(30)
    assert (
        bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)
    )
    assert bootstrap_interval([0.25] * 10) == (0.25, 0.25)


def test_one_row_or_one_group_cannot_be_resampled():
    with pytest.raises(ValueError, match="at least 2 rows or groups, got 1"):
        bootstrap_interval([0.5])
    with pytest.raises(ValueError, match="got 1"):
        bootstrap_interval([0.5, 0.7], ["same", "same"])


def test_a_summary_gives_mean_interval_and_count():
    summary = summarize({"exact_match": [1.0, 0.0, 1.0, 1.0]})
    assert list(summary) == ["n", "exact_match", "exact_match_low", "exact_match_high"]
    assert summary["n"] == 4 and summary["exact_match"] == 0.75
    low, high = bootstrap_interval([1.0, 0.0, 1.0, 1.0])
    assert (summary["exact_match_low"], summary["exact_match_high"]) == (low, high)
    assert summarize({"score": [1.0, 2.0, 9.0]}, statistic=np.median)["score"] == 2.0


def test_rows_of_none_do_not_count_and_the_number_of_the_others_is_told():
    summary = summarize(
        {"open_f1": [None, 0.5, 1.0, None], "bleu1": [0.0, 0.0, 0.0, 1.0]}, groups=["a", "b", "b", "c"]
    )
    assert summary["open_f1"] == 0.75 and summary["open_f1_n"] == 2
    assert "open_f1_low" not in summary, "both counted rows are of one group"
    assert "bleu1_low" in summary and "bleu1_n" not in summary and summary["n"] == 4
    nothing = summarize({"open_f1": [None, None]})
    assert nothing == {"n": 2, "open_f1_n": 0}


def test_a_group_whose_rows_do_not_count_is_not_resampled():
    counted, groups = [0.9, 0.8, 0.7, 0.1, 0.2, 0.5], ["a", "a", "a", "b", "b", "c"]
    summary = summarize({"f1": [*counted, None, None]}, groups=[*groups, "d", "e"])
    assert (summary["f1_low"], summary["f1_high"]) == bootstrap_interval(counted, groups)
    assert bootstrap_interval(counted, groups) != bootstrap_interval(counted)


def test_a_single_row_has_no_interval_and_no_rows_have_only_n():
    assert summarize({"f1": [0.5]}) == {"n": 1, "f1": 0.5}
    assert summarize({"f1": []}) == summarize({"f1": []}, groups=[]) == summarize({}) == {"n": 0}


def test_uneven_lengths_and_nan_are_refused_by_name():
    with pytest.raises(ValueError, match="'f1': 1"):
        summarize({"f1": [1.0], "bleu1": [1.0, 0.0]})
    with pytest.raises(ValueError, match="'groups': 1"):
        summarize({"f1": [1.0, 0.0]}, groups=["a"])
    with pytest.raises(ValueError, match="f1: the score of row 2 is NaN"):
        summarize({"f1": [1.0, None, math.nan]})


def test_an_evaluation_of_450_rows_and_12_metrics_takes_well_under_two_seconds():
    generator = np.random.default_rng(6)
    scores = {f"metric_{i}": generator.random(450).tolist() for i in range(12)}
    for groups in (None, [str(row // 3) for row in range(450)]):
        started = time.perf_counter()
        summarize(scores, groups)
        assert time.perf_counter() - started < 2.0


def test_a_ratio_of_sums_is_not_the_mean_of_ratios_and_its_interval_resamples_whole_groups():
    random = np.random.default_rng(7)
    denominators = random.integers(1, 100, 60)
    numerators = random.binomial(denominators, 0.4)
    groups = [f"{row // 2}" for row in range(60)]
    metrics = ratio(numerators, denominators, groups)
    assert metrics.value == numerators.sum() / denominators.sum() != (numerators / denominators).mean()
    sums = np.stack([numerators, denominators]).reshape(2, 30, 2).sum(axis=2)
    by_hand = [np.divide(*sums[:, random.integers(0, 30, 30)].sum(axis=1)) for _ in range(4000)]
    assert [metrics.low, metrics.high] == pytest.approx(np.percentile(by_hand, [2.5, 97.5]), abs=0.006)
    assert ratio(numerators, denominators, groups) == metrics != ratio(numerators, denominators)


def test_a_ratio_with_denominators_of_1_is_a_mean():
    values = np.random.default_rng(8).random(40)
    low, high = bootstrap_interval(values)
    found = ratio(values, np.ones(40))
    assert (found.value, found.low, found.high, found.n) == pytest.approx((values.mean(), low, high, 40))


def test_a_ratio_of_nothing_to_nothing_is_1_and_uneven_lengths_are_refused():
    assert ratio([0, 0], [0, 0]) == Number(1.0, 2, 1.0, 1.0)
    assert ratio([1], [2]) == Number(0.5, 1) and ratio([1, 0], [1, 1], ["a", "a"]) == Number(0.5, 2)
    assert ratio([], []) == Number(None, 0)
    with pytest.raises(ValueError, match="1 numerators, 2 denominators, 1 groups"):
        ratio([1], [1, 2])


def test_each_class_is_the_average_of_its_own_rows_and_so_are_the_baselines():
    scores, classes, images = [1.0, 0.0, 0.5, 1.0], ["a", "b", "a", "a"], ["x", "x", "y", "z"]
    found = by_class(scores, classes, ["b", "a", "none"], images, baseline=[0.0, 1.0, 0.5, 0.25])
    assert list(found) == ["b", "a", "none"] and found["none"] == Number(None, 0)
    assert found["b"] == Number(0.0, 1, baseline=1.0)
    assert (found["a"].low, found["a"].high) == bootstrap_interval([1.0, 0.5, 1.0], ["x", "y", "z"])
    assert (found["a"].value, found["a"].n, found["a"].baseline) == (2.5 / 3, 3, 0.25)
    some = average([1.0, None, 0.0], question_baseline=[1.0, 1.0, 0.5], baseline=None)
    assert (some.value, some.n, some.question_baseline, some.baseline) == (0.5, 2, 0.75, None)
    macro = macro_average(scores, classes, images, baseline=[0.0, 1.0, 0.5, 0.25])
    assert (macro.value, macro.baseline, macro.n) == (2.5 / 6, (1 + 0.25) / 2, 4)
    assert macro_average([], []) == Number(None, 0)


# --- what groups are called


@pytest.mark.parametrize("seed", range(5))
def test_groups_of_texts_or_of_numbers_are_counted_in_their_sorted_order(seed):
    """As numpy.unique counts them: with the same seed, another order would draw other intervals."""
    generator = np.random.default_rng(seed)
    letters = np.array(list("aZ09 _é漢\U0001f600"))
    texts = ["".join(generator.choice(letters, generator.integers(1, 4))) for _ in range(300)]
    integers = generator.integers(-50, 50, 300).tolist()
    for names in (texts, integers, np.array(texts), np.array(integers), np.array(texts, dtype=object)):
        expected = np.unique(np.asarray(names), return_inverse=True)[1]
        assert np.array_equal(numbered(names, 300), expected)
        assert np.array_equal(numbered([*names, None], 301), [*expected, expected.max() + 1])
    assert np.array_equal(numbered(None, 300), np.arange(300)) and len(numbered([], 0)) == 0


def test_a_row_whose_group_has_no_name_is_a_group_of_its_own():
    """The same numbers, to the last digit, as with a made-up name for each such row."""
    generator = np.random.default_rng(0)
    scores, classes = generator.random(60).tolist(), generator.choice(["x", "y"], 60).tolist()
    groups = generator.choice(["a", "b", "c", None], 60).tolist()
    made_up = [f"~{i:03}" if name is None else name for i, name in enumerate(groups)]
    assert 10 < groups.count(None) < 50
    some = [score if i % 3 else None for i, score in enumerate(scores)]
    for numbers in (
        lambda names: bootstrap_interval(scores, names, np.median),
        lambda names: average(some, names),
        lambda names: statistics.summarize({"f1": some}, names),
        lambda names: ratio(scores, [1.0] * 60, names),
        lambda names: macro_average(scores, classes, names),
        lambda names: by_class(scores, classes, ["x", "y"], names),
    ):
        assert numbers(groups) == numbers(made_up)
    assert average(scores, groups) != average(scores, [name or "none" for name in groups])
    assert average([0.0, 1.0], [None, None]) == average([0.0, 1.0]), "two groups, and an interval"


def test_a_number_and_its_text_are_two_groups():
    assert numbered([1, "1", None, 1, "1", None], 6).tolist() == [0, 1, 2, 0, 1, 3]


def test_what_pandas_has_for_no_name_is_a_group_of_its_own():
    nan = float("nan")
    for groups in (["a", nan, nan], [nan, np.nan, None], np.array([1.0, nan, nan])):
        assert len(set(numbered(groups, 3).tolist())) == 3
    assert average([0.0, 1.0, 1.0], [nan] * 3) == average([0.0, 1.0, 1.0])


def test_groups_of_more_rows_than_there_are_scores_are_refused():
    with pytest.raises(ValueError, match="2 scores, 3 groups"):
        average([0.0, 1.0], ["a", "b", "c"])
