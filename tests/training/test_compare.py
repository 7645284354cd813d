"""`vlm-compare`: several runs of a recipe in one table; differences where the rows are the same, and only there."""

import json
import re
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import bootstrap

from recipes import kvasir_vqa, nutrition_tables, ssg_vqa, vqa_rad
from vlm_recipes.eval.metrics.baselines import ConstantBox, Majority, as_json
from vlm_recipes.training import compare

HOSTILE = "</td><script>document.title='owned'</script>|`$(id)`\x1b[31m"


def left(
    folder: Path, answers: list[str], *, recipe=vqa_rad, split: str = "test", training: dict | None = None, **run
) -> Path:
    """What a run would leave that gave these answers to twelve questions about five images."""
    folder.mkdir(exist_ok=True)
    training = {"output_dir": str(folder), "learning_rate": 1e-4} | (training or {})
    arguments = {"data": asdict(recipe.Data()), "model": asdict(recipe.Model(dtype="float32")), "training": training}
    name = recipe.__name__.split(".")[-1]
    record = {"recipe": name, "experiment": name, "arguments": arguments, "finished": True, "git_commit": "abc"}
    record |= {"groups": ["count", "exist"] if recipe is ssg_vqa else []} | run
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "baseline.json").write_text(as_json(Majority(TRUE[0], {})))
    rows = [
        {"split": split, "id": str(i), "prediction": said, "reference": TRUE[i], "image_id": f"image {i % 5}"}
        | {"question_type": "PRES", "closed": i % 2 == 0, "kind": "count" if i < 4 else "exist", "hops": "one_hop"}
        for i, said in enumerate(answers)
    ]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


TRUE = ["True", "False", "3", "True", "2", "False", "True", "red", "True", "False", "1", "True"]
FIRST = [said if i % 3 == 1 else "False" for i, said in enumerate(TRUE)]
SECOND = [said if i % 4 else "grasper" for i, said in enumerate(TRUE)]
GAINS = [float(said == true) - float(before == true) for said, before, true in zip(SECOND, FIRST, TRUE, strict=True)]


def compared(capsys, *arguments: object) -> str:
    compare.main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def cells(printed: str, split: str) -> list[dict[str, str]]:
    """The rows of a split's table as a reader of markdown sees them."""
    section = printed[printed.index(f"### {split}\n") :].split("###", 2)[1]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    heads, _, *rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [dict(zip(heads, row, strict=True)) for row in rows]


def test_the_difference_and_its_interval_are_those_of_images_drawn_anew(tmp_path, capsys):
    """Against scipy's bootstrap over images, whose statistic puts the rows of the drawn images together again."""
    a, b = left(tmp_path / "a", FIRST), left(tmp_path / "b", SECOND)
    gains = np.array(GAINS)
    of_image = [np.flatnonzero(np.arange(12) % 5 == image) for image in range(5)]

    def mean(drawn: np.ndarray) -> float:
        return gains[np.concatenate([of_image[image] for image in drawn])].mean()

    settings = {"n_resamples": 1000, "method": "percentile", "vectorized": False, "rng": np.random.default_rng(0)}
    low, high = bootstrap((np.arange(5),), mean, **settings).confidence_interval
    [first, second] = [row for row in cells(compared(capsys, a, b), "test") if row["metric"] == "token_f1"][:2]
    assert second["run"] == str(b) and second["difference"] == f"{gains.mean():+.3f}"
    assert second["difference, 95% interval"] == f"{low:.3f} to {high:.3f}"
    assert first["difference"] == "–" and first["value"] == f"{np.mean(np.equal(FIRST, TRUE)):.3f}"
    assert {row["baseline"] for row in (first, second)} == {f"{TRUE.count('True') / 12:.3f}"} and first["n"] == "12"


