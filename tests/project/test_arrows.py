"""Who may import whom, by which name, and what importing a recipe does."""

import ast
import importlib
import io
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGES = ("callbacks", "collators", "eval", "models", "rows", "training")
# Which import nothing of ours, and which all may import.
LEAVES = {"rows.background", "rows.conventions", "rows.run_lengths", "models.ends", "models.parts", "models.upstream"}
EVAL = {"eval", "eval.generation", "eval.metrics", "eval.metrics.scripts", "eval.report", "eval.report.data"}
ALL = {*PACKAGES, *EVAL, "recipes", "demo"}
MAY_IMPORT = {
    "recipes": ALL - {"recipes", "demo"},
    "training": {"callbacks", "models", "rows", *EVAL},
    "callbacks": EVAL,
    "collators": {"rows"},
    "models": {"eval.generation"},
    "rows": set(),
    "eval": {"eval.generation", "eval.metrics"},
    "eval.generation": set(),
    "eval.metrics": set(),
    "eval.metrics.scripts": {"eval.metrics"},
    "eval.report": {"eval", "eval.metrics"},
    "eval.report.data": {"eval", "eval.metrics", "eval.report"},
    "demo": {"eval.metrics"},
    "benchmarks": ALL,
    "tests": ALL | {"benchmarks"},
}
EXCEPTIONS = {
    "demo/worlds/build.py": {"recipes"},  # the prompts, which the small vocabulary has to cover
    "demo/checkpoints/surgvivqa.py": {"models"},  # an architecture that transformers lacks
}
FILES = sorted(
    file for folder in {room.split(".")[0] for room in MAY_IMPORT} for file in (ROOT / folder).rglob("*.py")
)
PACKAGED = [file for file in FILES if file.relative_to(ROOT).parts[0] in PACKAGES]
SCRIPTS = [file for file in PACKAGED if "scripts" in file.parts]
RECIPES = sorted((ROOT / "recipes").glob("*.py"))


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def module_of(file: Path) -> str:
    """The dotted name under the root: `eval.report` for eval/report/__init__.py."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(file): file for file in FILES}


def room_of(module: str) -> str:
    """The room in MAY_IMPORT that the module stands in."""
    while module not in MAY_IMPORT and "." in module:
        module = module.rpartition(".")[0]
    return module


def computed(node: ast.Call) -> bool:
    return not (node.args and isinstance(node.args[0], ast.Constant))


def import_calls(nodes: Iterable[ast.AST]) -> list[ast.Call]:
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    return [node for node in calls if ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__")]


def imported(nodes: Iterable[ast.AST], module: str, is_package: bool = False) -> list[str]:
    """Full names of what is imported, wherever the import stands: in a function or for type checkers alone, too.

    Relative names are resolved, `from x import y` gives `x.y` where that is a module, and `vlm_recipes.` is kept only
    where it was written.
    """
    package = module.split(".") if is_package else module.split(".")[:-1]
    nodes, names = list(nodes), []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= len(package) + 1, f"{module}, line {node.lineno}: it leaves the project"
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                names.append(inner if inner.removeprefix("vlm_recipes.") in MODULES else origin)
    for call in import_calls(nodes):
        if not computed(call):
            given = call.args[0].value
            dots = len(given) - len(given.lstrip("."))
            base = package[: len(package) - dots + 1] if dots else []
            names.append(".".join([*base, given.lstrip(".")]))
    return names


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def imports_of(file: Path) -> list[str]:
    return imported(ast.walk(parsed(file)), module_of(file), file.name == "__init__.py")


def ours(names: list[str]) -> set[str]:
    """Those of this project, named as under the root."""
    shorn = {module.removeprefix("vlm_recipes.") for module in names}
    return {
        module for module in shorn if module.split(".")[0] in {*PACKAGES, "recipes", "demo", "benchmarks", "tests"}
    }


# --- arrows


def test_an_import_is_found_wherever_it_stands_and_however_it_is_written():
    source = """
from typing import TYPE_CHECKING
from . import chat
from .conversation import segments
from ..rows.conventions import Row
if TYPE_CHECKING:
    from ..eval import masks
def late():
    import vlm_recipes.models.blip2
    importlib.import_module("vlm_recipes.training.run")
    importlib.import_module("..eval.boxes", __package__)
    return __import__("demo")
