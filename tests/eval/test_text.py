"""Free answers: `text_metrics`, beside those of the most frequent training answers."""

from vlm_recipes.eval.metrics.number import flat
from vlm_recipes.eval.metrics.text import text_metrics
from vlm_recipes.eval.text import conversation, text_evaluation, text_majority

TRAINED = text_majority(["Yes", "yes ", "no", "left lung", "left lung", "left lung"], ["exists"] * 3 + ["organ"] * 3)
ROWS = [
    {"answer": "yes", "closed": True, "question_type": "exists", "image_id": "a", "question": "Is it?"},
    {"answer": "no", "closed": True, "question_type": "exists", "image_id": "a", "question": "Is that?"},
    {"answer": "left lung", "closed": False, "question_type": "organ", "image_id": "b", "question": "Where?"},
    {"answer": "an ulcer", "closed": False, "question_type": "never trained", "image_id": "c", "question": "What?"},
]
SAID = ["yes", "yes", "the left lung", "left lung"]


def test_numbers_stand_beside_those_of_the_most_frequent_answer_in_all_and_of_each_type():
    metrics = flat(text_evaluation(None, 9, TRAINED).metric(SAID, ROWS))
    true, closed = [row["answer"] for row in ROWS], [row["closed"] for row in ROWS]
    expected = flat(text_metrics(SAID, true, closed, ["a", "a", "b", "c"]))
    assert {name: metrics[name] for name in expected} == expected
    assert metrics["baseline_exact_match"] == 1 / 4  # always "left lung"
    assert metrics["exact_match_of_majority_per_type"] == 2 / 4  # "yes" and "left lung"
    assert metrics["baseline_closed_accuracy"] == 0 and metrics["baseline_open_recall"] == 1 / 2
    compared = {name.removeprefix("baseline_") for name in metrics if name.startswith("baseline_")}
    assert compared == {name for name in expected if name != "n" and not name.endswith(("_low", "_high", "_n"))}


def test_one_row_has_its_baseline_and_without_a_majority_there_is_none():
    one = text_evaluation(None, 9, TRAINED).metric(SAID[:1], ROWS[:1])
    assert one["exact_match"].value == one["exact_match_of_majority_per_type"].value == 1
    assert one["exact_match"].baseline == 0 and one["open_f1"].value is one["open_f1"].baseline is None
    assert not [name for name in flat(text_evaluation(None, 9).metric(SAID, ROWS)) if "baseline" in name]
    assert flat(text_evaluation(None, 9, TRAINED).metric([], [])) == {"n": 0}


def test_a_row_s_score_is_its_token_f1():
    evaluation = text_evaluation(None, 9, TRAINED)
    assert evaluation.score([" YES", *SAID[1:]], ROWS) == [1, 0, 2 * 2 / 5, 0]


def test_the_row_says_what_was_asked_and_what_is_right():
    evaluation = text_evaluation(None, 9)
    assert (evaluation.reference(ROWS[2]), evaluation.question(ROWS[2])) == ("left lung", "Where?")


def test_by_type_the_headline_stands_beside_the_type_s_own_most_frequent_answer():
    evaluation = text_evaluation(None, 9, TRAINED, groups=("organ", "exists", "of no row"))
    number = evaluation.metric(SAID, ROWS)["token_f1"]
    assert {name: (own.n, own.value, own.baseline) for name, own in number.groups.items()} == {
        "organ": (1, 4 / 5, 1),
        "exists": (2, 1 / 2, 1 / 2),
    }
    plain = text_evaluation(None, 9, TRAINED)
    assert number.value == plain.metric(SAID, ROWS)["token_f1"].value and plain.group is None
    assert evaluation.group(ROWS[0]) == "exists" and evaluation.groups == ("organ", "exists", "of no row")


def test_rows_of_which_nobody_knows_whether_they_are_closed_have_the_other_numbers():
    rows = [{key: value for key, value in row.items() if key != "closed"} for row in ROWS]
    metrics, known = (text_evaluation(None, 9, TRAINED).metric(SAID, own) for own in (rows, ROWS))
    assert metrics.keys() == known.keys() - {"closed_accuracy", "open_recall", "open_f1"}
    assert all(metrics[name] == known[name] for name in metrics)


def test_a_conversation_is_told_turn_by_turn_up_to_the_answer_with_pictures_in_their_places():
    image, said = {"type": "image", "text": None}, {"type": "text", "text": "And here?"}
    turns = [("system", [{"type": "text", "text": "Be short."}]), ("user", [image, image, said])]
    turns += [("assistant", [{"type": "text", "text": "No."}]), ("user", [said, image])]
    messages = [{"role": role, "content": content} for role, content in [*turns, ("assistant", [said])]]
    assert conversation({"messages": messages}) == [
        ("system", "Be short."),
        ("user", "[picture 1]\n[picture 2]\nAnd here?"),
        ("assistant", "No."),
        ("user", "And here?\n[picture 3]"),
    ]
