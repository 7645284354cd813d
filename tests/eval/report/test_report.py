import base64
import io
import math
import os
import re
import shutil
import subprocess
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlm_recipes.eval.metrics.confusion import confusion
from vlm_recipes.eval.metrics.number import Number, Scores
from vlm_recipes.eval.report.check import Check
from vlm_recipes.eval.report.gallery import GalleryItem
from vlm_recipes.eval.report.page import TEXT_LIMIT, picture_address, short
from vlm_recipes.eval.report.plotting import HEIGHT, WIDTH
from vlm_recipes.eval.report.report import write_report
from vlm_recipes.eval.report.result_figures import groups_figure
from vlm_recipes.eval.report.tables import Published, group_table
from vlm_recipes.eval.report.training_figures import curve, loss_figure, metric_figure

NAN, INF = float("nan"), float("inf")
HOSTILE = "<script>document.title='owned'</script>\"><img src=x onerror=\"document.title='owned'\">{{ 7 * 7 }}"
RESULTS = {
    "validation": Scores(64, {"iou_mean": Number(0.75, 64)}),
    "test": Scores(
        1234,
        {
            "accuracy_50": Number(0.91, 1234),
            "iou_mean": Number(0.8132469, 1234, 0.7791, 0.8441, 0.3312),
            "closed_accuracy": Number(0.5, 272, partial=True),
        },
    ),
}


def scores(**numbers: Number) -> Scores:
    return Scores(max(number.n for number in numbers.values()), numbers)