"""
    found = ours(imported(ast.walk(ast.parse(source)), "collators.video"))
    assert found == {
        "collators.chat",
        "collators.conversation",
        "rows.conventions",
        "eval.masks",
        "models.blip2",
        "training.run",
        "eval.boxes",
        "demo",
    }
    assert {room_of(module) for module in found} == {
        "collators",
        "rows",
        "eval",
        "models",
        "training",
        "demo",
    }
    assert room_of("eval.report.data.page") == "eval.report.data" and room_of("eval.boxes") == "eval"


def test_every_python_file_stands_in_a_room_with_arrows():
    found = [file.relative_to(ROOT) for file in ROOT.rglob("*.py") if not file.relative_to(ROOT).parts[0][0] == "."]
    folders = {file.parts[0] for file in found} - {"outputs", "build"}
    assert folders == {room.split(".")[0] for room in MAY_IMPORT}
    assert len(RECIPES) >= 5 and len(PACKAGED) > 80 and SCRIPTS


@pytest.mark.parametrize("file", FILES, ids=name)
def test_arrows_go_one_way(file):
    room = room_of(module_of(file))
    other = {module for module in ours(imports_of(file)) if room_of(module) != room} - LEAVES
    allowed = MAY_IMPORT[room] | EXCEPTIONS.get(name(file), set())
    assert {module for module in other if room_of(module) not in allowed} == set()


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_a_leaf_imports_nothing_of_ours(leaf):
    assert ours(imports_of(MODULES[leaf])) == set()


def test_no_modules_import_each_other_in_a_circle():
    """For type checkers they may."""
    graph = {}
    for file in FILES:
        module, nodes = module_of(file), list(ast.walk(parsed(file)))
        blocks = [node for node in nodes if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
        for_checkers = {id(inner) for block in blocks for inner in ast.walk(block)}
        running = [node for node in nodes if id(node) not in for_checkers]
        graph[module] = ours(imported(running, module, file.name == "__init__.py")) - {module}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("file", RECIPES, ids=name)
def test_a_recipe_imports_no_other_recipe(file):
    stems = {"recipes", *(other.stem for other in RECIPES)}
    assert not [module for module in imports_of(file) if module.split(".")[0] in stems]


@pytest.mark.parametrize("file", PACKAGED, ids=name)
def test_a_computed_name_is_imported_only_by_a_package_that_hands_its_own_names_on(file):
    """Where a package is lazy, what it hands on is what it tells type checkers."""
    nodes = list(ast.walk(parsed(file)))
    if not any(computed(call) for call in import_calls(nodes)):
        return
    assert file.name == "__init__.py"
    for_checkers = {
        (alias.asname or alias.name, node.module)
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    package = __import__(f"vlm_recipes.{module_of(file)}", fromlist=["MODULES"])
    assert set(package.MODULES.items()) == for_checkers and set(package.__all__) == set(package.MODULES)
    assert all(getattr(package, exported).__name__ == exported for exported in package.__all__)


# --- names


def test_inside_a_package_imports_are_relative_but_in_scripts_that_evaluate_copies_elsewhere():
    for file in PACKAGED:
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.ImportFrom):
                own = node.level > 0 or (node.module or "").split(".")[0] == "vlm_recipes"
                assert not own or (node.level == 0) == (file in SCRIPTS), f"{name(file)}, line {node.lineno}"
            elif isinstance(node, ast.Import):
                assert not [alias for alias in node.names if alias.name.split(".")[0] == "vlm_recipes"], name(file)


ONE_OF_OURS = f"(?:{'|'.join(PACKAGES)})"
SUFFIXES = "cfg|css|csv|html|jinja|jpg|json|jsonl|lock|log|md|parquet|png|pt|py|safetensors|sh|toml|txt|yaml|yml"
BARE = re.compile(
    rf"^[ \t>`]*import (?:.*, ?)?{ONE_OF_OURS}\b(?!\.py)|`import {ONE_OF_OURS}\b"
    rf"|\bfrom {ONE_OF_OURS}(?:\.\w+)* import\b|-m[ ',\"]+{ONE_OF_OURS}\b(?!/)"
    rf"|(?<![\w./{{-])({ONE_OF_OURS}\.(?!(?:{SUFFIXES})\b)[A-Za-z_]\w*)",
    re.MULTILINE,
)
TESTS_ABOUT_NAMES = ("test_arrows.py", "test_imports.py", "test_packaging.py")
WORDS = {"models", "rows", "training"}  # names of variables, too: only followed by a module or an exported name


def exported(package: str) -> set[str]:
    """What may follow the package's name: its modules, and what its `__init__` speaks of."""
    files = (ROOT / package).iterdir()
    return {file.stem for file in files} | set(re.findall(r"\w+", (ROOT / package / "__init__.py").read_text()))


def bare_names(text: str) -> list[str]:
    found = []
    for match in BARE.finditer(text):
        package, _, rest = (match[1] or "").partition(".")
        if package not in WORDS or rest in exported(package):
            found.append(match[0].strip())
    return found


def texts(file: Path) -> Iterator[str]:
    """What a file says; of Python, what stands in comments and strings (imports have a test of their own)."""
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".py":
        yield text
        return
    yield from (
        node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant) and str is type(node.value)
    )
    comments = tokenize.generate_tokens(io.StringIO(text).readline)
    yield from (token.string for token in comments if token.type == tokenize.COMMENT)


