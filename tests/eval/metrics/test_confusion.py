"""Confusion tables, against scikit-learn's and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix

from vlm_recipes.eval.metrics.confusion import confusion


def test_few_classes_give_scikit_learn_s_matrix():
    rng = np.random.default_rng(0)
    true = rng.choice(["no", "yes", "unsure"], 500, p=[0.5, 0.3, 0.2]).tolist()
    said = rng.choice(["no", "yes", "unsure"], 500).tolist()
    table = confusion(true, said)
    assert table.labels == ("no", "yes", "unsure") and table.columns == ["no", "yes", "unsure", "other"]
    assert (table.counts[:, :3] == confusion_matrix(true, said, labels=["no", "yes", "unsure"])).all()
    assert not table.counts[:, 3].any()


def test_many_classes_counted_by_hand():
    true = ["red"] * 4 + ["pink"] * 3 + ["blue", "blue", "gray"]
    said = ["red", "red", "pink", "mauve"] + ["pink", "blue", ""] + ["blue", "gray", "red"]
    table = confusion(true, said, max_labels=2)
    assert table.rows == ["red", "pink", "other (2 classes)"]
    assert table.columns == ["red", "pink", "other, right", "other, wrong"]
    assert table.counts.tolist() == [
        [2, 1, 0, 1],  # mauve
        [0, 1, 0, 2],  # blue is the class of other rows, and as wrong here as none at all
        [1, 0, 1, 1],  # blue for blue is right; gray for blue is not, though both are "other"
    ]
    assert table.right == 4 and table.total == 10


def test_among_equally_frequent_classes_the_alphabetically_first_comes_first():
    assert confusion(list("dbcab"), list("dbcab"), max_labels=3).labels == ("b", "a", "c")
    assert confusion(["b"], ["b"], max_labels=0).rows == ["other (1 class)"]


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(*[st.sampled_from(["a", "b", "c", "d", "e", "", "a\x00", "other", "\ud800"])] * 2)),
    st.integers(0, 10),
)
def test_each_row_is_counted_once_and_the_trace_is_the_right_answers(pairs, max_labels):
    true, said = [true for true, _ in pairs], [said for _, said in pairs]
    table = confusion(true, said, max_labels)
    assert table.counts.shape == (len(table.rows), len(table.columns))
    assert table.total == len(pairs)
    assert table.right == sum(map(str.__eq__, true, said))
    if pairs:
        names = sorted(set(true + said))
        coded = [names.index(name) for name in true], [names.index(name) for name in said]
        assert table.right / table.total == pytest.approx(accuracy_score(*coded))
    sizes = [true.count(label) for label in table.labels]
    assert table.counts[: len(sizes)].sum(axis=1).tolist() == sizes == sorted(sizes, reverse=True)
    assert table.other_classes == len(set(true) - set(table.labels))


def test_no_rows_give_an_empty_table_and_unequal_lists_an_error():
    table = confusion([], [])
    assert table.rows == [] and table.columns == ["other"] and table.total == table.right == 0
    with pytest.raises(ValueError, match="1 predictions for 2 references"):
        confusion(["a", "b"], ["a"])
