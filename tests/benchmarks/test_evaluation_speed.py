"""The benchmark of evaluation at small sizes."""

import json
import re

import pytest
import torch

from benchmarks import evaluation_speed, questions
from benchmarks.evaluation_speed import ALONE, PADDED, SHARED


def test_answers_and_scores_are_compared_in_a_table(monkeypatch, capsys):
    monkeypatch.setattr(questions, "PIXELS", questions.FEW_PIXELS)
    for name, value in {"IMAGES": 2, "ROUNDS": 1, "NEW_TOKENS": 3, "SCORED": 1}.items():
        monkeypatch.setattr(evaluation_speed, name, value)
    evaluation_speed.main([])
    printed = capsys.readouterr().out
    assert (
        len(re.findall("^(?:answers|labels), (?:one by one|padded batch|shared images) ", printed, re.MULTILINE)) == 5
    )
    assert float(re.search(r"differ by at most (\S+)", printed)[1]) < 1e-4


def test_the_toy_gives_a_row_for_each_way_and_on_a_cpu_all_answers_agree():
    rows = evaluation_speed.measure(toy=True)
    ways = [f"answers, {name}" for name in (ALONE, PADDED, SHARED)] + [f"labels, {name}" for name in (ALONE, SHARED)]
    assert [row["what"] for row in rows] == ways and rows[0]["times"] == rows[3]["times"] == 1
    assert all(row["questions/s"] > 0 for row in rows)
    assert [row["as one by one"] for row in rows[:3]] == [1, 1, 1]
    assert rows[0]["different"] == rows[1]["different"] == rows[2]["different"] > 1
    assert all(row["scores differ by"] < 1e-4 for row in rows[3:])
    json.dumps(rows)


@pytest.mark.parametrize("exact", [True, False])
def test_answers_that_depend_on_the_batch_end_it_only_where_none_may(exact, monkeypatch, capsys):
    """One way's first answer is another's."""
    rows = questions.Dataset.from_dict({"image_id": ["a"] * 4})
    answers = {ALONE: ["w", "x", "y", "z"], PADDED: ["w", "x", "y", "z"], SHARED: ["v", "x", "y", "z"]}
    seconds = {name: [1.0] for name in answers}
    monkeypatch.setattr(evaluation_speed, "answering", lambda *_: (seconds, answers))
    monkeypatch.setattr(evaluation_speed, "scoring", lambda *_: ({ALONE: [1.0], SHARED: [0.5]}, [2, 2], 0.1))
    if exact:
        with pytest.raises(AssertionError, match="depend on how the questions are batched"):
            evaluation_speed.compare(None, None, rows, 1, exact)
    else:
        found = evaluation_speed.compare(None, None, rows, 1, exact)
        assert [row["as one by one"] for row in found[:3]] == [1, 1, 0.75]
        assert found[4]["times"] == 2 and found[4]["questions/s"] == 4


def test_without_a_gpu_it_says_so_and_ends_well(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    evaluation_speed.main(["--full_size"])
    assert "no GPU" in capsys.readouterr().out