def kept_files() -> list[Path]:
    """What git tracks; all files where the folder is no repository."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        return [ROOT / line for line in listed.stdout.split("\0") if line and (ROOT / line).is_file()]
    return [file for file in ROOT.rglob("*") if file.is_file() and not any(part[0] == "." for part in file.parts)]


@pytest.mark.parametrize(
    "text",
    [
        "import eval",
        ">>> import numpy, callbacks",
        "from collators import ChatCollator",
        "from eval.boxes import box_codec",
        "python -m eval.ask OUTPUT",
        '[sys.executable, "-m", "training.ask"]',
        "as `eval.generation.generate` does",
        "rows from `rows.grouping`",
        'mock.patch("callbacks.GradNormCallback")',
        "`import callbacks` installs",
    ],
)
def test_the_search_finds_a_bare_name(text):
    assert bare_names(text)


@pytest.mark.parametrize(
    "text",
    [
        "from vlm_recipes.callbacks import GradNormCallback",
        "python -m vlm_recipes.eval.metrics.question_types rows.jsonl",
        "model.eval() in models/lisa, beside eval.py and callbacks.py",
        "rows.append(row); training.output_dir; models.values()",
        "it may import models and rows. Training goes on",
        "from rows to batches",
    ],
)
def test_the_search_leaves_words_files_and_full_names_alone(text):
    assert not bare_names(text)


def test_no_file_names_a_package_of_ours_without_vlm_recipes():
    """From a clone's root `import callbacks` would work, as a second module with other classes."""
    found = {}
    for file in kept_files():
        speaks_of_names = file.parts[-3] == "tests" and file.name in TESTS_ABOUT_NAMES
        try:
            said = [] if speaks_of_names else [bare for text in texts(file) for bare in bare_names(text)]
        except UnicodeDecodeError:
            continue  # a picture
        if file.suffix == ".py":
            absolute = [node for node in ast.walk(parsed(file)) if not getattr(node, "level", 0)]
            said += [module for module in imported(absolute, "") if module.split(".")[0] in PACKAGES]
        if said:
            found[name(file)] = said
    assert found == {}, found


# --- recipes


@pytest.mark.parametrize("file", RECIPES, ids=name)
def test_a_recipe_only_defines_things(file):
    """At the top level: docstring, imports, constants, classes, functions, and `main` behind `__name__`."""
    for i, node in enumerate(parsed(file).body):
        if isinstance(node, ast.Expr):
            assert i == 0 and isinstance(node.value, ast.Constant), f"line {node.lineno}"
        elif isinstance(node, ast.If):
            assert ast.unparse(node.test) == "__name__ == '__main__'" and not node.orelse
        else:
            assert isinstance(
                node, ast.Import | ast.ImportFrom | ast.Assign | ast.AnnAssign | ast.ClassDef | ast.FunctionDef
            )


# Third parties print and write as they like.
THIRD_PARTIES = "datasets evaluate matplotlib.pyplot peft pycocotools.mask qwen_vl_utils sklearn.metrics torchvision"
LAZY = {"trl": ["SFTConfig", "SFTTrainer", "TrlParser", "get_peft_config"], "transformers": ["Seq2SeqTrainer"]}


class Said(list):
    def write(self, text: str) -> None:
        self.append(text)

    def flush(self) -> None:
        pass


def import_recipes_anew(folder: Path, noticed: Path) -> None:
    """Import all of ours as if for the first time, and write down what is printed, written or started meanwhile."""
    os.chdir(folder)
    sys.dont_write_bytecode = True
    for name in THIRD_PARTIES.split():
        importlib.import_module(name)
    for library, names in LAZY.items():
        for name in names:
            getattr(importlib.import_module(library), name)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("vlm_recipes", "recipes")]:
        del sys.modules[name]
    seen, said = [], Said()

    def watch(event: str, arguments: tuple) -> None:
        if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            seen.append(arguments[:2])
        elif event in ("os.mkdir", "socket.connect", "subprocess.Popen", "os.remove", "os.rename"):
            seen.append((event, arguments))

    real, sys.stdout = sys.stdout, said
    sys.addaudithook(watch)
    for file in RECIPES:
        importlib.import_module(f"recipes.{file.stem}")
    sys.stdout = real
    lines, count = [*map(repr, seen), *said], len([name for name in sys.modules if name.startswith("vlm_recipes.")])
    noticed.write_text(json.dumps({"lines": lines, "imported": count}))


def test_importing_a_recipe_prints_writes_and_starts_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    importing = (tmp_path / "empty", tmp_path / "noticed.json")
    process = multiprocessing.get_context("fork").Process(target=import_recipes_anew, args=importing)
    process.start()
    process.join(120)
    noticed = json.loads((tmp_path / "noticed.json").read_text())
    assert process.exitcode == 0 and noticed["lines"] == [] and noticed["imported"] > 80
    assert list((tmp_path / "empty").iterdir()) == []
