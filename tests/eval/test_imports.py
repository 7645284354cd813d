"""What an import of one piece brings along, in a fresh interpreter outside the clone; who may import whom in eval."""

import ast
import json
import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

HEAVY = ["evaluate", "matplotlib", "transformers", "datasets", "peft", "trl", "jinja2"]
# From the lightest on, so that what one module may bring is allowed to all below it.
UNWANTED = {
    "text": [*HEAVY, "torch", "pycocotools", "sklearn"],
    "boxes": [*HEAVY, "pycocotools", "sklearn"],
    "detection": [*HEAVY, "pycocotools", "sklearn"],
    "box_codecs": [*HEAVY, "pycocotools", "sklearn"],
    "masks": [*HEAVY, "sklearn"],
    "baselines": [*HEAVY, "sklearn"],
    "type_accuracy": [*HEAVY, "sklearn"],
    "question_types": [*HEAVY, "sklearn"],
    "classification": HEAVY,
    "confusion": HEAVY,
}
LOADED = """
import importlib, json, sys
for name, unwanted in json.loads(sys.argv[1]).items():
    importlib.import_module(f"vlm_recipes.eval.metrics.{name}")
    print(*[f"{name} brings {library}" for library in unwanted if library in sys.modules], sep="\\n", end="")
"""


def test_a_metric_brings_no_library_that_it_does_not_need(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", LOADED, json.dumps(UNWANTED)]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, ""), result.stderr


MAY_IMPORT = {  # of this project, beside its own; what stands in eval itself may import all of eval
    "metrics": ("rows.run_lengths",),
    "generation": ("rows.conventions", "models.ends", "models.upstream"),
    "report": ("eval.metrics", "rows.background"),
}


def imported(file) -> list[str]:
    """Names in full of the modules of ours that a file imports, wherever in it."""
    names, package = [], ["vlm_recipes", *file.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            names.append(".".join([*base, *([node.module] if node.module else [alias.name for alias in node.names])]))
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return [name.removeprefix("vlm_recipes.") for name in names if name.startswith("vlm_recipes.")]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_arrows_inside_eval_go_one_way(room):
    files = sorted((ROOT / "eval" / room).rglob("*.py"))
    allowed = (f"eval.{room}", *MAY_IMPORT[room])
    wrong = [(file.name, name) for file in files for name in imported(file) if not name.startswith(allowed)]
    assert wrong == [] and len(files) > 4
    assert any(imported(file) for file in files)


def test_no_metric_but_the_scripts_imports_evaluate():
    files = [file for file in (ROOT / "eval").rglob("*.py") if file.parent.name != "scripts"]
    assert not [file for file in files if "import evaluate" in file.read_text(encoding="utf-8")]
