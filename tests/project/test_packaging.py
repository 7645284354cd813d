"""What is installed: each file of the packages, nothing else, beside a project with modules of the same names."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from itertools import chain
from pathlib import Path

import pytest

from tests.support.pages import PAGES, code
from tests.support.paths import ROOT

PACKAGES = ("callbacks", "collators", "eval", "models", "rows", "training")
THEIRS = ("eval.py", "models/__init__.py", "callbacks.py", "collators/__init__.py", "rows.py", "training.py")
# In somebody's project: import all lines of README and docs, then say where each module of the two lies.
IMPORTS = """
import importlib, importlib.metadata, json, sys
import eval, models, callbacks, collators, rows, training
for line in json.loads(sys.argv[1]):
    exec(line, {})
for module in json.loads(sys.argv[2]):
    assert importlib.util.find_spec(module), module
[installed] = importlib.metadata.distributions(name="vlm-recipes", path=[sys.argv[3]])
commands = list(installed.entry_points)
for command in commands:
    command.load()
theirs = {module.__name__: module.OWNER for module in (eval, models, callbacks, collators, rows, training)}
ours = [module.__file__ for name, module in sys.modules.items() if name.startswith("vlm_recipes.")]
print(json.dumps({"commands": sorted(command.name for command in commands), "theirs": theirs, "ours": ours}))
"""


def in_tree(*folders: str) -> set[str]:
    files = [file for folder in folders for file in (ROOT / folder).rglob("*") if file.is_file()]
    return {file.relative_to(ROOT).as_posix() for file in files if file.parent.name != "__pycache__"}


def said() -> tuple[list[str], list[str]]:
    """The import lines, and the modules of `python -m`, of README and docs that name something of ours."""
    lines, modules = set(), set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        modules |= set(re.findall(r"python -m (vlm_recipes[\w.]*)", text))
        lines |= set(re.findall(r"`((?:from vlm_recipes[\w.]* )?import [\w., ]*)`", text))
        for block in chain(*code(page, "python").values()):
            lines |= {
                ast.unparse(node)
                for node in ast.walk(ast.parse(block))
                if isinstance(node, ast.Import | ast.ImportFrom) and "vlm_recipes" in ast.unparse(node)
            }
    return sorted(lines), sorted(modules)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of the clone, so that neither a former `build/` enters it nor a new one is left."""
    source, built = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("wheel")
    for folder in (*PACKAGES, "recipes", "demo", "benchmarks", "tests"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(built)], cwd=source, check=True, capture_output=True)
    [path] = built.glob("*.whl")
    return path


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = in_tree(*PACKAGES)
    assert len(files) > 80 and any(file.endswith(".jinja") for file in files)
    assert packed == {f"vlm_recipes/{file}" for file in files}


def test_the_pages_imports_work_beside_modules_of_the_same_names_which_stay_their_owner_s(wheel, tmp_path):
    site, project = tmp_path / "site", tmp_path / "project"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*install, str(wheel)], check=True)
    for file in THEIRS:
        (project / file).parent.mkdir(parents=True, exist_ok=True)
        (project / file).write_text("OWNER = 'theirs'\n")
    (project / "main.py").write_text(IMPORTS)
    lines, modules = said()
    assert len(lines) >= 10 and modules
    environment = os.environ | {"PYTHONPATH": str(site)}
    command = [sys.executable, "main.py", json.dumps(lines), json.dumps(modules), str(site)]
    ran = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["commands"] == ["vlm-ask", "vlm-compare", "vlm-export", "vlm-score"]
    assert found["theirs"] == dict.fromkeys(PACKAGES, "theirs")
    assert len(found["ours"]) > 10 and all(Path(file).is_relative_to(site) for file in found["ours"])
