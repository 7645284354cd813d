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


def test_missed_and_invented_boxes_have_a_column_and_a_row_as_scikit_learn_counts_them():
    rng = np.random.default_rng(0)
    names = ["cat", "dog", "cow", None]
    true, said = (rng.choice(4, 400, p=p).tolist() for p in ([0.4, 0.3, 0.2, 0.1], [0.2, 0.4, 0.2, 0.2]))
    pairs = [pair for pair in zip(true, said, strict=True) if pair != (3, 3)]
    table = confusion(*zip(*((names[one], names[other]) for one, other in pairs), strict=True))
    expected = confusion_matrix(*zip(*pairs, strict=True), labels=range(4))
    assert table.labels == ("cat", "dog", "cow") and table.n_classes == 3
    assert (table.more_columns, table.more_rows) == (("other", "missed"), ("invented",))
    assert (table.counts == np.insert(expected, 3, 0, axis=1)).all() and table.counts[3, 4] == 0
    assert (table.n_right, table.n_true) == (np.trace(expected[:3, :3]), expected[:3].sum())


def test_of_boxes_too_only_the_most_frequent_classes_are_shown():
    true = ["cat"] * 3 + ["dog"] * 2 + ["cow", "hen", None, None, None]
    said = ["cat", "cow", None] + ["dog", None] + ["cow", "cat", "cat", "hen", "dog"]
    table = confusion(true, said, max_labels=2)
    assert table.labels == ("cat", "dog") and table.n_classes == 4
    assert table.counts.tolist() == [[1, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 0]]
    only_missed = confusion(["cat", "cat"], ["cat", None])
    assert only_missed.more_rows == () and only_missed.counts.tolist() == [[1, 0, 1]]


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
