"""The notebook for Colab: what it names is there, and it runs, at toy size, from the data to an answer."""

import ast
import os

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

from recipes import vqa_rad
from tests.support.paths import ROOT
from tests.support.worlds import world
from vlm_recipes.training.launch import RecipeParser

NOTEBOOK = ROOT / "docs" / "colab.ipynb"


def opened() -> NotebookNode:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    return notebook


def tagged(notebook: NotebookNode, tag: str) -> NotebookNode:
    [cell] = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", ())]
    return cell


def values(source: str) -> dict[str, str]:
    """The texts that a cell gives names to."""
    found = {}
    for statement in ast.parse(source).body:
        names, texts = statement.targets[0], statement.value
        pairs = zip(names.elts, texts.elts, strict=True) if isinstance(names, ast.Tuple) else [(names, texts)]
        found |= {name.id: ast.literal_eval(text) for name, text in pairs}
    return found


def test_it_holds_no_output_and_its_cells_are_python_but_for_the_one_that_installs():
    notebook = opened()
    install = tagged(notebook, "install")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
            if cell is not install:
                ast.parse(cell.source)
    commands = install.source.splitlines()
    assert commands[0].startswith('REPOSITORY = "…"') and "!git clone --quiet {REPOSITORY} vlm-recipes" in commands


def test_its_flags_are_the_recipe_s_and_its_names_the_recipe_s_defaults_in_eight_bits():
    given = values(tagged(opened(), "parameters").source)
    parser = RecipeParser((vqa_rad.Data, vqa_rad.Training, vqa_rad.Model))
    flags = given["FLAGS"].split()[::2]
    known = {option for action in parser._actions for option in action.option_strings}
    assert {"--load_in_8bit", "--fp16"} == set(flags) <= known
    assert given["DATASET"] == vqa_rad.Data.dataset_name and given["OUTPUT"] == vqa_rad.Training.output_dir
    assert given["MODEL"] == vqa_rad.Model.model_name_or_path and vqa_rad.Model.load_in_8bit


@pytest.mark.slow
def test_it_trains_shows_the_report_and_answers_about_a_picture(tmp_path):
    """With another cell of parameters, and without the one that installs."""
    notebook, (_, dataset, _, checkpoint, *others) = opened(), world("vqa_rad")
    picture = tmp_path / "scan.png"
    Image.new("L", (40, 30), "gray").save(picture)
    flags = " ".join(others) + " --max_steps 2 --eval_strategy steps --eval_steps 2 --use_cpu true --eval_rows 4"
    own = {"DATASET": dataset, "MODEL": checkpoint, "OUTPUT": str(tmp_path / "run"), "FLAGS": flags}
    own |= {"PICTURE": str(picture), "QUESTION": "Is the heart enlarged?"}
    parameters = tagged(notebook, "parameters")
    assert own.keys() == values(parameters.source).keys()
    parameters.source = "\n".join(f"{name} = {value!r}" for name, value in own.items())
    notebook.cells.remove(tagged(notebook, "install"))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT)}})
    client.execute(env=environment)
    _, training, report, asked = [cell for cell in notebook.cells if cell.cell_type == "code"]
    printed = "".join(output.text for output in training.outputs if output.output_type == "stream")
    assert "step 2: token_f1 " in printed and f"report: {tmp_path}/run/report.html" in printed
    assert "| test " in printed and "Traceback" not in printed
    [shown] = report.outputs
    assert shown.data["text/html"].startswith("<div><iframe srcdoc=") and "token_f1" in shown.data["text/html"]
    answers = "".join(output.text for output in asked.outputs if output.get("name") == "stdout")
    assert f"{picture}: " in answers
