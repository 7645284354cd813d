"""Who may import whom: recipes -> collators, callbacks, models -> eval -> third parties (design of the house)."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

OURS = {"recipes", "collators", "callbacks", "models", "eval", "demo", "benchmarks", "tests"}
MAY_IMPORT = {
    "recipes": {"collators", "callbacks", "models", "eval"},
    "collators": set(),
    "models": {"eval"},
    "eval": set(),
    "callbacks": {"eval"},
    "demo": {"eval"},
    "benchmarks": OURS - {"tests", "benchmarks"},
}
EXCEPTIONS = {
    "demo/worlds/build.py": {"recipes"},  # the prompts, which the small vocabulary has to cover
    "demo/checkpoints/surgvivqa.py": {"models"},  # an architecture that transformers lacks
}
FILES = [file for folder in MAY_IMPORT for file in sorted((ROOT / folder).rglob("*.py"))]
RECIPES = sorted((ROOT / "recipes").glob("*.py"))


def imported(file: Path) -> list[str]:
    """Full names of the imported modules, wherever in the file the import stands; `.x` if it is relative."""
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append("." * node.level + (node.module or ""))
    return names


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def test_there_are_files_to_look_at():
    assert len(RECIPES) >= 2 and len(FILES) > 20
    assert {file.relative_to(ROOT).parts[0] for file in FILES} == set(MAY_IMPORT)


@pytest.mark.parametrize("file", FILES, ids=name)
def test_arrows_go_one_way(file):
    package = file.relative_to(ROOT).parts[0]
    ours = {module.split(".")[0] for module in imported(file)} & OURS
    own = set() if package == "recipes" else {package}  # a recipe imports no other recipe
    assert ours - own - EXCEPTIONS.get(name(file), set()) <= MAY_IMPORT[package]


@pytest.mark.parametrize("file", FILES, ids=name)
def test_imports_are_absolute_and_name_a_module_of_eval(file):
    """`import eval` would hide the builtin function."""
    modules = imported(file)
    assert not [module for module in modules if module.startswith(".")]
    assert "eval" not in modules


def test_nothing_else_in_the_root_is_python():
    """A package that these tests do not know would have no arrows."""
    folders = {file.relative_to(ROOT).parts[0] for file in ROOT.glob("*/*.py")} - {".venv", "outputs", "build"}
    assert folders <= OURS and not list(ROOT.glob("*.py"))


@pytest.mark.parametrize("file", RECIPES, ids=name)
def test_a_recipe_only_defines_things(file):
    """At the top level: docstring, imports, constants, classes, functions, and `main` behind `__name__`."""
    for i, node in enumerate(ast.parse(file.read_text(encoding="utf-8")).body):
        if isinstance(node, ast.Expr):
            assert i == 0 and isinstance(node.value, ast.Constant), f"line {node.lineno}"
        elif isinstance(node, ast.If):
            assert ast.unparse(node.test) == "__name__ == '__main__'" and not node.orelse
        else:
            assert isinstance(
                node, ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign | ast.ClassDef | ast.FunctionDef
            )


WATCHED_IMPORT = """
import importlib, sys
from trl import SFTConfig, SFTTrainer, TrlParser, get_peft_config  # third parties print and write as they like
from transformers import Seq2SeqTrainer
import callbacks, vlm_recipes.collators.rows, vlm_recipes.eval.record, vlm_recipes.models.checkpoints, peft, datasets
seen = []
def watch(event, arguments):
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        seen.append(arguments[:2])
    elif event in ("os.mkdir", "socket.connect", "subprocess.Popen", "os.remove", "os.rename"):
        seen.append((event, arguments))
class Said(list):
    def write(self, text): self.append(text)
    def flush(self): pass
real, sys.stdout = sys.stdout, Said()
sys.addaudithook(watch)
for name in sys.argv[1:]:
    importlib.import_module(f"recipes.{name}")
said, sys.stdout = sys.stdout, real
assert not seen and not said, (seen, said)
"""


def run(code: str, *arguments: str, folder: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, env=environment, check=True)


def test_importing_a_recipe_prints_writes_and_starts_nothing(tmp_path):
    run(WATCHED_IMPORT, *[file.stem for file in RECIPES], folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_collator_brings_nothing_else_along(tmp_path):
    """For somebody with a Trainer of their own."""
    run(
        """
import sys
from collators import ChatCollator, Seq2SeqCollator, SharedImageCollator, group_by_image
unwanted = {"trl", "peft", "datasets", "deepspeed", "evaluate", "recipes", "callbacks", "eval", "models", "demo"}
assert not unwanted & set(sys.modules), unwanted & set(sys.modules)
""",
        folder=tmp_path,
    )
