"""After a run a line for each group that may not be learnt, and none for one that is clear of its baseline."""

from vlm_recipes.eval.metrics.number import Number
from vlm_recipes.eval.report.check import check_learnt

KINDS = ("place", "colour", "shape", "touching", "lone", "none", "never asked")
GIOU = Number(
    *(0.6, 400, 0.5, 0.7, 0.1),
    groups={
        "place": Number(0.163, 150, 0.132, 0.196, 0.117),
        "colour": Number(0.3, 120, 0.25, 0.35, 0.19),
        "shape": Number(0.05, 60, 0.02, 0.08, 0.2),
        "touching": Number(0.3, 50, 0.2, 0.4, 0.2),
        "lone": Number(1.0, 1, baseline=0.1),
        "none": Number(None, 0),
        "not listed": Number(0.0, 9, 0.0, 0.0, 0.5),
    },
)


def test_a_group_that_is_not_clear_of_its_baseline_has_a_line_and_one_that_is_has_none():
    lines = check_learnt("giou", GIOU, KINDS, "the constant mask's")
    assert [str(line) for line in lines] == [
        "! place: 0.163 (0.132 to 0.196, n = 150), not clear of the constant mask's 0.117",
        "! shape: 0.050 (0.020 to 0.080, n = 60), not clear of the constant mask's 0.200",
        "! touching: 0.300 (0.200 to 0.400, n = 50), not clear of the constant mask's 0.200",
        "! lone: 1.000 (n = 1), not clear of the constant mask's 0.100",  # of one row nothing is known
    ]
    assert lines[0].numbers == {"value": 0.163, "n": 150, "low": 0.132, "high": 0.196, "baseline": 0.117}
    assert "high" not in lines[3].numbers


def test_without_groups_all_rows_are_judged_together_and_without_a_baseline_nothing_is():
    [line] = check_learnt("iou_mean", Number(0.3, 20, 0.2, 0.4, 0.35), (), "the constant box's")
    assert str(line) == "! iou_mean: 0.300 (0.200 to 0.400, n = 20), not clear of the constant box's 0.350"
    assert check_learnt("iou_mean", Number(0.3, 20, 0.2, 0.4, 0.1), (), "the constant box's") == []
    assert check_learnt("iou_mean", Number(0.3, 20, 0.2, 0.4), (), "nobody's") == []


def test_all_rows_are_judged_where_the_groups_leave_some_out():
    learnt = Number(0.9, 10, 0.8, 1.0, 0.2)
    number = Number(0.3, 100, 0.2, 0.4, 0.3, groups={"place": learnt})
    [line] = check_learnt("giou", number, ("place",), "the constant mask's")
    assert str(line).startswith("! giou: 0.300 (0.200 to 0.400, n = 100), not clear of")
    [line] = check_learnt("giou", Number(0.3, 100, 0.2, 0.4, 0.3, groups={"place": Number(None, 0)}), ("place",), "a")
    assert line.name == "giou"
