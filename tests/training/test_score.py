"""`vlm-score`: a run's answers give its numbers again without its model; other people's answers give those by hand."""

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors
from sklearn.metrics import accuracy_score
from transformers import PreTrainedModel

from demo.worlds.small import SIZES, build
from recipes import ssg_vqa, vqa_rad
from tests.support.paths import ROOT
from vlm_recipes.eval.evaluation import Evaluation
from vlm_recipes.eval.generation.generate import without_images
from vlm_recipes.eval.metrics.baselines import (
    ConstantBox,
    ConstantMask,
    Majority,
    as_json,
    from_json,
    majority_answers,
)
from vlm_recipes.eval.metrics.number import flat
from vlm_recipes.training import score
from vlm_recipes.training.record import RunRecord
from vlm_recipes.training.runs import load_recipe

QUIET = "--do_train false --use_cpu true --bf16 false --dataloader_num_workers 0 --eval_rows 7 --output_dir".split()
MORE = {  # rows than in the small worlds, so that numbers have intervals
    "nutrition_tables": {"val": 8},
    "kvasir_vqa": {"images": 60},
    "reasonseg": {"val": 4, "test": 6},
    "ssg_vqa": {"frames": {"train": 24, "validation": 2, "test": 4}},
}


def some_right(evaluation: Evaluation, model: object, rows: object, constrained: bool = True, kept=None) -> list:
    """Instead of a model: the right answer, another row's, half of it, none; freely, of the next row."""
    plain = without_images(rows)
    true = [evaluation.reference(row) for row in plain]
    answers = []
    for i, answer in enumerate(true):
        kind = (i + (not constrained)) % 4
        if isinstance(answer, dict):
            answers.append(answer if kind < 2 else {"text": ["No.", answer["text"]][kind - 2], "masks": []})
        else:
            answers.append([answer, true[i - 1], answer[: len(answer) // 2], ""][kind])
    return answers


def call_every_second_table_a_label(data: Path) -> None:
    """Two categories in a folder of photographs."""
    for file in data.rglob("metadata.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows[::2]:
            row["objects"]["category_name"] = ["Label"] * len(row["objects"]["bbox"])
        file.write_text("\n".join(map(json.dumps, rows)))


@pytest.mark.parametrize("recipe", [*SIZES, "nutrition_tables of two categories"])
def test_a_run_s_own_answers_give_its_numbers_again_and_no_weights_are_read(
    recipe, tmp_path, monkeypatch, capsys, figures_are_blank
):
    recipe, _, categories = recipe.partition(" of ")
    arguments = build(recipe, tmp_path / "world", **MORE.get(recipe, {}))
    if categories:
        call_every_second_table_a_label(tmp_path / "world" / "data")
    monkeypatch.setattr(Evaluation, "answer", some_right)
    monkeypatch.setattr("sys.argv", [recipe, *arguments, *QUIET, str(tmp_path / "out")])
    runpy.run_path(str(ROOT / "recipes" / f"{recipe}.py"), run_name="__main__")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    module = load_recipe(ROOT / "recipes" / f"{recipe}.py")
    name = module.evaluation(module.Data(), None, None).headline
    if recipe in ("kvasir_vqa", "ssg_vqa"):  # which also ask freely
        assert results["test"][f"free_{name}_n"] == results["test"]["constrained_gain_n"] == 7 < results["test"]["n"]
    assert ("f1_50_Label" in results["test"]) == bool(categories)
    assert ("predicted_categories" in (tmp_path / "out" / "predictions.jsonl").read_text()) == bool(categories)
    assert ("on the diagonal" in (tmp_path / "out" / "report.html").read_text()) == (
        bool(categories) or recipe in ("kvasir_vqa", "ssg_vqa")
    )
    assert 0 < results["test"][name] < 1 and f"baseline_{name}" in results["test"] and f"{name}_low" in results["test"]

    def refuse(*arguments, **settings):
        raise AssertionError("a checkpoint was read")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", refuse)
    monkeypatch.setattr(safetensors, "safe_open", refuse)
    (tmp_path / "moved").mkdir()
    for file in ("run.json", "baseline.json", "predictions.jsonl"):
        shutil.copy(tmp_path / "out" / file, tmp_path / "moved")
    shutil.rmtree(tmp_path / "world")
    capsys.readouterr()
    score.main([str(tmp_path / "moved" / "predictions.jsonl"), "--output", str(tmp_path / "again.json")])
    assert (tmp_path / "again.json").read_text() == (tmp_path / "out" / "results.json").read_text()
    printed = capsys.readouterr().out
    assert "baseline unknown" not in printed
    table = printed[printed.index(f"### test (n = {results['test']['n']:,})") :]
    assert f" {results['test'][name]:.3f} " in next(line for line in table.splitlines() if f"| {name} " in line)


def test_answers_about_colonoscopies_give_their_numbers_again(tmp_path, monkeypatch):
    """The other format of ssg_vqa, whose groups are those of the run, one without rows among them."""
    kinds = ["colour", "tool"]
    rows = [
        {"id": str(i), "image_id": f"clip {i % 3}", "question": "What?", "kind": kinds[i % 2]}
        | {"short_answer": "red", "answer": f"It is red number {i}."}
        for i in range(7)
    ]
    monkeypatch.setattr(Evaluation, "answer", some_right)
    data, majority = ssg_vqa.Data(dataset_format="real_colon"), majority_answers(["It is red."], [kinds])
    made = ssg_vqa.evaluation(data, None, None, majority, ("none", *kinds))
    numbers, predictions = made(None, rows)
    run = {"recipe": "ssg_vqa", "arguments": {"data": {"dataset_format": "real_colon"}}}
    RunRecord(str(tmp_path), "", made, run).write([], {"test": numbers}, {"test": predictions}, {"test": rows})
    _, splits = score.score_file(tmp_path / "predictions.jsonl", ssg_vqa, data, ["none", *kinds])
    assert flat(splits["test"].scores) == flat(numbers) and 0 < numbers["keyword_accuracy"].value < 1
    score.main([str(tmp_path / "predictions.jsonl"), "--output", str(tmp_path / "again.json")])
    assert json.loads((tmp_path / "again.json").read_text()) == {"test": flat(numbers)}


@pytest.mark.parametrize(
    "blind", [None, [0.1, 0.2, 0.3, 0.4], Majority("yes", {"a|b": "no"}), Majority("", {}, {"q": "ä"})]
)
def test_what_is_said_without_looking_is_read_as_it_was_written(blind):
    assert from_json(as_json(blind)) == blind


def test_a_constant_mask_is_read_as_it_was_written():
    mask = ConstantMask(np.random.default_rng(0).random((64, 64)) > 0.5)
    again = from_json(as_json(mask))
    assert again.rle((37, 90)) == mask.rle((37, 90)) and again.rle((37, 90)) != ConstantMask(mask.mask.T).rle((37, 90))


# --- other people's answers


def lines(folder: Path, *rows: dict) -> str:
    (folder / "said.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "said.jsonl")


def scored(*arguments: object) -> None:
    score.main([str(argument) for argument in arguments])


def recipe(name: str) -> tuple[str, Path]:
    return "--recipe", ROOT / "recipes" / f"{name}.py"


YES = {"prediction": "yes", "reference": "yes", "image_id": "a", "closed": True, "question_type": "PRES"}


def test_answers_of_another_model_are_scored_and_their_baseline_is_unknown(tmp_path, capsys):
    file = lines(tmp_path, YES, {**YES, "prediction": "the left lung", "reference": "left lung", "closed": False})
    scored(file, *recipe("vqa_rad"), "--output", tmp_path / "numbers.json")
    numbers = json.loads((tmp_path / "numbers.json").read_text())["all rows"]
    assert numbers["token_f1"] == pytest.approx((1 + 2 * 2 / 5) / 2) and numbers["exact_match"] == 0.5
    assert numbers["n"] == 2 and "token_f1_low" not in numbers  # of one image
    assert not any("baseline" in name for name in numbers)
    printed = capsys.readouterr().out
    assert "baseline unknown: " in printed and "| token_f1 " in printed and "| baseline" not in printed


def test_a_baseline_that_a_run_left_beside_the_file_is_given_on_the_rows_of_the_file(tmp_path, capsys):
    answers = ["yes", "no", "no", "left"]
    file = lines(tmp_path, *({**YES, "reference": answer} for answer in answers))
    (tmp_path / "baseline.json").write_text(as_json(Majority("no", {"PRES": "left"})))
    scored(file, *recipe("vqa_rad"), "--output", tmp_path / "numbers.json")
    numbers = json.loads((tmp_path / "numbers.json").read_text())["all rows"]
    assert numbers["baseline_exact_match"] == accuracy_score(answers, ["no"] * 4)
    assert numbers["exact_match_of_majority_per_type"] == accuracy_score(answers, ["left"] * 4)
    assert "baseline unknown" not in capsys.readouterr().out


def test_boxes_are_read_from_lists_in_pixels_and_from_qwen2_vl_s_text_alike(tmp_path, capsys):
    text = "<|box_start|>(100,100),(500,500)<|box_end|>"
    file = lines(
        tmp_path,
        {"image_id": "a", "prediction": [[10, 10, 50, 50]], "reference": [[10, 10, 50, 60]]},
        {"image_id": "b", "prediction": text, "reference": "(100,100),(500,900)", "image_size": [640, 480]},
    )
    scored(file, *recipe("nutrition_tables"), "--output", tmp_path / "numbers.json")
    numbers = json.loads((tmp_path / "numbers.json").read_text())["all rows"]
    assert numbers["iou_mean"] == pytest.approx((40 / 50 + 400 / 800) / 2)
    assert numbers["detection_rate"] == 1


def test_boxes_are_matched_within_the_categories_that_the_run_s_training_rows_had(tmp_path):
    boxes, names = [[10, 10, 50, 60], [60, 10, 90, 60]], ["cat", "dog"]
    row = {"prediction": "as read", "reference": "as said", "image_size": [100, 100], "boxes": boxes}
    row |= {"categories": names, "predicted_boxes": boxes}
    right = {"image_id": "a", "predicted_categories": ["Cat", "dog"]}
    rotated = {"image_id": "b", "predicted_categories": ["dog", "cat"]}
    file, numbers = lines(tmp_path, row | right, row | rotated), {}
    for categories in (["dog", "cat"], ["animal"]):
        (tmp_path / "baseline.json").write_text(as_json(ConstantBox([0.6, 0.1, 0.9, 0.6], categories)))
        scored(file, *recipe("nutrition_tables"), "--output", tmp_path / "numbers.json")
        numbers[len(categories)] = json.loads((tmp_path / "numbers.json").read_text())["all rows"]
    assert numbers[2]["iou_mean"] == numbers[2]["f1_50"] == numbers[2]["precision_50_cat"] == 0.5
    assert numbers[2]["iou_first"] == numbers[1]["iou_mean"] == numbers[1]["f1_50"] == 1
    assert numbers[2]["baseline_recall_50_dog"] == 1 and numbers[2]["baseline_recall_50_cat"] == 0
    assert "f1_50_cat" not in numbers[1]


def test_the_groups_of_a_file_without_a_run_are_its_own_and_settings_are_the_recipe_s(tmp_path):
    row = {"image_id": "a", "reference": "It is red.", "short_answer": "red", "prediction": "red"}
    file = lines(tmp_path, row | {"kind": "colour"}, row | {"kind": "tool", "short_answer": "knife"})
    scored(file, *recipe("ssg_vqa"), "--dataset_format", "real_colon", "--output", tmp_path / "numbers.json")
    numbers = json.loads((tmp_path / "numbers.json").read_text())["all rows"]
    assert numbers["keyword_accuracy_colour"] == 1 and numbers["keyword_accuracy_tool"] == 0
    assert numbers["keyword_accuracy"] == 0.5


def test_kinds_of_conversations_are_groups_without_a_run_too(tmp_path):
    rows = [YES | {"question_type": kind, "prediction": said} for kind, said in (("what", "yes"), ("where", "no"))]
    scored(lines(tmp_path, *rows), *recipe("visual_chat"), "--output", tmp_path / "numbers.json")
    numbers = json.loads((tmp_path / "numbers.json").read_text())["all rows"]
    assert (numbers["token_f1_what"], numbers["token_f1_where"]) == (1, 0)


SCORES = "line 1: not what this recipe scores"
BOXES = {"boxes": [[1, 1, 5, 5]], "categories": ["cat"], "predicted_boxes": [[1, 1, 5, 5]], "prediction": ""}
REFUSED = {
    "a column is missing": (
        ["vqa_rad"],
        [YES, {key: YES[key] for key in ("prediction", "reference", "image_id")} | {"id": "x7"}],
        "line 2, id 'x7': no column 'closed'",
    ),
    "no reference": (["vqa_rad"], [{"prediction": "a"}], "line 1: no column 'reference'"),
    "a column of groups": (["ssg_vqa"], [YES | {"kind": "a"}], "line 1: no column 'hops'"),
    "a number for a text": (["vqa_rad"], [YES | {"prediction": 3}], f"{SCORES} (the prediction 3 is no answer"),
    "text for masks": (["reasonseg"], [YES | {"kind": "a"}], SCORES),
    "boxes without names": (["nutrition_tables"], [BOXES], "line 1: no column 'predicted_categories'"),
    "other names than boxes": (
        ["nutrition_tables"],
        [BOXES | {"predicted_categories": ["cat", "cat"]}],
        f"{SCORES} (predicted_categories: 2 names for 1 boxes)",
    ),
    "an unknown type": (["kvasir_vqa"], [YES | {"question_type": "odd"}], f"{SCORES} (question type 'odd' is none"),
    "no image": (["vqa_rad"], [{key: YES[key] for key in YES if key != "image_id"}], "line 1: no column 'image_id'"),
    "an image that is no name": (["vqa_rad"], [YES | {"image_id": ["a"]}], "said.jsonl, all rows: not what this rec"),
    "a word for a truth": (
        ["vqa_rad"],
        [YES, YES | {"closed": "false"}],
        "'closed' is true or false, and not 'false'",
    ),
    "no truth": (["vqa_rad"], [YES, YES | {"closed": None}], "'closed' is true or false, and not None"),
    "numbers for labels": (
        ["ssg_vqa"],
        [YES | {"reference": 1, "kind": "a", "hops": "b"}],
        f"{SCORES} (the answer 1 is no text)",
    ),
    "a number for a group": (
        ["ssg_vqa", "--dataset_format", "real_colon"],
        [YES | {"kind": 0, "short_answer": "yes"}],
        "line 1: 0 names no group of rows",
    ),
    "no group": (["reasonseg"], [YES | {"kind": None}], "line 1: None names no group of rows"),
    "a list": (["vqa_rad"], [[1]], "line 1: no JSON object"),
    "no line": (["vqa_rad"], [], "has no answers"),
    "an unknown setting": (["vqa_rad", "--odd", "3"], [YES], "--odd 3: no setting of the recipe's Data"),
    "no recipe": ([], [YES], "say which metrics, --recipe FILE"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_scored_is_one_line_that_says_where(case, tmp_path):
    named, rows, expected = REFUSED[case]
    arguments = [*recipe(named[0]), *named[1:]] if named else []
    with pytest.raises(SystemExit) as ended:
        scored(lines(tmp_path, *rows), *arguments)
    assert ended.value.code.startswith("error: ") and expected in ended.value.code and "\n" not in ended.value.code


def test_rows_whose_image_has_no_name_are_images_of_their_own(tmp_path):
    numbers = []
    for first, third in ((None, None), ("x", "y")):
        answers = zip((first, "a", third, "a"), ("yes", "no", "no", "yes"), strict=True)
        file = lines(tmp_path, *(YES | {"image_id": image, "prediction": said} for image, said in answers))
        scored(file, *recipe("vqa_rad"), "--output", tmp_path / "numbers.json")
        numbers.append(json.loads((tmp_path / "numbers.json").read_text())["all rows"])
    assert {name: numbers[0][name] for name in ("token_f1", "n")} == {"token_f1": 0.5, "n": 4}
    assert 0 <= numbers[0]["token_f1_low"] < 0.5 and numbers[0].keys() == numbers[1].keys()


def test_lines_that_are_no_json_and_files_that_are_not_there_are_one_line(tmp_path):
    file = tmp_path / "said.jsonl"
    for content, expected in (
        (b'{"a": 1}\n{"id"', "line 2: no JSON"),
        (b"\xff\xff{}", "line 1: no JSON"),
        (None, "no file"),
    ):
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)
        with pytest.raises(SystemExit, match=expected):
            scored(file, *recipe("vqa_rad"))
    with pytest.raises(SystemExit, match="there is no file .*said.jsonl"):
        scored(file)  # and not that no run lies beside it
    file.write_text("{}")
    with pytest.raises(SystemExit, match="no run.json lies beside"):
        scored(file)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(SystemExit, match="run.json is no record of a run"):
        scored(file)


def test_line_ends_inside_of_texts_are_no_ends_of_lines(tmp_path):
    file = tmp_path / "said.jsonl"
    file.write_text(
        json.dumps(YES | {"prediction": "a\u2028b\u0085c", "reference": "a\u2028b\u0085c"}, ensure_ascii=False)
    )
    evaluation, splits = score.score_file(file, vqa_rad, vqa_rad.Data())
    assert splits["all rows"].scores["exact_match"].value == 1 and splits["all rows"].per_row == [1]
