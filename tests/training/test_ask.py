"""`vlm-ask` runs the recipe that made a run: the clone's own, or the file that is named, and no other code."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image

from demo.worlds.small import build
from recipes import nutrition_tables
from tests.support.paths import ROOT
from vlm_recipes.training import ask, runs

TRAP = "raise SystemExit('this code was run')\n"


def left_by(recipe: object, folder: Path) -> Path:
    """A run, as far as its record says."""
    folder.mkdir(parents=True, exist_ok=True)
    data, model = nutrition_tables.Data(dataset_name="", max_new_tokens=12), nutrition_tables.Model(dtype="float32")
    arguments = {"data": asdict(data), "model": asdict(model)}
    (folder / "run.json").write_text(json.dumps({"recipe": recipe, "arguments": arguments}))
    return folder


@pytest.fixture
def picture(tmp_path) -> Path:
    Image.new("RGB", (112, 84), "white").save(tmp_path / "photograph.png")
    return tmp_path / "photograph.png"


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as ended:
        ask.main([str(argument) for argument in arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_a_copied_recipe_in_another_folder_answers_when_it_is_named(tmp_path, picture, capsys):
    build("nutrition_tables", tmp_path / "world")
    output = Path(shutil.copytree(tmp_path / "world" / "model", tmp_path / "output"))
    copied = tmp_path / "elsewhere" / "my_tables.py"
    copied.parent.mkdir()
    text = (ROOT / "recipes" / "nutrition_tables.py").read_text()
    copied.write_text(
        text.replace("\n\nSYSTEM =", "\n\nfrom my_words import WORDS as QUESTION\n\nSYSTEM =", 1).replace(
            '\nQUESTION = "', '\nOTHER = "'
        )
    )
    (copied.parent / "my_words.py").write_text("WORDS = 'Detect the bounding box of my table.'\n")
    left_by("my_tables", output)
    line = refused(capsys, output, picture)
    assert line.endswith(
        f"this run's recipe is 'my_tables', and {ROOT / 'recipes'} has none of that name: --recipe FILE"
    )
    ask.main([str(output), str(picture), "--recipe", str(copied)])
    assert capsys.readouterr().out.splitlines()[-2].startswith(f"{picture}: ")
    assert Image.open(output / "answers" / "photograph.png").size == (112, 84)


@pytest.mark.parametrize("named", ["{folder}/trap", "{folder}/trap.py", "../trap", "trap", "json", ["trap"], None])
def test_a_record_that_names_a_path_or_no_recipe_of_the_clone_runs_nothing(
    named, tmp_path, picture, capsys, monkeypatch
):
    for folder in (tmp_path, tmp_path / "output"):
        folder.mkdir(exist_ok=True)
        (folder / "trap.py").write_text(TRAP)
    monkeypatch.chdir(tmp_path / "output")
    named = named.format(folder=tmp_path) if isinstance(named, str) else named
    line = refused(capsys, left_by(named, tmp_path / "output"), picture)
    assert repr(named) in line and line.endswith("--recipe FILE")


def test_a_path_to_a_recipe_of_the_clone_is_no_name_of_one(tmp_path, picture, capsys):
    named = str(ROOT / "recipes" / "nutrition_tables")
    assert repr(named) in refused(capsys, left_by(named, tmp_path / "output"), picture)


def test_where_no_clone_is_the_recipe_has_to_be_named(tmp_path, picture, capsys, monkeypatch):
    monkeypatch.setattr(runs, "RECIPES", tmp_path / "site-packages" / "vlm_recipes" / "recipes")
    line = refused(capsys, left_by("nutrition_tables", tmp_path / "output"), picture)
    assert "'nutrition_tables'" in line and line.endswith("--recipe FILE")
    assert refused(capsys, tmp_path / "output", picture, "--recipe", tmp_path / "none.py").endswith(
        f"no file {tmp_path / 'none.py'}"
    )