class Page(HTMLParser):
    """What a browser would read: tags, addresses it would load, text, and the cells of every table row."""

    def __init__(self, path: Path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags, self.addresses, self.text, self.rows, self.in_cell = [], [], "", [], False
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.addresses += [value for name, value in attributes if name in ("src", "srcset", "href", "data", "action")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True
        if tag == "data" and self.in_cell:
            self.rows[-1].append(float(dict(attributes)["value"]))

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        self.text += data
        if self.in_cell and isinstance(self.rows[-1][-1], str):
            self.rows[-1][-1] += data.strip()

    def numbers(self, name: str) -> list[list[float]]:
        """The numbers in each table row that begins with a name."""
        return [[cell for cell in row if isinstance(cell, float)] for row in self.rows if row and row[0] == name]


def report(tmp_path: Path, **inputs) -> Page:
    inputs = {"title": "A run", "headline": "iou_mean", "log_history": [], "results": {}} | inputs
    return Page(write_report(tmp_path, **inputs))


def item(name: str, score: float | None, text: str = "a table", size: int = 40) -> GalleryItem:
    return GalleryItem(name, [Image.new("RGB", (size, size), "navy")], f"where is {text}?", text, text, score)


def training_log(steps: int = 60) -> list[dict]:
    log = []
    for step in range(1, steps + 1):
        norms = {
            "grad_norm": 2.0,
            "grad_norm/vision tower": 1.0,
            "grad_norm/lora_A": 0.0,
            "grad_norm/clipped_share": 0.5,
        }
        log.append({"step": step, "epoch": step / 20, "loss": 3 / step, "learning_rate": 1e-4, **norms})
        if step % 20 == 0:
            interval = {"eval_iou_mean_low": 0.1, "eval_iou_mean_high": step / 60}
            log.append({"step": step, "eval_loss": 2 / step, "eval_iou_mean": step / 80, "eval_n": 9, **interval})
    return log


PUBLISHED = Published(["iou_mean", "f1"], [("Model $x_{$", {"iou_mean": 0.864}, "n = 50")], "a paper")


def test_numbers_in_the_table_equal_the_inputs(tmp_path):
    page = report(tmp_path, results=RESULTS)
    difference = 0.8132469 - 0.3312
    expected = [[0.8132469, 0.7791, 0.8441, 1234, 0.3312, difference], [0.75, 64]]
    assert page.numbers("iou_mean") == expected
    assert page.numbers("accuracy_50") == [[0.91, 1234]]
    assert page.numbers("closed_accuracy") == [[0.5, 272]]
    names = [row[0] for row in page.rows]
    assert names == ["metric", "iou_mean", "accuracy_50", "closed_accuracy", "metric", "iou_mean"]
    assert "0.813" in page.text and "1,234" in page.text and "+0.482" in page.text


def test_before_the_test_the_headline_is_the_last_evaluation_in_training(tmp_path):
    page = report(tmp_path, log_history=training_log(), watched=scores(iou_mean=Number(0.75, 9, 0.1, 1.0)))
    assert "iou_mean on the validation split" in page.text
    assert "0.750" in page.text and "0.100 to 1.000" in page.text and "n = 9" in page.text


def test_a_run_in_progress_reloads_its_page_and_a_finished_one_does_not(tmp_path):
    def reloads(page: Page) -> bool:
        return any(attributes.get("http-equiv") == "refresh" for _, attributes in page.tags)

    assert reloads(report(tmp_path)) and reloads(report(tmp_path, run={"device": "cpu"}))
    assert not reloads(report(tmp_path, run={"finished": True}))


def test_hostile_text_anywhere_is_escaped(tmp_path):
    page = report(
        tmp_path,
        title=HOSTILE,
        headline=HOSTILE,
        results={HOSTILE: scores(**{HOSTILE: Number(0.5, 1)})},
        log_history=[{"step": 1, f"eval_{HOSTILE}": 0.5, f"grad_norm/{HOSTILE}": 1.0}],
        gallery=[item(HOSTILE, 1.0, HOSTILE), item("other", 0.0, HOSTILE)],
        published=Published([HOSTILE], [(HOSTILE, {HOSTILE: 1.0}, HOSTILE)], HOSTILE),
        run={HOSTILE: {HOSTILE: HOSTILE}, "arguments": {"prompt": HOSTILE, "list": [HOSTILE]}},
        rejected=[{"id": HOSTILE, "reason": HOSTILE}],
    )
    assert "script" not in {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "{{ 7 * 7 }}" in page.text
    assert page.text.count("<script>") >= 15


def test_bidirectional_and_control_characters_are_spelled_out_and_long_text_is_cut(tmp_path):
    hidden = item("a\u202eb", 1.0, "\u2066x\x00y\ud800z")
    page = report(tmp_path, gallery=[hidden, item("long", 0.0, "w" * 100_000)])
    assert "a\\u202eb" in page.text and "\\u2066x\\u0000y\\ud800z" in page.text
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00]", page.source)
    assert "w" * TEXT_LIMIT + "… (99,200 more characters)" in page.text
    assert "w" * (TEXT_LIMIT + 1) not in page.text


def test_the_page_needs_nothing_but_itself(tmp_path):
    inputs = {"log_history": training_log(), "results": RESULTS, "published": PUBLISHED, "gallery": [item("a", 1.0)]}
    page = report(tmp_path, **inputs)
    assert len(page.addresses) == 5  # an empty icon, three figures, one image
    assert all(address.startswith("data:") for address in page.addresses)
    assert "http://" not in page.source and "https://" not in page.source and "url(" not in page.source
    policies = [meta["content"] for _, meta in page.tags if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    figures = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert figures == ["gradient_norms.png", "loss.png", "metric.png"]
    assert sorted(os.listdir(tmp_path)) == ["figures", "report.html"]  # no temporary file is left


def test_figures_of_an_earlier_run_do_not_stay(tmp_path):
    report(tmp_path, log_history=training_log())
    report(tmp_path)
    assert list((tmp_path / "figures").iterdir()) == []


@pytest.mark.parametrize("log_history", [[], [{}], [{"loss": 1.0}], [{"step": 1, "loss": 1.0}], training_log(1)])
def test_a_run_that_has_just_begun_has_a_report(tmp_path, log_history):
    page = report(tmp_path, log_history=log_history)
    assert "Nothing evaluated yet." in page.text


def test_nan_infinite_missing_and_unreadable_values_do_not_stop_the_report(tmp_path):
    log = [
        {"step": 1, "epoch": NAN, "loss": NAN, "grad_norm": INF, "grad_norm/a": NAN, "learning_rate": None},
        {"step": 2, "loss": 1e300, "grad_norm": 1.0, "eval_loss": INF, "grad_norm/clipped_share": NAN},
        {"step": 2, "eval_iou_mean": 0.5, "eval_iou_mean_low": NAN, "eval_iou_mean_high": 0.6},
        {"step": 3, "eval_iou_mean": NAN, "loss": "text", "learning_rate": 0.0},
        {"step": NAN, "loss": 1.0},
    ]
    results = {"validation": scores(iou_mean=Number(NAN, NAN, INF), none=Number(None, 0)), "test": Scores()}
    published = Published(["iou_mean"], [("a", {"iou_mean": NAN}, ""), ("b", {}, "")], "")
    gallery = [item("a", NAN), item("b", None), GalleryItem("c", [], "", "", "", INF)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = report(
            tmp_path, log_history=log, results=results, published=published, gallery=gallery, rejected=[{}], run={}
        )
    assert [row[0] for row in page.rows][:2] == ["metric", "iou_mean"]
    assert all(math.isnan(number) or math.isinf(number) for number in page.numbers("iou_mean")[0])


def test_a_curve_is_in_order_with_the_last_value_of_each_step():
    log = [{"step": 3, "loss": 3.0}, {"step": 1, "loss": INF}, {"step": 3, "loss": 4.0}, {"step": 2}, {"loss": 9.0}]
    steps, values = curve(log, "loss")
    assert steps.tolist() == [1, 3]
    assert math.isnan(values[0]) and values[1] == 4.0


def log_with_parts(steps: int = 30, smallest: float = 0.2) -> list[dict]:
    parts = {"loss_ce": smallest, "loss_bce": 0.5, "loss_dice": 1.0}
    return [{"step": step, "loss": 2.0, "learning_rate": 1e-4, **parts} for step in range(1, steps + 1)]


def labels(panel) -> list[str]:
    return [text.get_text() for text in panel.get_legend().get_texts()]


def test_parts_of_the_loss_have_a_panel_between_the_total_and_the_learning_rate():
    total, parts, rate = loss_figure(log_with_parts()).axes
    assert labels(total) == ["train"] and labels(parts) == ["ce", "bce", "dice"]
    assert [line.get_ydata()[0] for line in parts.lines] == [0.2, 0.5, 1.0]
    assert len({line.get_color() for line in [*total.lines, *parts.lines]}) == 4
    assert parts.get_yscale() == "linear" and rate.get_ylabel() == "learning rate"
    assert loss_figure(log_with_parts(smallest=0.001)).axes[1].get_yscale() == "log"


def test_a_log_without_parts_has_the_panels_and_the_size_it_always_had():
    figure = loss_figure(training_log())
    assert [panel.get_ylabel() for panel in figure.axes] == ["loss", "learning rate"]
    assert figure.get_size_inches().tolist() == [WIDTH, HEIGHT]


def test_one_value_near_zero_does_not_flatten_the_other_parts():
    log = log_with_parts(300)
    log[200]["loss_ce"] = 1e-12
    assert loss_figure(log).axes[1].get_ylim()[0] > 0.1


def test_in_a_long_log_a_loss_that_is_not_finite_is_counted_once_and_leaves_a_gap_in_the_mean():
    log = log_with_parts(200)
    log[100]["loss"] = log[100]["loss_ce"] = NAN
    total, parts, _ = loss_figure(log).axes
    assert labels(total) == ["1 not finite", "train (mean of 10 logs)"]
    assert labels(parts) == ["1 not finite", "ce", "bce", "dice"]
    [mean] = [line for line in total.lines if line.get_label().startswith("train")]
    assert np.isnan(mean.get_ydata()).sum() == 10
    assert np.nanmax(mean.get_ydata()) == pytest.approx(2) == np.nanmin(mean.get_ydata())


@pytest.mark.parametrize("odd", [NAN, INF, None, "text", 0.0, -1.0, 1e300])
def test_parts_may_be_missing_or_not_finite(tmp_path, odd):
    def draws_the_loss(log: list[dict]) -> bool:
        report(tmp_path, log_history=log)
        return (tmp_path / "figures" / "loss.png").is_file()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for log in (log_with_parts(1), log_with_parts(200)):
            assert draws_the_loss([*log, {"step": 1, "loss_ce": odd}, {"step": 2, "loss_other": odd}])
            assert draws_the_loss([entry | {"loss_ce": odd, "loss_dice": odd} for entry in log])
            names = log[0].keys() - {"step"}
            draws_the_loss([{"step": entry["step"], **dict.fromkeys(names, odd)} for entry in log])


def test_metrics_beside_the_headline_share_its_panel_in_another_colour_and_only_it_has_a_band():
    log = [{"step": step, "eval_loss": 1.0, "eval_giou": 0.6, "eval_ciou": 0.5} for step in (10, 20, 30)]
    log = [
        entry | {f"eval_{name}_{end}": 0.5 for name in ("giou", "ciou") for end in ("low", "high")} for entry in log
    ]
    panel, loss = metric_figure(log, "giou", 0.2, ["ciou", "absent", "giou"]).axes
    assert labels(panel) == ["giou", "ciou", "95% interval", "trivial baseline"]
    assert [line.get_ydata()[0] for line in panel.lines] == [0.6, 0.5, 0.2]
    assert len({line.get_color() for line in panel.lines} | {loss.lines[0].get_color()}) == 4
    assert len(panel.collections) == 1 and panel.get_ylabel() == "giou, ciou"
    assert panel.get_title() == "Validation giou: highest 0.600 at step 10"
    alone, _ = metric_figure(log, "giou", None).axes
    assert labels(alone) == ["giou", "95% interval"] and alone.get_ylabel() == "giou"


def test_the_page_names_the_metrics_drawn_beside_the_headline(tmp_path):
    log = [{"step": 1, "eval_iou_mean": 0.5, f"eval_{HOSTILE}": 0.4, "eval_ciou": -0.5}]
    page = report(tmp_path, log_history=log, also=("ciou", HOSTILE))
    [text] = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert text.startswith("iou_mean, ciou, <script>") and "script" not in {tag for tag, _ in page.tags}


def test_a_row_whose_answer_is_no_text_shows_its_question_and_prediction_and_no_empty_answer(tmp_path):
    picture = Image.new("RGB", (40, 40))
    rows = [GalleryItem(name, [picture], "what holds water?", "", "Sure, [SEG].", 0.7311) for name in ("a", "b")]
    page = report(tmp_path, gallery=rows)
    assert page.text.count("what holds water?") == 2 == page.text.count("Sure, [SEG].")
    assert page.text.count("0.731") == 2 and "answer" not in page.text
    assert "answer" in report(tmp_path, gallery=[*rows, item("c", 0.1)]).text


def test_published_numbers_stand_beside_the_test_result_with_its_n_and_baseline(tmp_path):
    page = report(tmp_path, results=RESULTS, published=PUBLISHED)
    assert page.numbers("This run") == [[0.8132469]]
    assert page.numbers("Trivial baseline") == [[0.3312]]
    assert page.numbers("Model $x_{$") == [[0.864]]
    assert "n = 1,234" in page.text and "papers or other runs (a paper)" in page.text


@pytest.mark.parametrize(("several", "shown"), [(True, 0.5), (False, 0.7)])
def test_numbers_of_first_queries_stand_beside_a_run_s_first_queries_or_where_there_are_no_others_all(
    several, shown, tmp_path
):
    published = Published(["giou_first_query"], [("LISA", {"giou_first_query": 0.473}, "")], "a paper")
    numbers = {"giou": Number(0.7, 20)} | ({"giou_first_query": Number(0.5, 9)} if several else {})
    page = report(tmp_path, headline="giou", results={"test": Scores(20, numbers)}, published=published)
    assert page.numbers("This run") == [[shown]] and page.numbers("LISA") == [[0.473]]


@pytest.mark.parametrize(("value", "shown"), [(0.1 - 0.3 + 0.2, "0.000"), (-0.0, "0.000"), (2e-5, "2.00e-05")])
def test_what_floats_leave_of_a_difference_that_is_none_is_none(value, shown):
    assert short(value) == shown


def test_before_the_test_published_numbers_stand_alone(tmp_path):
    page = report(tmp_path, results={"validation": RESULTS["validation"]}, published=PUBLISHED)
    assert page.numbers("This run") == [] and page.numbers("Model $x_{$") == [[0.864]]
    assert "test result is not there yet" in page.text


GROUPS = ("yes_no", "color", "open_ended")
PLAIN = ("value", "n", "low", "high", "baseline")
YES_NO = Number(0.9, 40, 0.81, 0.97, 0.55, 0.72, Number(0.91, 40), Number(-0.01, 40))
COLOR = Number(0.4, 10, 0.2, 0.6, 0.3, 0.35, Number(0.2, 10), Number(0.2, 10, 0.1, 0.3))
BY_GROUP = scores(
    accuracy=Number(
        *(0.8, 50, 0.7, 0.9, 0.5, 0.65, Number(0.77, 50, 0.6, 0.9), Number(0.03, 50, -0.01, 0.07)),
        macro=Number(0.65, 50, baseline=0.425),
        groups={"yes_no": YES_NO, "color": COLOR, "open_ended": Number(None, 0)},
    ),
    jaccard=Number(0.7, 10, partial=True),
)


def test_numbers_by_group_stand_in_one_table_and_not_among_the_results(tmp_path):
    page = report(tmp_path, headline="accuracy", results={"test": BY_GROUP}, groups=GROUPS)
    assert page.numbers("yes_no") == [[40, 0.9, 0.81, 0.97, 0.55, 0.72, 0.91, 40, -0.01]]
    assert page.numbers("color") == [[10, 0.4, 0.2, 0.6, 0.3, 0.35, 0.2, 10, 0.2, 0.1, 0.3]]
    assert page.numbers("open_ended") == [[0]]
    assert page.numbers("macro") == [[50, 0.65, 0.425]]
    assert page.numbers("overall") == [[50, 0.8, 0.7, 0.9, 0.5, 0.65, 0.77, 50, 0.03, -0.01, 0.07]]
    names = [row[0] for row in page.rows]
    assert names == ["group", *GROUPS, "macro", "overall", "metric", "accuracy", "jaccard"]
    assert "per-question baseline0.650 (this run +0.150)" in page.text.replace("\n", "")  # beside the headline


def test_columns_that_nothing_is_known_of_are_left_out(tmp_path):
    plain = {name: Number(*(getattr(n, key) for key in PLAIN)) for name, n in BY_GROUP["accuracy"].groups.items()}
    values = scores(accuracy=Number(0.8, 50, 0.7, 0.9, 0.5, groups=plain))
    page = report(tmp_path, headline="accuracy", results={"validation": values}, groups=GROUPS)
    assert page.rows[0] == ["group", "n", "accuracy", "95% interval", "trivial baseline"]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["groups.png"]
    assert "question" not in page.text.split("Macro")[0].replace(
        "per-question baseline: always the question's own", ""
    )


def test_the_bars_are_the_numbers_and_a_group_without_rows_has_none():
    rows = group_table(BY_GROUP, "accuracy", GROUPS)
    [panel] = groups_figure(rows, "accuracy").axes
    assert [bar.get_width() for bar in panel.patches] == pytest.approx([0.9, 0.4, NAN, 0.65, 0.8], nan_ok=True)
    assert [label.get_text() for label in panel.get_yticklabels()] == [
        *("yes_no\nn = 40", "color\nn = 10", "open_ended\nn = 0", "macro\nn = 50", "overall\nn = 50")
    ]
    assert [text.get_text() for text in panel.texts] == ["0.900", "0.400", "–", "0.650", "0.800"]
    assert panel.get_xlim() == (0, 1)
    alone = scores(accuracy=Number(0.5, 3, groups={"a": Number(None, 3)}))
    assert groups_figure(group_table(alone, "accuracy", ["a"])[:1], "m") is None


def test_while_it_trains_the_groups_are_those_of_the_last_evaluation(tmp_path):
    page = report(tmp_path, headline="accuracy", watched=BY_GROUP, groups=GROUPS)
    assert "By group on the validation split" in page.text
    assert page.numbers("yes_no")[0][:2] == [40, 0.9]
    assert (tmp_path / "figures" / "groups.png").is_file()


@pytest.mark.parametrize("odd", [NAN, INF, -INF, None, 1e300])
def test_numbers_by_group_may_be_missing_or_not_finite(tmp_path, odd):
    nothing = Number(odd, 0, odd, odd, odd, odd, Number(odd, 0), Number(odd, 0, odd, odd))
    total = replace(nothing, macro=nothing, groups=dict.fromkeys(GROUPS, nothing))
    some = replace(total, groups=dict.fromkeys(GROUPS, nothing) | {"color": replace(nothing, value=0.5)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for results in (
            {"test": scores(accuracy=some, jaccard=nothing)},
            {"test": scores(accuracy=total, jaccard=nothing)},
            {"test": scores(accuracy=Number(None, 0))},
            {"test": Scores()},
        ):
            page = report(tmp_path, headline="accuracy", results=results, groups=GROUPS)
            assert "0 of" not in page.text
    assert page.rows == []


def test_a_run_without_groups_shows_nothing_of_them(tmp_path):
    page = report(tmp_path, headline="accuracy", results={"test": BY_GROUP}, gallery=[item("a", 1.0), item("b", 0.0)])
    assert "By group" not in page.text and "Confusions" not in page.text and "Failures" not in page.text
    assert page.numbers("accuracy_yes_no") == [[0.9, 0.81, 0.97, 40, 0.55, pytest.approx(0.35)]]
    assert "Best rows 1 of 2" in page.text and "Worst rows 1 of 2" in page.text


def test_a_confusion_table_counts_by_true_and_predicted_class(tmp_path):
    tables = {"color": confusion(list("aaabbc"), list("aabbbc"), max_labels=2), "yes_no": confusion(["no"], [""])}
    page = report(tmp_path, confusions=tables, answered_split="test")
    headers = [row for row in page.rows if row[0].startswith("true")]
    assert [header[1:] for header in headers] == [["a", "b", "other", "n"], ["no", "other", "n"]]
    assert page.numbers("a") == [[2, 1, 0, 3]] and page.numbers("b") == [[0, 2, 0, 2]] and page.numbers("c") == []
    assert page.numbers("no") == [[0, 1, 1]]
    assert "test split, rows are the true answers" in page.text
    assert (
        "color 4 of 5 on the diagonal; the 2 most frequent of 3 classes" in page.text
        and "yes_no 0 of 1 on the diagonal" in page.text
    )
    shares = [attributes["style"] for tag, attributes in page.tags if tag == "td" and "style" in attributes]
    assert shares[:3] == ["--share:66.67%", "--share:33.33%", "--share:0.00%"]


def test_a_confusion_table_of_boxes_has_a_column_of_missed_and_a_row_of_invented_ones(tmp_path):
    table = confusion(["cat"] * 3 + ["dog", None, None], ["cat", "dog", None, "dog", "cat", "banana"])
    page = report(tmp_path, confusions={"boxes": table}, answered_split="test")
    [header] = [row for row in page.rows if row[0].startswith("true")]
    assert header[1:] == ["cat", "dog", "other", "missed", "n"]
    assert [page.numbers(name) for name in ("cat", "dog", "invented")] == [
        [[1, 1, 0, 1, 3]],
        [[0, 1, 0, 0, 1]],
        [[1, 0, 1, 0, 2]],
    ]
    assert "boxes 2 of 4 on the diagonal" in page.text and "“missed” is a true box without a partner" in page.text
    kinds = [attributes["class"].split()[0] for tag, attributes in page.tags if tag == "td" and "style" in attributes]
    assert kinds == ["right", *["wrong"] * 3, "wrong", "right", *["wrong"] * 2, *["wrong"] * 4]
    assert "missed" not in report(tmp_path, confusions={"color": confusion(["a"], ["b"])}).text


def test_numbers_by_class_have_a_table_and_are_no_rows_of_the_results(tmp_path):
    groups = {"cat": Number(0.5, 4, 0.25, 0.75, 0.125), HOSTILE: Number(0.0, 2), "cow": Number(None, 0)}
    values = scores(
        iou_mean=Number(0.5, 9), precision_50=Number(0.375, 6, groups=groups), recall_50=Number(0.3, 8, groups=groups)
    )
    page = report(tmp_path, results={"test": values})
    assert "By class on the test split" in page.text and "script" not in {tag for tag, _ in page.tags}
    cat = [0.5, 0.25, 0.75, 4, 0.125]
    assert page.numbers("cat") == [cat * 2] and page.numbers("in all") == [[0.375, 6, 0.3, 8]]
    assert page.numbers(HOSTILE) == [[0, 2, 0, 2]] and page.numbers("cow") == [[0, 0]]
    assert page.numbers("precision_50") == [[0.375, 6]] and "precision_50_cat" not in page.text
    without = report(tmp_path, results={"test": values}, groups=["cat", HOSTILE, "cow"])
    assert "By class" not in without.text and page.numbers("precision_50") == [[0.375, 6]]


def test_hostile_groups_and_classes_are_escaped_and_cut(tmp_path):
    classes = [HOSTILE, "w" * 100_000, "\u202eevil", "\u05e9\u05dc\u05d5\u05dd", "\ud800", "a\x00"]
    groups = (HOSTILE, "\ud800\u202e", "$x_{$")
    values = scores(accuracy=Number(0.5, 3, groups=dict.fromkeys(groups, Number(0.5, 1))))
    gallery = [
        GalleryItem("id", [], "", "", "", 0.0, HOSTILE, "i"),
        GalleryItem("b", [], "", "", "", 1.0, "\u202e"),
    ]
    page = report(
        tmp_path,
        headline="accuracy",
        results={"test": values},
        gallery=gallery,
        groups=groups,
        confusions={HOSTILE: confusion(classes, classes), "\u202e": confusion(classes * 2, [HOSTILE] * 12, 1)},
        answered_split=HOSTILE,
    )
    assert "script" not in {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.text.count("<script>") >= 6 and "{{ 7 * 7 }}" in page.text
    assert "\\u202eevil" in page.text and "\u05e9\u05dc\u05d5\u05dd" in page.text
    assert not re.search("[\u202a-\u202e\ud800\x00]", page.source) and "w" * (TEXT_LIMIT + 1) not in page.source


def test_failures_show_their_group_and_only_wrong_answers(tmp_path):
    gallery = [GalleryItem(f"{score} {i}", [], "", "", "", score, "color") for i in range(20) for score in (0.0, 1.0)]
    page = report(tmp_path, gallery=gallery)
    right, failures = page.text.split("Right answers")[1].split("Failures")
    assert "6 of 20" in right and "12 of 20" in failures
    assert right.count("color") == 6 and failures.count("color") == 12
    assert "0.0 1" not in right and "1.0 1" not in failures


def test_checks_stand_first_and_those_that_passed_are_folded(tmp_path):
    checks = [
        Check("labels", "pass", "80 rows"),
        Check("images", "warn", "202 of 203"),
        Check("boxes", "skip", "none"),
    ]
    page = report(tmp_path, checks=checks)
    assert page.source.index("202 of 203") < page.source.index("<details") < page.source.index("80 rows")
    assert page.source.index("80 rows") < page.source.index('class="card headline"')
    assert "! images" in page.text and "– boxes" in page.text and "✓ 1 of 3 checks passed" in page.text
    assert "checks passed" not in report(tmp_path).text


def test_rejected_rows_are_counted_by_reason_and_the_first_twenty_shown(tmp_path):
    rejected = [{"id": f"row-{number}", "reason": "odd" if number % 3 else "third"} for number in range(30)]
    page = report(tmp_path, rejected=rejected)
    assert ["odd", "20"] in page.rows and ["third", "10"] in page.rows
    assert "row-19" in page.text and "row-20" not in page.text


def test_a_small_picture_is_shown_as_it_is_and_a_large_one_fits_480_pixels_whatever_the_mode():
    for mode in ("RGB", "L", "CMYK", "RGBA", "P", "1", "I;16"):
        for size, shown in (((1000, 500), ("image/jpeg", (480, 240))), ((160, 90), ("image/png", (160, 90)))):
            image = Image.new(mode, size)
            kind, data = picture_address(image).removeprefix("data:").split(";base64,")
            with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
                assert (kind, picture.size) == shown and picture.mode == "RGB" and image.size == size


def chromium(page: Path, profile: Path, *arguments: str) -> str:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine, so the page is not rendered")
    quiet = ["no-first-run", "disable-background-networking", "disable-component-update", "disable-sync"]
    options = [f"--{name}" for name in ("headless", "no-sandbox", "disable-gpu", "disable-quic", *quiet)]
    command = [browser, *options, f"--user-data-dir={profile}", *arguments, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_chromium_renders_the_page_and_runs_none_of_its_text(tmp_path):
    inputs = {"log_history": training_log(), "results": RESULTS, "gallery": [item(HOSTILE, 0.9, HOSTILE)]}
    inputs["checks"] = [Check(HOSTILE, "warn", HOSTILE), Check("labels", "pass", HOSTILE)]
    path = write_report(tmp_path / "run", title="A run", headline="iou_mean", run={"prompt": HOSTILE}, **inputs)
    screenshot = tmp_path / "page.png"
    dom = chromium(path, tmp_path / "profile", "--dump-dom")
    assert "<title>A run</title>" in dom and "&lt;script&gt;" in dom and "<script" not in dom
    unescaped = tmp_path / "unescaped.html"
    unescaped.write_text(f"<title>A run</title>{HOSTILE}")
    assert "<title>owned</title>" in chromium(unescaped, tmp_path / "profile", "--dump-dom")
    chromium(path, tmp_path / "profile", "--window-size=1280,1000", "--hide-scrollbars", f"--screenshot={screenshot}")
    with Image.open(screenshot) as image:
        pixels = np.asarray(image.convert("RGB").reduce(4)).astype(int)
    assert pixels.shape == (250, 320, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 200
    navy = np.abs(pixels - (0, 0, 128)).max(axis=-1) < 12
    assert navy.sum() > 500  # the gallery's image is on the first screen


@pytest.mark.parametrize("window, pictures, width", [(390, 1, 360), (1280, 3, 400)])
def test_pictures_of_any_shape_fill_the_width_of_their_cards_on_a_phone_and_on_a_desk(
    window, pictures, width, tmp_path
):
    """A navy run in the screenshot is a picture; the widths are the window's, less what is around cards."""
    images = [Image.new("RGB", shape, "navy") for shape in [(40, 30), (30, 40), (60, 40)] * 2]
    gallery = [GalleryItem(f"{i}", [image], "", "", "", 1 - i / 9) for i, image in enumerate(images)]
    path = write_report(tmp_path / "run", title="", headline="", log_history=[], results={}, gallery=gallery)
    screenshot = tmp_path / "page.png"
    chromium(
        path, tmp_path / "profile", f"--window-size={window},2000", "--hide-scrollbars", f"--screenshot={screenshot}"
    )
    with Image.open(screenshot) as image:
        navy = np.abs(np.asarray(image.convert("RGB")).astype(int) - (0, 0, 128)).max(axis=-1) < 12
    line = navy[navy.any(axis=1).argmax() + 40]
    edges = np.flatnonzero(np.diff(line.astype(int), prepend=0, append=0)).reshape(-1, 2)
    runs = [stop - start for start, stop in edges if stop - start > 40]
    assert len(runs) == pictures and min(runs) >= width


def test_chromium_runs_no_text_of_groups_and_classes(tmp_path):
    values = scores(accuracy=Number(0.5, 2, groups={HOSTILE: Number(0.5, 2)}))
    inputs = {"headline": "accuracy", "results": {"test": values}}
    tables = {HOSTILE: confusion([HOSTILE, "a"], [HOSTILE, HOSTILE])}
    path = write_report(tmp_path / "run", title="A run", log_history=[], groups=[HOSTILE], confusions=tables, **inputs)
    dom = chromium(path, tmp_path / "profile", "--dump-dom")
    assert "<title>A run</title>" in dom and dom.count("&lt;script&gt;") >= 4 and "<script" not in dom
