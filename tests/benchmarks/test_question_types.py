"""The reference's keyword rule, and where the real rows of Kvasir-VQA show that it misleads."""

import json

import pytest

from benchmarks.question_types import keyword_type, main
from tests.support.paths import written_and_real


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Are there any abnormalities in the image? Check all that are present.", "yes_no"),
        ("What color is the abnormality? If more than one separate with ;", "color"),
        ("What is the size of the polyp?", "size_numeric"),
        ("How many findings are present?", "count_numeric"),
        ("Choose one of the options", "mcq"),
        ("Have all polyps been removed?", "open_ended"),
        ("Is the size above 5 mm?", "yes_no"),
    ],
)
def test_the_reference_s_keyword_rule_in_its_order(question, expected):
    assert keyword_type(question) == expected


@pytest.mark.parametrize(
    ("file", "n", "by_keywords", "lists", "differ", "yes_no"),
    written_and_real("kvasir_vqa/rows.jsonl", (38, 12, 6, 14, 6), (2154, 695, 233, 956, 462)),
)
def test_the_rule_takes_lists_for_yes_and_no_and_gives_many_rows_another_type(
    file, n, by_keywords, lists, differ, yes_no, capsys
):
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    named = [row for row in rows if keyword_type(row["question"]) == "yes_no"]
    assert len(named) == by_keywords and sum(row["answer"] not in ("yes", "no") for row in named) == lists
    main(str(file))
    out = capsys.readouterr().out
    assert f"the two rules disagree on {differ} of {n} rows" in out
    [line] = [line.split() for line in out.splitlines() if line.startswith("yes_no")]
    assert line == ["yes_no", str(yes_no), str(by_keywords)]
    assert sum(int(line.split()[0]) for line in out.splitlines() if "*" in line) == differ
