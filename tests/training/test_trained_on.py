"""What a run left is tested on the rows that its training left out, or not at all."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.left import left_by
from tests.support.paths import ROOT
from tests.support.running import fails, read

EVALUATE = "--do_train false --eval_rows 2 --max_new_tokens 2 --use_cpu true --bf16 false --dataloader_num_workers 0"
EVALUATE += " --eval_strategy no --load_best_model_at_end false --disable_tqdm true"
DISJOINT = ("--image_disjoint", "true")

pytestmark = pytest.mark.usefixtures("figures_are_blank")


def asked(out: Path, model: Path, *more: str) -> list[str]:
    """The arguments of an evaluation of a model on the data of the run that left `out`."""
    data = json.loads((out / "run.json").read_text())["arguments"]["data"]["dataset_name"]
    return ["--dataset_name", data, "--model_name_or_path", str(model), *EVALUATE.split(), *more]


def evaluated(recipe: str, *arguments: str, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", [recipe, *arguments])
    runpy.run_path(str(ROOT / "recipes" / f"{recipe}.py"), run_name="__main__")


def test_another_division_of_the_rows_is_refused_wherever_it_comes_from(tmp_path, monkeypatch):
    out = left_by("vqa_rad", *DISJOINT)
    start = asked(out, out, "--output_dir", str(tmp_path / "out"))
    for other, said in (
        ((*DISJOINT, "--seed", "7"), "seed 42 and not 7"),
        ((*DISJOINT, "--test_fraction", "0.5"), "test_fraction 0.2 and not 0.5"),
        ((), "image_disjoint True and not False"),
    ):
        line = fails("vqa_rad", *start, *other, monkeypatch=monkeypatch)
        assert line == (
            f"error: {out} was trained with {said}: the rows to test on may be some that it has learnt; evaluate it "
            "with what it was trained with"
        )
    evaluated("vqa_rad", *start, *DISJOINT, monkeypatch=monkeypatch)
    trained = {row["image_id"] for row in read(out)["predictions"]}
    assert {row["image_id"] for row in read(tmp_path / "out")["predictions"]} == trained


def test_a_seed_that_divides_nothing_may_be_another(tmp_path, monkeypatch):
    """VQA-RAD's official test part is the same for every seed."""
    out = left_by("vqa_rad", "--use_peft", "false")
    start = asked(out, out, "--output_dir", str(tmp_path / "out"), "--seed", "7")
    evaluated("vqa_rad", *start, monkeypatch=monkeypatch)
    assert read(tmp_path / "out")["results"]["test"] == read(out)["results"]["test"]


def test_a_model_that_does_not_keep_its_rows_is_told_of_in_a_line(tmp_path, monkeypatch, capsys):
    out = left_by("vqa_rad", *DISJOINT)
    export = tmp_path / "export"
    shutil.copytree(out, export)
    (export / "run.json").rename(export / "trained.json")
    (export / "trainer_state.json").unlink()
    start = asked(out, export, "--output_dir", str(tmp_path / "out"))
    evaluated("vqa_rad", *start, *DISJOINT, "--seed", "7", monkeypatch=monkeypatch)
    assert f"! {export} was trained with seed 42 and not 7: the rows to test on may be some" in capsys.readouterr().out


def test_an_evaluation_in_a_run_s_folder_keeps_what_the_training_was_asked_and_logged(tmp_path, monkeypatch):
    out = tmp_path / "out"
    source = left_by("vqa_rad", *DISJOINT, "--logging_steps", "1")
    shutil.copytree(source, out)
    before, figures = read(out), {file.name for file in (out / "figures").iterdir()}
    record = json.loads((out / "run.json").read_text())
    start = asked(out, out, "--output_dir", str(out), *DISJOINT)
    for rate in ("0.5", "0.6"):
        evaluated("vqa_rad", *start, "--learning_rate", rate, monkeypatch=monkeypatch)
        after = json.loads((out / "run.json").read_text())
        assert after["arguments"]["training"] == record["arguments"]["training"]
        assert after["arguments"]["model"] == record["arguments"]["model"]
        assert after["evaluated_with"]["training"]["learning_rate"] == float(rate)
    assert read(out)["log"] == before["log"]
    assert figures == {file.name for file in (out / "figures").iterdir()} and "loss.png" in figures
