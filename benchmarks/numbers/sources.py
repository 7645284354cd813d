"""The files that can move a number, and what they say; comments, docstrings and layout are left out."""

import ast
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What writes down what was measured, and is not looked into: no number hangs on it.
SHOWN = ("callbacks/log_lines.py", "eval/drawing.py", "eval/drawn_row.py", "eval/report/", "training/chatter.py")
SHOWN += ("training/model_card.py", "training/plan", "training/snippet.py")
# The preflight looks, and leaves nothing in the run that it looks at (tests/callbacks/preflight/test_callback.py).
SHOWN += ("callbacks/preflight/",)
# A list of all demos: each names its own world.
LISTS = ("demo/worlds/build.py",)
PINS = r"(?i)^(torch|torchvision|transformers|trl|accelerate|peft|datasets|evaluate|numpy|pillow|tokenizers|scipy|"
PINS += r"scikit-learn|pycocotools|rouge-score|imagehash|qwen-vl-utils)=="


def files_of(*entries: str) -> list[str]:
    """These files of the project, those in these folders, and what they import of it, in order.

    Of a package's `__init__` only the modules count whose names are imported from it, of what is only shown the files
    that are named here.
    """
    found: set[str] = set()
    waiting = [file for entry in entries for file in _in(ROOT / entry)]
    while waiting:
        file = waiting.pop()
        name = file.relative_to(ROOT).as_posix()
        if name in found or (name.startswith(SHOWN) and name not in entries):
            continue
        found.add(name)
        if file.suffix == ".py" and file.name != "__init__.py" and name not in LISTS:
            waiting += imports_of(file)
    return sorted(found)


def _in(path: Path) -> list[Path]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: a number's file is not there")
    return [file for file in path.rglob("*") if file.suffix == ".py"] if path.is_dir() else [path]


@cache
def digest(name: str) -> str:
    """What a file says: of Python its code, of requirements.txt the pins of what computes, of others all."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith(".py"):
        text = ast.dump(_without_docstrings(ast.parse(text)))
    elif name == "requirements.txt":
        text = "\n".join(line for line in text.splitlines() if re.match(PINS, line))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and len(node.body) > 1:
                del node.body[0]
    return tree


@cache
def imports_of(file: Path) -> tuple[Path, ...]:
    """The project's files that a file imports, wherever in it."""
    package = [*file.relative_to(ROOT).parts[:-1]]
    found: list[Path] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += filter(None, (_module(alias.name.split(".")) for alias in node.names))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = [*base, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                found += _named(origin, alias.name)
    return tuple(found)


def _named(origin: list[str], name: str) -> Iterator[Path]:
    """The file that `from origin import name` takes the name from, and the package's `__init__` on its way."""
    module, home = _module([*origin, name]), _module(origin)
    if module is not None:
        yield module
    if home is None:
        return
    yield home
    if module is None and home.name == "__init__.py":
        for node in ast.walk(ast.parse(home.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and name in {alias.asname or alias.name for alias in node.names}:
                own = list(home.relative_to(ROOT).parts[:-1])
                yield from _named([*own, *(node.module or "").split(".")], name)


def _module(parts: list[str]) -> Path | None:
    """The file of a module of this project; None for a library's."""
    parts = parts[1:] if parts[:1] == ["vlm_recipes"] else parts
    if not parts or not all(parts):
        return None
    for file in (ROOT.joinpath(*parts).with_suffix(".py"), ROOT.joinpath(*parts, "__init__.py")):
        if file.is_file():
            return file
    return None
