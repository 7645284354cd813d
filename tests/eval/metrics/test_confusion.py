"""Confusion tables, against scikit-learn's and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from vlm_recipes.eval.metrics.confusion import confusion


def test_few_classes_give_scikit_learn_s_matrix():
    rng = np.random.default_rng(0)
    true = rng.choice(["no", "yes", "unsure"], 500, p=[0.5, 0.3, 0.2]).tolist()
    said = rng.choice(["no", "yes", "unsure"], 500).tolist()
    table = confusion(true, said)
    assert table.labels == ("no", "yes", "unsure") and table.n_classes == 3
    assert (table.counts[:, :3] == confusion_matrix(true, said, labels=["no", "yes", "unsure"])).all()
    assert not table.counts[:, 3].any()


def test_many_classes_counted_by_hand():
    true = ["red"] * 4 + ["pink"] * 3 + ["blue", "blue", "gray"]
    said = ["red", "red", "pink", "mauve"] + ["pink", "blue", ""] + ["blue", "gray", "red"]
    table = confusion(true, said, max_labels=2)
    assert table.labels == ("red", "pink") and table.n_classes == 4
    assert table.counts.tolist() == [[2, 1, 1], [0, 1, 2]]  # last mauve, then blue and an answer of no class


def test_among_equally_frequent_classes_the_alphabetically_first_comes_first():
    assert confusion(list("dbcab"), list("dbcab"), max_labels=3).labels == ("b", "a", "c")


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(*[st.sampled_from(["a", "b", "c", "d", "e", "", "a\x00", "other", "\ud800"])] * 2)),
    st.integers(0, 10),
)
def test_each_row_of_a_class_shown_is_counted_once_and_the_trace_is_the_right_answers(pairs, max_labels):
    true, said = [true for true, _ in pairs], [said for _, said in pairs]
    table = confusion(true, said, max_labels)
    assert table.counts.shape == (len(table.labels), len(table.labels) + 1)
    assert table.n_classes == len(set(true)) and len(table.labels) == min(max_labels, table.n_classes)
    sizes = [true.count(label) for label in table.labels]
    assert table.counts.sum(axis=1).tolist() == sizes == sorted(sizes, reverse=True)
    assert np.trace(table.counts) == sum(one == other and one in table.labels for one, other in pairs)


def test_no_rows_give_an_empty_table_and_unequal_lists_an_error():
    table = confusion([], [])
    assert table.labels == () and table.counts.sum() == 0 == table.n_classes
    with pytest.raises(ValueError, match="1 predictions for 2 references"):
        confusion(["a", "b"], ["a"])
