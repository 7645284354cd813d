"""Whatever data calls its groups, each number reaches results.json, the log's keys and the report where it belongs."""

import json
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.eval.report.test_report import Page
from vlm_recipes.eval import evaluation as answering
from vlm_recipes.eval.closed_set import closed_set_evaluation
from vlm_recipes.eval.keywords import keyword_evaluation
from vlm_recipes.eval.masks import mask_evaluation
from vlm_recipes.eval.metrics.baselines import ConstantMask, majority_answers
from vlm_recipes.eval.metrics.masks import encode
from vlm_recipes.eval.metrics.statistics import bootstrap_interval
from vlm_recipes.training.record import RunRecord

CONFUSING = ["low", "high", "n", "first_query", "baseline", "macro", "overall", "unmapped", "low_n", "free"]
NAMES = st.sampled_from(CONFUSING) | st.text("abc _[]", min_size=1, max_size=6).filter(
    lambda text: text == text.strip()
)
FULL, HALF = (encode(np.arange(16).reshape(4, 4) < cells) for cells in (16, 8))


def mask_world(names: tuple[str, ...]):
    made = mask_evaluation(None, 9, ConstantMask(np.ones((2, 2), dtype=bool)), names)
    right, wrong = ({"text": "[SEG]", "masks": [mask]} for mask in (FULL, HALF))
    return made, {"answer": "[SEG]", "masks": [FULL], "ignore": None}, right, wrong, 0.5


def closed_set_world(names: tuple[str, ...]):
    majority = majority_answers(["cut"])
    return (
        closed_set_evaluation(None, 9, ["cut", "hook"], print, majority, names),
        {"answer": "cut"},
        "cut",
        "hook",
        0.0,
    )


def keyword_world(names: tuple[str, ...]):
    made = keyword_evaluation(None, 9, majority_answers(["yes"]), names)
    return made, {"answer": "Yes.", "short_answer": "yes"}, "Yes.", "No.", 0.0


@pytest.mark.parametrize("world", [mask_world, closed_set_world, keyword_world])
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(names=st.lists(NAMES, unique=True, min_size=2, max_size=8))
@example(names=CONFUSING)
def test_every_group_s_number_is_its_own_rows_mean_in_results_and_report(world, names, tmp_path, monkeypatch):
    evaluation, columns, right, wrong, wrong_score = world(tuple(names))
    rows, answers, scores = [], {}, {}
    drawn = random.Random(0)
    for number, name in enumerate(names):  # so many rows of each that n tells them apart
        for i in range(number + 2):
            row = {
                "id": f"{number} {i}",
                "image_id": f"{drawn.randrange(6)}",
                "question": "?",
                "kind": name,
                **columns,
            }
            rows.append(row | {"hops": name, "first": i == 0})
            is_right = drawn.random() < (number + 1) / (len(names) + 1)
            answers[row["id"]] = right if is_right else wrong
            scores.setdefault(name, []).append(1.0 if is_right else wrong_score)
    monkeypatch.setattr(answering, "generate", lambda model, rows, *_, **__: [answers[row["id"]] for row in rows])
    record = RunRecord(str(tmp_path), "A run", evaluation, {})
    record.conclude(None, {"test": rows}, [])

    found, headline = json.loads((tmp_path / "results.json").read_text())["test"], evaluation.headline
    of_all = [score for name in names for score in scores[name]]
    assert (found["n"], found[headline]) == (len(rows), pytest.approx(np.mean(of_all)))
    interval = bootstrap_interval(of_all, [row["image_id"] for row in rows])
    assert (found[f"{headline}_low"], found[f"{headline}_high"]) == pytest.approx(interval)
    if world is mask_world:
        firsts = [scores[name][0] for name in names]
        assert found["giou_first_query"] == pytest.approx(np.mean(firsts))
        assert found["giou_first_query_n"] == len(names) and found["baseline_giou"] == 1
    page = Page(tmp_path / "report.html")
    for name in names:
        in_brackets = f"{headline}[{name}]"
        key = in_brackets if f"{in_brackets}_n" in found else f"{headline}_{name}"
        assert (found[key], found[f"{key}_n"]) == (pytest.approx(np.mean(scores[name])), len(scores[name]))
        assert page.numbers(name)[0][:2] == [found[f"{key}_n"], found[key]]
    totals = page.numbers("overall")[-1][:2]
    assert totals == [len(rows), found[headline]]
