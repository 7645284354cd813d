"""What a run left, read again: its record, its recipe and what that was asked."""

import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

RECIPES = Path(__file__).resolve().parent.parent / "recipes"  # of the clone that this is installed from


class RunError(Exception):
    """What cannot be read, in one line that says what to do."""


def read_run(folder: Path, parts: Sequence[str] = ("data",)) -> dict[str, Any]:
    """`run.json` of a recipe's output folder, which has these `parts` of what the recipe was asked."""
    record = folder / "run.json"
    if not record.is_file():
        hint = "name a folder that a recipe was given as --output_dir"
        if any(folder.glob("checkpoint-*")):
            hint = "the run was interrupted before its first evaluation, let it go on: --resume_from_checkpoint true"
        raise RunError(f"{record} does not exist; {hint}")
    try:
        run = json.loads(record.read_bytes())
    except ValueError as error:
        raise RunError(f"{record}: no JSON ({error})") from error
    arguments = run.get("arguments") if isinstance(run, dict) and "recipe" in run else None
    if not isinstance(arguments, dict) or not all(isinstance(arguments.get(part), dict) for part in parts):
        raise RunError(f"{record} is no record of a run, or was cut: make it anew with --do_train false")
    return run


def existing(file: Path) -> Path:
    """The file; `RunError` where there is none."""
    if not file.is_file():
        raise RunError(f"there is no file {file}")
    return file


def first_base(name: str) -> str:
    """The model that the run in a folder began with; of one that went on from another run's, the first one's."""
    seen = set()
    while name not in seen:
        seen.add(name)
        folder = next((folder for folder in (Path(name), Path(name).parent) if (folder / "run.json").is_file()), None)
        name = read_run(folder)["arguments"]["model"]["model_name_or_path"] if folder else name
    return name


def recipe_of(run: dict[str, Any], file: Path | None) -> ModuleType:
    """The recipe in `file`, else the clone's own that made the run: `run.json` may name that, but no other code."""
    file = file or next((file for file in RECIPES.glob("*.py") if file.stem == run["recipe"]), None)
    if file is None:
        raise RunError(f"this run's recipe is {run['recipe']!r}, and {RECIPES} has none of that name: --recipe FILE")
    return load_recipe(file)


def load_recipe(file: Path) -> ModuleType:
    """Import a recipe's file; modules beside it are found, as when it was launched."""
    name = f"recipe_{existing(file).stem}"  # of no module that something else imports
    spec = importlib.util.spec_from_file_location(name, file)
    sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    sys.path.append(str(file.resolve().parent))
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def restore(dataclass: type, values: dict[str, Any]) -> Any:
    """Build a recipe's `Data` or `Model` from what `run.json` recorded."""
    return dataclass(**{field.name: values[field.name] for field in fields(dataclass) if field.name in values})
