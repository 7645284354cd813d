"""The two benchmarks of decoding at a toy's size: their numbers are found, and both ways do the same."""

import re

import pytest

from benchmarks import constraints, label_scores
from benchmarks.numbers.parts import PARTS


def test_constrained_and_free_decoding_are_timed_over_the_same_steps(monkeypatch, capsys):
    for name, value in {"BATCH": 2, "BATCHES": 1, "ROUNDS": 1, "IMAGES": 6}.items():
        monkeypatch.setattr(constraints, name, value)
    constraints.main()
    printed = capsys.readouterr().out
    number = PARTS["constrained decoding"].read(printed)["times"]
    assert number["low"] == number["value"] == number["high"] > 0
    assert int(re.search(r"(\d+) steps", printed)[1]) > 0


def test_labels_one_by_one_and_as_a_tree_are_timed_over_the_same_scores(monkeypatch, capsys):
    for name, value in {"BATCH": 2, "ROUNDS": 1, "LABELS": label_scores.LABELS[:6]}.items():
        monkeypatch.setattr(label_scores, name, value)
    label_scores.main()
    printed = capsys.readouterr().out
    assert PARTS["labels scored as a tree"].read(printed)["times"]["value"] > 0
    assert float(re.search(r"between their scores: (\S+)", printed)[1]) == pytest.approx(0, abs=1e-5)
