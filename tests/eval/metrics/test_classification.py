"""Scores over classes against scikit-learn and by hand; intervals against resamples drawn one by one."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from vlm_recipes.eval.metrics import classification
from vlm_recipes.eval.metrics.baselines import Majority, majority_answers
from vlm_recipes.eval.metrics.number import flat
from vlm_recipes.eval.metrics.statistics import macro_average

PREDICTIONS = ["liver", "liver", "hook", "2", "liver", "a spoon"]
REFERENCES = ["liver", "liver", "liver", "2", "hook", "2"]
ROW_TYPES = [("type", "zero_hop")] * 2 + [("type", "one_hop"), ("count", "one_hop"), ("type", "one_hop"), ("count",)]
LABELS = ["2", "3", "hook", "liver"]


def classification_metrics(*columns, **more) -> dict[str, float]:
    return flat(classification.classification_metrics(*columns, **more))


def of_scikit_learn(predictions, references) -> dict[str, float]:
    """Over the classes that occur in the references, whatever was answered."""
    over = {"labels": sorted(set(references)), "zero_division": 0}
    macro = precision_recall_fscore_support(references, predictions, average="macro", **over)
    return {
        "accuracy": accuracy_score(references, predictions),
        **dict(zip(["macro_precision", "macro_recall", "macro_f1"], macro[:3], strict=True)),
        "weighted_f1": f1_score(references, predictions, average="weighted", **over),
    }


def some_rows(n: int = 90, n_frames: int = 12, seed: int = 3) -> tuple[np.ndarray, ...]:
    """Answers right about half of the time, a rare class, unmapped answers, and frames of different sizes."""
    random = np.random.default_rng(seed)
    references = random.choice(["0", "1", "cut", "red"], n, p=[0.5, 0.3, 0.15, 0.05])
    predictions = np.where(random.random(n) < 0.5, references, random.choice(["0", "1", "cut", "blue", "?"], n))
    frames = np.minimum(random.integers(0, n_frames, n), random.integers(0, n_frames, n))
    kinds = random.choice(["count", "color"], n)
    return predictions, references, np.array([f"frame {i:02}" for i in frames]), kinds


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c", "d", "?"]), st.sampled_from(["a", "b", "c"]), st.booleans()),
        min_size=2,
        max_size=12,
    )
)
def test_point_values_are_scikit_learn_s_over_the_classes_with_support(rows):
    predictions, references, odd = map(list, zip(*rows, strict=True))
    types = [("odd", "all") if is_odd else ("all",) for is_odd in odd]
    metrics = classification_metrics(predictions, references, labels=["a", "b", "c", "d"], types=types)
    for name, value in of_scikit_learn(predictions, references).items():
        assert metrics[name] == pytest.approx(value)
        assert metrics.get(f"{name}_all", value) == pytest.approx(value)
        assert metrics[f"{name}_low"] <= metrics[f"{name}_high"]
    assert metrics["accuracy_unmapped"] == predictions.count("?") / len(rows)
    if any(odd):
        own = of_scikit_learn(*zip(*(row[:2] for row in rows if row[2]), strict=True))
        assert {name: metrics[f"{name}_odd"] for name in ("accuracy", "macro_f1", "weighted_f1")} == pytest.approx(
            {name: own[name] for name in ("accuracy", "macro_f1", "weighted_f1")}
        )
        assert metrics["accuracy_odd_n"] == metrics["macro_f1_odd_n"] == metrics["weighted_f1_odd_n"] == sum(odd)
    else:
        assert not [name for name in metrics if "odd" in name]


def test_six_rows_by_hand():
    """liver: 2 of 3 answered, 3 of them given; 2: 1 of 2, 1 given; hook: 0 of 1, 1 given. The spoon is no class."""
    metrics = classification_metrics(PREDICTIONS, REFERENCES, labels=LABELS, types=ROW_TYPES)
    assert metrics["n"] == 6 and metrics["accuracy"] == 3 / 6 and metrics["accuracy_unmapped"] == 1 / 6
    assert metrics["macro_precision"] == pytest.approx((2 / 3 + 1 / 1 + 0) / 3)
    assert metrics["macro_recall"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert metrics["macro_f1"] == pytest.approx((4 / 6 + 2 / 3 + 0) / 3)
    assert metrics["weighted_f1"] == pytest.approx((3 * 4 / 6 + 2 * 2 / 3 + 0) / 6)
    assert metrics["accuracy_one_hop"] == pytest.approx(1 / 3) and metrics["accuracy_one_hop_n"] == 3
    assert metrics["macro_f1_one_hop"] == pytest.approx(1 / 3)  # liver and hook taken for each other, 2 found
    assert metrics["macro_f1_count"] == metrics["weighted_f1_count"] == pytest.approx(2 / 3)
    assert metrics["accuracy_zero_hop"] == metrics["macro_f1_zero_hop"] == metrics["macro_f1_zero_hop_low"] == 1


def test_an_answer_outside_the_closed_set_is_wrong_even_where_the_reference_is_too():
    metrics = classification_metrics(["spoon", "hook"], ["spoon", "hook"], labels=LABELS)
    assert metrics["accuracy"] == metrics["macro_f1"] == metrics["accuracy_unmapped"] == 0.5
    one = classification_metrics(["spoon"], ["spoon"], labels=LABELS)
    assert (one["n"], one["accuracy"], one["macro_f1"], one["accuracy_unmapped"]) == (1, 0, 0, 1)
    assert "accuracy_unmapped" not in classification_metrics(["spoon", "hook"], ["spoon", "hook"])


def test_answers_that_are_all_wrong_or_no_class_at_all_score_0_and_never_nan():
    metrics = classification_metrics(["?", "!"], ["a", "b"], types=[("x",), ("y",)], majority=Majority("c", {}))
    assert metrics.pop("n") == 2
    assert {name: value for name, value in metrics.items() if not name.endswith("_n")} == dict.fromkeys(
        [name for name in metrics if not name.endswith("_n")], 0
    )
    assert "macro_f1_x" in metrics and "macro_f1_x_low" not in metrics  # one row of this type: nothing to resample


def test_baselines_are_counts_of_the_training_majority():
    train = ["liver", "liver", "2", "2", "2", "hook"]
    majority = majority_answers(train, [("type", "one_hop")] * 2 + [("count",)] * 3 + [("type", "one_hop")])
    assert majority == Majority("2", {"type": "liver", "count": "2", "one_hop": "liver"})
    metrics = classification_metrics(PREDICTIONS, REFERENCES, types=ROW_TYPES, majority=majority)
    assert metrics["baseline_accuracy"] == 2 / 6  # always "2"
    assert metrics["baseline_macro_precision"] == pytest.approx(2 / 6 / 3)
    assert metrics["baseline_macro_recall"] == pytest.approx(1 / 3)
    assert metrics["baseline_macro_f1"] == pytest.approx(2 * 2 / (2 + 6) / 3)
    assert metrics["baseline_weighted_f1"] == pytest.approx(2 * 2 / (2 + 6) * 2 / 6)
    assert metrics["baseline_accuracy_type"] == 3 / 4  # always "liver", which has all four rows but one
    assert metrics["baseline_macro_f1_type"] == pytest.approx(2 * 3 / (3 + 4) / 2)
    assert metrics["baseline_accuracy_one_hop"] == pytest.approx(1 / 3)
    assert metrics["baseline_accuracy_zero_hop"] == 0  # unseen in training, so "2"
    assert metrics["type_baseline_accuracy"] == (3 + 2) / 6
    counted = Counter(zip((own[0] for own in ROW_TYPES), REFERENCES, strict=True))
    assert counted["type", "liver"] + counted["count", "2"] == 5
    assert not [name for name in metrics if "baseline" in name and name.endswith(("_low", "_high"))]


def test_intervals_are_those_of_resampled_frames_scored_by_scikit_learn_one_by_one():
    predictions, references, frames, kinds = some_rows()
    types = [(str(kind),) for kind in kinds]
    metrics = classification_metrics(predictions.tolist(), references.tolist(), types=types, groups=frames.tolist())
    predictions, references = np.unique([predictions, references], return_inverse=True)[1].reshape(2, -1)

    def by_class(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """As `of_scikit_learn`, averaged here: a third of the time."""
        over = {"labels": np.unique(references), "zero_division": 0}
        *each, support = precision_recall_fscore_support(references, predictions, average=None, **over)
        macro = dict(zip(("macro_precision", "macro_recall", "macro_f1"), map(np.mean, each), strict=True))
        weighted = np.average(each[2], weights=support)
        return {"accuracy": np.mean(predictions == references), **macro, "weighted_f1": weighted}

    def of_resamples(rows: np.ndarray, names: list[str]) -> np.ndarray:
        """`[2, len(names)]`: a resample holds as many frames as there are; some twice, some not at all."""
        rows_of_frame = [rows[frames[rows] == frame] for frame in np.unique(frames[rows])]
        drawn = np.random.default_rng(0).integers(0, len(rows_of_frame), (1000, len(rows_of_frame)))
        scores = []
        for chosen in drawn:
            sample = np.concatenate([rows_of_frame[frame] for frame in chosen])
            own = by_class(predictions[sample], references[sample])
            scores.append([own[name] for name in names])
        return np.percentile(scores, [2.5, 97.5], axis=0)

    for kind, names in (
        ("", ["accuracy", "macro_precision", "macro_recall", "macro_f1", "weighted_f1"]),
        ("_count", ["accuracy", "macro_f1", "weighted_f1"]),
    ):
        rows = np.flatnonzero(kinds == "count") if kind else np.arange(len(kinds))
        ours = [[metrics[f"{name}{kind}_{end}"] for name in names] for end in ("low", "high")]
        assert np.array(ours) == pytest.approx(of_resamples(rows, names), abs=1e-12)
        assert all(low < metrics[f"{name}{kind}"] < high for name, low, high in zip(names, *ours, strict=True))


def test_without_groups_rows_are_resampled_in_portions_as_the_mean_over_classes_of_accuracy_is():
    """Macro recall is the mean over classes of the share of right answers, which another function computes too."""
    predictions, references, _, _ = some_rows(n=6000)
    metrics = classification_metrics(predictions.tolist(), references.tolist())
    expected = macro_average((predictions == references).astype(float), references)
    found = [metrics[name] for name in ("macro_recall", "macro_recall_low", "macro_recall_high")]
    assert found == pytest.approx([expected.value, expected.low, expected.high])


def test_ten_equal_rows_of_a_frame_are_one_observation():
    predictions, references, _, _ = some_rows(n=60)
    frames = [f"{frame:02}" for frame in range(60)]
    alone = classification_metrics(predictions.tolist(), references.tolist(), groups=frames)
    tenfold = [np.repeat(column, 10).tolist() for column in (predictions, references, frames)]
    together = classification_metrics(*tenfold[:2], groups=tenfold[2])
    assert {name: together[name] for name in together if name != "n"} == pytest.approx(
        {name: alone[name] for name in alone if name != "n"}
    )
    rows = classification_metrics(*tenfold[:2])
    for name in ("macro_f1", "weighted_f1"):
        assert rows[f"{name}_high"] - rows[f"{name}_low"] < 0.5 * (alone[f"{name}_high"] - alone[f"{name}_low"])


def test_one_frame_and_one_row_have_no_interval_and_no_row_has_only_n():
    metrics = classification_metrics(PREDICTIONS, REFERENCES, labels=LABELS, types=ROW_TYPES, groups=["a"] * 6)
    assert "macro_f1" in metrics and not [name for name in metrics if name.endswith(("_low", "_high"))]
    majority = Majority("a", {})
    one = {"labels": ["a", "b"], "types": [("x",)], "groups": ["g"], "majority": majority}
    for said, right in (("a", 1.0), ("b", 0.0)):
        numbers = classification_metrics([said], ["a"], **one)
        names = ("accuracy", "macro_f1", "weighted_f1")
        assert {numbers[f"{name}{kind}"] for name in names for kind in ("", "_x")} == {right}
        assert {numbers[f"baseline_{name}"] for name in names} == {1.0} and numbers["accuracy_x_n"] == 1
        assert not [name for name in numbers if name.endswith(("_low", "_high"))]
    none = {"labels": ["a"], "types": [], "groups": [], "majority": majority}
    assert classification_metrics([], [], **none) == classification_metrics([], []) == {"n": 0}


def test_a_row_whose_frame_has_no_name_is_one_by_itself():
    predictions, references, _, kinds = some_rows(n=60)
    frames = [None if i % 4 == 0 else f"{i % 7}" for i in range(60)]
    made_up = [frame or f"~{i:03}" for i, frame in enumerate(frames)]
    rows = {"types": [(kind,) for kind in kinds.tolist()], "labels": sorted(set(references.tolist()))}
    unnamed, named = (
        classification_metrics(predictions.tolist(), references.tolist(), groups=groups, **rows)
        for groups in (frames, made_up)
    )
    assert unnamed == named and "macro_f1_low" in unnamed


@pytest.mark.parametrize("column", ["references", "types", "groups"])
def test_lists_of_different_lengths_are_an_error(column):
    columns = {"references": ["a", "b"], "types": [("x",), ("y",)], "groups": ["g", "h"]}
    columns[column] = columns[column][:1]
    with pytest.raises(ValueError, match=f"2 predictions, 1 {column}"):
        classification_metrics(["a", "b"], **columns)
