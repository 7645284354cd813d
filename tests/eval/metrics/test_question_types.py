"""Types come from a question and its training answers."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.paths import written_and_real
from vlm_recipes.eval.metrics.question_types import OPEN, QuestionType, QuestionTypes, infer_type, main
from vlm_recipes.eval.metrics.typed_answers import TYPES, is_right

ROWS = "kvasir_vqa/rows.jsonl"


def rows_of(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("question", "answers", "expected"),
    [
        ("Is there text?", ["yes"] * 5, QuestionType("yes_no", ("yes", "no"))),
        ("Is there text?", ["Yes.", "no", "no"], QuestionType("yes_no", ("yes", "no"))),
        ("Removed?", ["yes", "no", "not relevant"] * 9, QuestionType("mcq", ("no", "not relevant", "yes"))),
        ("Are there any? Check all that are present.", ["polyp"] * 9, QuestionType("mcq", ("polyp",), several=True)),
        ("What color?", ["pink; red", "red; pink", "pink"] * 3, QuestionType("color", ("pink", "red"), several=True)),
        ("What colour?", ["grey", "gray", "gray", "red"] * 9, QuestionType("color", ("gray", "red"))),
        ("How many colors?", ["2", "3", "0"], QuestionType("count_numeric", (), units=("",))),
        ("How many?", ["1", "none", "2", "none"], QuestionType("count_numeric", ("none",), units=("",))),
        ("Size?", [">20", ">20mm", ">20mm", "<5mm", "none"], QuestionType("size_numeric", ("<5mm", ">20mm", "none"))),
        ("How big?", ["5-10mm;<5mm", "<5mm"] * 9, QuestionType("size_numeric", ("<5mm", "5-10mm"), several=True)),
        ("How long?", ["12 mm", "7 mm", "1.5 cm"], QuestionType("size_numeric", (), units=(" cm", " mm"))),
        ("How many?", ["２", "１\u200b", "none", "３"], QuestionType("count_numeric", ("none",), units=("",))),
        ("How long?", ["１２ｍｍ", "１．５mm"], QuestionType("size_numeric", (), units=("mm",))),
        ("How long?", ["１．５", "２．５"], OPEN),  # numbers without a unit are no lengths
        ("Which?", ["Ａ", "A", "A", "cle\u0301", "clé", "clé"], QuestionType("mcq", ("A", "clé"))),
        ("What color?", ["pink\u037e red", "pink", "red"] * 3, QuestionType("color", ("pink", "red"), several=True)),
        ("What is it?", ["a polyp near the fold", "an ulcer", "nothing"], OPEN),
        ("Which?", ["snare", "snare", "clip", "clip", "forceps"], QuestionType("mcq", ("clip", "forceps", "snare"))),
        ("Which?", ["snare"], OPEN),
    ],
)  # fmt: skip
def test_the_type_follows_from_the_answers(question, answers, expected):
    assert infer_type(question, answers) == expected


def test_a_slip_among_hundreds_of_counts_does_not_make_them_words():
    kind = infer_type("How many polyps?", ["1", "2", "0"] * 100 + ["one"])
    assert kind.name == "count_numeric" and kind.choices == ("one",)
    assert infer_type("How many polyps?", ["1", "2", "0", "one"]).name != "count_numeric"


def test_a_question_of_no_training_row_is_open_and_a_typo_makes_no_new_question():
    types = QuestionTypes.infer(["How many instrumnets are there?"] * 3, ["1", "0", "2"])
    assert types["how many  instruments are there?"].name == "count_numeric"
    assert types["\ufeffＨow many instruments are there?"].name == "count_numeric"
    assert types["Is there text?"] == OPEN


def test_types_survive_being_saved(tmp_path):
    types = QuestionTypes.infer(["A?", "A?", "How long?"], ["yes", "no", "3 mm"])
    (tmp_path / "types.json").write_text(types.as_json(), encoding="utf-8")
    assert QuestionTypes.load(tmp_path / "types.json").by_question == types.by_question
    kind = types["How long?"]
    assert QuestionType.of(kind.columns()) == kind


@given(
    st.lists(
        st.tuples(st.sampled_from(["Is it?", "Which color?", "How many?", "?"]), st.text(max_size=12)), max_size=30
    )
)
def test_any_answers_give_a_known_type_whose_choices_were_answers(rows):  # fmt: skip
    types = QuestionTypes.infer([question for question, _ in rows], [answer for _, answer in rows])
    for question, kind in types.by_question.items():
        assert kind.name in TYPES
        given_answers = " ".join(answer for own, answer in rows if own.lower() == question)
        assert kind.name == "yes_no" or all(choice in given_answers for choice in kind.choices)


COUNTS = (
    {"yes_no": 6, "color": 6, "size_numeric": 6, "count_numeric": 6, "mcq": 14},
    {"yes_no": 462, "color": 154, "size_numeric": 172, "count_numeric": 410, "mcq": 956},
)


@pytest.mark.parametrize(("file", "expected"), written_and_real(ROWS, COUNTS[:1], COUNTS[1:]))
def test_no_question_with_lists_or_classes_for_answers_is_yes_no(file, expected):
    rows = rows_of(file)
    types = QuestionTypes.infer([row["question"] for row in rows], [row["answer"] for row in rows])
    assert {row["answer"] for row in rows if types[row["question"]].name == "yes_no"} == {"yes", "no"}
    assert Counter(types[row["question"]].name for row in rows) == expected


@pytest.mark.parametrize(("file", "n"), written_and_real(ROWS, (38,), (2154,)))
def test_every_answer_is_right_when_compared_with_itself_and_wrong_beside_another_one(file, n):
    rows = rows_of(file)
    types = QuestionTypes.infer([row["question"] for row in rows], [row["answer"] for row in rows])
    assert len(rows) == n
    for row in rows:
        kind = types[row["question"]].name
        assert is_right(row["answer"], row["answer"], kind)
        assert not is_right("something else", row["answer"], kind)


@pytest.mark.parametrize("file", written_and_real(ROWS))
def test_every_answer_is_one_of_its_question_s_choices(file):
    rows = rows_of(file)
    types = QuestionTypes.infer([row["question"] for row in rows], [row["answer"] for row in rows])
    for row in rows:
        kind = types[row["question"]]
        parts = [part.strip() for part in row["answer"].split(";")]
        assert len(parts) == 1 or kind.several
        for part in parts:
            assert any(is_right(part, choice, kind.name) for choice in kind.choices) or (kind.units and part.isdigit())


@pytest.mark.parametrize(
    ("file", "yes_no", "sizes", "choices"),
    written_and_real(
        ROWS,
        ("6", "6", "<5mm, 5-10mm, >20mm, none"),
        ("462", "172", "<5mm, 5-10mm, 11-20mm, >20mm, none …; …"),
    ),
)
def test_the_command_prints_the_types_of_the_rows(file, yes_no, sizes, choices, capsys):
    main([str(file)])
    out = capsys.readouterr().out
    assert [line.split() for line in out.splitlines() if line.startswith("yes_no")] == [["yes_no", yes_no]]
    [line] = [line for line in out.splitlines() if line.endswith(choices)]
    assert line.split()[:2] == [sizes, "size_numeric"]


def test_the_command_says_what_is_wrong_with_a_file(tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text('{"question": "A?"}\n')
    with pytest.raises(SystemExit):
        main([str(tmp_path / "rows.jsonl")])
    assert "rows.jsonl: KeyError: 'answer'" in capsys.readouterr().err