def test_the_same_rows_in_another_order_are_the_same_rows(tmp_path, capsys):
    a, b = left(tmp_path / "a", FIRST), left(tmp_path / "b", SECOND)
    before = cells(compared(capsys, a, b), "test")
    lines = (b / "predictions.jsonl").read_text().splitlines()
    (b / "predictions.jsonl").write_text("\n".join(lines[::-1]))
    after = cells(compared(capsys, a, b), "test")
    assert [row["difference"] for row in after] == [row["difference"] for row in before]
    assert any(row["difference"].startswith("+") for row in after)


@pytest.mark.parametrize("change", ["one more", "another reference", "another id"])
def test_where_rows_differ_no_difference_is_given_and_a_line_says_so(change, tmp_path, capsys):
    a, b = left(tmp_path / "a", FIRST), left(tmp_path / "b", SECOND[: 11 if change == "one more" else 12])
    if change != "one more":
        rows = [json.loads(line) for line in (b / "predictions.jsonl").read_text().splitlines()]
        rows[3]["reference" if "reference" in change else "id"] = "other"
        (b / "predictions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    printed = compared(capsys, a, b)
    assert f"{b} answered other rows than {a}: there is no difference to give." in printed
    assert not any("difference" in row for row in cells(printed, "test"))


def changed(folder: Path, *rows: int, **columns: object) -> Path:
    """The folder with other columns in some of its rows; None takes a column away."""
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    for i in rows or range(len(lines)):
        lines[i] = {name: value for name, value in (lines[i] | columns).items() if value is not None}
    (folder / "predictions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


SCORED_OTHERWISE = {  # rows of the second run, the columns that they have, and which make the difference
    "numbers as free text": (kvasir_vqa, [2, 4], {"question_type": "open_ended"}, "question_type"),
    "closed questions as open ones": (vqa_rad, [0], {"closed": False}, "closed"),
    "another kind": (ssg_vqa, [0], {"kind": "exist"}, "kind"),
    "both kinds": (ssg_vqa, [0], {"kind": "exist", "hops": "zero_hop"}, "hops, kind"),
}


@pytest.mark.parametrize("case", SCORED_OTHERWISE)
def test_where_rows_are_scored_otherwise_no_difference_is_given_and_a_line_names_the_column(case, tmp_path, capsys):
    recipe, rows, columns, named = SCORED_OTHERWISE[case]
    a, b = (left(tmp_path / name, said, recipe=recipe) for name, said in (("a", FIRST), ("b", SECOND)))
    if recipe is kvasir_vqa:
        a, b = (changed(folder, question_type="mcq", question="Which?") for folder in (a, b))
        a, b = (changed(folder, 2, 4, question_type="count_numeric") for folder in (a, b))
    before = compared(capsys, a, b)
    assert any("difference" in row for row in cells(before, "test")) and "scored otherwise" not in before
    printed = compared(capsys, a, changed(b, *rows, **columns))
    assert f"{b} and {a} are scored otherwise ({named}): there is no difference to give." in printed
    assert not any("difference" in row for row in cells(printed, "test"))


def test_the_image_s_name_is_no_rule_of_scoring(tmp_path, capsys):
    a, b = left(tmp_path / "a", FIRST), left(tmp_path / "b", SECOND)
    before = cells(compared(capsys, a, b), "test")
    after = compared(capsys, a, changed(b, 3, image_id="image 9"))
    assert [row.get("difference") for row in cells(after, "test")] == [row.get("difference") for row in before]
    assert "there is no difference to give" not in after


def test_another_question_makes_another_row(tmp_path, capsys):
    """Two files of one name, with as many yes and no, have the same ids and answers."""
    a, b = left(tmp_path / "a", FIRST), left(tmp_path / "b", SECOND)
    for folder in (a, b):
        changed(folder, question="Is there a mass?")
    assert "answered other rows" not in compared(capsys, a, b)
    printed = compared(capsys, a, changed(b, 3, question="Is the bird red?"))
    assert f"{b} answered other rows than {a}: there is no difference to give." in printed


def boxes(folder: Path, found: list[float], categories: list[str], **columns: object) -> Path:
    """What a run would leave that found these boxes, with names where it was trained on more categories than one."""
    folder = left(folder, FIRST, recipe=nutrition_tables)
    (folder / "baseline.json").write_text(as_json(ConstantBox([0.1, 0.1, 0.9, 0.9], categories)))
    row = {"id": "r", "prediction": "read", "reference": "said", "image_size": [100, 100], "boxes": [[10, 10, 50, 50]]}
    row |= {"predicted_boxes": [found], "image_id": "i", "split": "test"} | columns
    if len(categories) > 1:
        row |= {"categories": ["cat"], "predicted_categories": ["dog"]}
    rows = [{name: value for name, value in row.items() if value is not None} | {"id": str(i)} for i in range(3)]
    (folder / "predictions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.mark.parametrize("named", ["a", "b"])
def test_boxes_whose_names_count_in_one_run_alone_are_scored_otherwise(named, tmp_path, capsys):
    categories = {"a": ["cat"], "b": ["cat"]} | {named: ["cat", "dog"]}
    a, b = (boxes(tmp_path / name, [10, 10, 50, 30], own) for name, own in categories.items())
    expected = f"{b} and {a} are scored otherwise (categories): there is no difference to give."
    assert expected in compared(capsys, a, b)


@pytest.mark.parametrize("columns", [{"image_id": None}, {"image_id": "null"}])
def test_rows_whose_image_has_no_name_are_images_of_their_own(columns, tmp_path, capsys):
    a, b = (boxes(tmp_path / name, [10, 10, 50, y], ["cat"], **columns) for name, y in (("a", 30), ("b", 50)))
    for folder in (a, b):
        text = (folder / "predictions.jsonl").read_text()
        (folder / "predictions.jsonl").write_text(text.replace('"null"', "null"))
    first, second = [row for row in cells(compared(capsys, a, b), "test") if row["metric"] == "iou_mean"]
    assert (second["difference"], second["difference, 95% interval"]) == ("+0.500", "0.500 to 0.500")


def test_groups_have_their_own_differences_beside_the_mean_s(tmp_path, capsys):
    a, b = (left(tmp_path / name, said, recipe=ssg_vqa) for name, said in (("a", FIRST), ("b", SECOND)))
    rows = {row["metric"]: row for row in cells(compared(capsys, a, b), "test") if row["run"] == str(b)}
    for name, own in (("accuracy", GAINS), ("accuracy_count", GAINS[:4]), ("accuracy_exist", GAINS[4:])):
        assert float(rows[name]["difference"]) == pytest.approx(np.mean(own), abs=5e-4), name
    assert rows["macro_f1"]["difference"] == "–"
    names = list(rows)
    assert names[:2] == ["accuracy", "accuracy_count"] and names.index("accuracy_exist") < names.index("macro_f1")


def test_published_numbers_stand_beside_those_of_the_test_part_alone(tmp_path, capsys):
    for split, shown in (("test", True), ("validation", False)):
        printed = compared(capsys, left(tmp_path / split, FIRST, split=split))
        published = [row for row in cells(printed, split) if row["run"].endswith(" (published)")]
        assert bool(published) is shown and ("Published, not measured here: " in printed) is shown
        of_f1 = {row["run"]: row["value"] for row in published if row["metric"] == "token_f1"}
        assert of_f1.get("Med-PaLM M 562B (published)") == ("0.621" if shown else None)
        assert all(row["n"] == row["baseline"] == "–" for row in published)


def test_each_run_with_rows_of_its_own_has_a_line_beside_published_numbers(tmp_path, capsys):
    a, b = left(tmp_path / "a", FIRST), left(tmp_path / "b", SECOND)
    record = json.loads((b / "run.json").read_text())
    record["arguments"]["data"] |= {"dataset_name": "my/scans"}
    (b / "run.json").write_text(json.dumps(record))
    printed = compared(capsys, a, b)
    assert (
        f"{b} has the rows of --dataset_name my/scans, not the recipe's own." in printed and f"{a} has" not in printed
    )


def test_only_settings_that_differ_are_shown_and_the_output_folder_is_none(tmp_path, capsys):
    a = left(tmp_path / "a", FIRST)
    b = left(tmp_path / "b", FIRST, training={"learning_rate": 3e-4}, git_commit="def", samples_per_second=3.0)
    rows = {
        row["setting"]: (row[str(a)], row[str(b)]) for row in cells(compared(capsys, a, b), "Settings that differ")
    }
    assert rows == {"learning_rate": ("0.0001", "0.0003"), "git_commit": ("abc", "def")}
    assert "### Settings that differ\n\nNone." in compared(capsys, a, a)


def test_a_run_that_has_not_finished_or_not_answered_a_part_says_so(tmp_path, capsys):
    a, b = left(tmp_path / "a", FIRST), left(tmp_path / "b", FIRST, split="validation", finished=False)
    printed = compared(capsys, a, b)
    assert f"{b} (not finished) has not answered test." in printed and f"{a} has not answered validation." in printed
    assert printed.index("### test") < printed.index("### validation")


def test_what_cannot_be_compared_is_one_line_that_says_what_to_do(tmp_path):
    a, b = left(tmp_path / "a", FIRST), left(tmp_path / "b", FIRST, recipe=ssg_vqa)
    none = left(tmp_path / "none", [])
    unnamed, without = (left(tmp_path / name, FIRST) for name in ("unnamed", "without"))
    for folder, column in ((unnamed, "id"), (without, "image_id")):
        changed(folder, **{column: None})
    copied = left(tmp_path / "copied", FIRST, recipe=vqa_rad)
    (copied / "run.json").write_text((copied / "run.json").read_text().replace('"vqa_rad"', '"my_recipe"'))
    for folders, expected in (
        (
            [tmp_path / "nothing"],
            "nothing/run.json does not exist; name a folder that a recipe was given as --output_dir",
        ),
        ([a, b], "runs of vqa_rad and ssg_vqa: compare runs of one recipe"),
        ([a, none], rf"none has no answers: .* vqa_rad.py --do_train false --model_name_or_path {none} "),
        ([a, unnamed], "unnamed/predictions.jsonl, line 1: no column 'id'"),
        ([a, without], "without/predictions.jsonl, line 1, id '0': no column 'image_id'"),
        ([copied], "this run's recipe is 'my_recipe'.*--recipe FILE"),
    ):
        with pytest.raises(SystemExit, match=f"^error: .*{expected}") as ended:
            compare.main([str(folder) for folder in folders])
        assert "\n" not in ended.value.code


def test_texts_of_runs_are_escaped_on_the_page_and_break_no_table(tmp_path, capsys):
    a = left(tmp_path / "a", FIRST, recipe=ssg_vqa)
    b = left(tmp_path / "b", SECOND, recipe=ssg_vqa, training={"run": HOSTILE}, groups=["count", "exist"])
    for folder in (a, b):
        lines = (folder / "predictions.jsonl").read_text().replace('"count"', json.dumps(HOSTILE))
        (folder / "predictions.jsonl").write_text(lines)
    printed = compared(capsys, a, b, "--html", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page and page.count("&lt;script&gt;") > 4 and "\x1b" not in page + printed
    assert f"page: {tmp_path / 'page.html'}" in printed
    assert any("document.title" in row["metric"] for row in cells(printed, "test"))  # and each row has its cells
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    if browser := shutil.which("chromium"):
        command = [browser, "--headless", "--no-sandbox", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
        dom = subprocess.run([*command, (tmp_path / "page.html").as_uri()], capture_output=True, text=True).stdout
        assert "<title>SSG-VQA: 2 runs</title>" in dom
