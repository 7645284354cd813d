"""Numbers as values, and the flat keys that trackers and JSON get of them: no two numbers under one key."""

import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_recipes.eval.metrics.number import Number, Scores, flat, keys_of, named

CONFUSING = ["low", "high", "n", "macro", "baseline", "first_query", "a", "a_low", "a_n", "a]", "[a]", "", "low]_low"]
GROUP_NAMES = st.sampled_from(CONFUSING) | st.text(st.sampled_from("a_lown[]"), max_size=6)


def test_a_number_says_what_is_known_of_it():
    known = Number(0.5, 40, 0.25, 0.75, baseline=0.1, free=Number(0.4, 40))
    assert str(known) == "0.500, n = 40, 95% interval 0.250 to 0.750, baseline 0.100, free 0.400 (n = 40)"
    assert str(Number(None, 0)) == "n = 0"


def test_the_flat_form_has_the_keys_that_it_always_had_and_says_of_how_many_rows_free_answers_are():
    color = Number(0.4, 10, 0.2, 0.6, baseline=0.3, free=Number(0.2, 10), gain=Number(0.2, 10, 0.1, 0.3))
    accuracy = Number(0.8, 50, 0.7, 0.9, 0.5, 0.65, Number(0.77, 50, 0.6, 0.9), Number(0.03, 50, -0.01, 0.07))
    macro = Number(0.65, 50, baseline=0.425, free=Number(0.6, 50))
    accuracy = replace(accuracy, macro=macro, groups={"color": color, "open": Number(None, 0)})
    scores = Scores(50, {"accuracy": accuracy, "jaccard": Number(0.7, 10, partial=True), "f1": Number(None, 0)})
    assert flat(scores) == {
        "n": 50,
        **{"accuracy": 0.8, "accuracy_low": 0.7, "accuracy_high": 0.9, "baseline_accuracy": 0.5},
        **{"question_baseline_accuracy": 0.65, "free_accuracy": 0.77, "free_accuracy_low": 0.6},
        **{"free_accuracy_high": 0.9, "free_accuracy_n": 50, "constrained_gain": 0.03, "constrained_gain_low": -0.01},
        **{
            "constrained_gain_high": 0.07,
            "constrained_gain_n": 50,
            "free_accuracy_macro_n": 50,
            "accuracy_macro": 0.65,
            "baseline_accuracy_macro": 0.425,
        },
        **{"free_accuracy_macro": 0.6, "accuracy_color": 0.4, "accuracy_color_low": 0.2, "accuracy_color_high": 0.6},
        **{"accuracy_color_n": 10, "baseline_accuracy_color": 0.3, "free_accuracy_color": 0.2},
        **{"free_accuracy_color_n": 10, "constrained_gain_color": 0.2, "constrained_gain_color_n": 10},
        **{"constrained_gain_color_low": 0.1, "constrained_gain_color_high": 0.3, "accuracy_open_n": 0},
        **{"jaccard": 0.7, "jaccard_n": 10},
    }
    assert flat(Scores()) == {"n": 0}


def test_a_group_called_like_a_part_of_a_number_stands_in_brackets():
    groups = {"low": Number(0.1, 4), "first_query": Number(0.2, 5), "place": Number(0.3, 6)}
    scores = {"giou": Number(0.5, 15, 0.4, 0.6, groups=groups), "giou_first_query": Number(0.7, 9, partial=True)}
    keys = flat(Scores(15, scores))
    assert keys["giou_low"] == 0.4 and keys["giou[low]"] == 0.1 and keys["giou[low]_n"] == 4
    assert keys["giou_first_query"] == 0.7 and keys["giou[first_query]"] == 0.2 and keys["giou_place"] == 0.3
    unknown = {name: replace(number, value=None, low=None, high=None) for name, number in scores.items()}
    again = flat(Scores(15, unknown))
    assert again["giou[low]"] == 0.1 and again["giou[first_query]"] == 0.2 and again["giou_place"] == 0.3


@settings(max_examples=300, deadline=None)
@given(st.lists(GROUP_NAMES, unique=True, max_size=8), st.booleans(), st.sampled_from(["giou", None]))
def test_whatever_groups_are_called_every_number_has_keys_of_its_own(names, with_macro, brief):
    """Each number has a value of its own, so that two under one key would be one too few."""
    values = iter(range(10_000))

    def number(**more) -> Number:
        free, gain = (Number(next(values), next(values), next(values), next(values)) for _ in range(2))
        return Number(*(next(values) for _ in range(6)), free, gain, partial=True, **more)

    giou = number(groups={name: number() for name in names}, macro=number() if with_macro else None)
    scores = Scores(
        next(values), {"giou": giou, "giou_first_query": replace(number(), gain=None), "giou_a": Number(None, 0)}
    )
    found = flat(scores, brief_but_for=brief)
    assert len(set(found.values())) == len(found) and found["n"] == scores.n
    for name in names:
        [own] = [key for key, other in named(scores).items() if other is giou.groups[name]]
        assert own in (f"giou_{name}", f"giou[{name}]")
        keys = keys_of(own)
        wanted = keys if brief is None else {field: keys[field] for field in ("value", "low", "high", "n", "baseline")}
        assert {field: found[key] for field, key in wanted.items()} == {
            field: getattr(giou.groups[name], field) for field in wanted
        }
    assert json.loads(json.dumps(found)) == found
