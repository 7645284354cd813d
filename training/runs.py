"""What a run left, read again: its record, its recipe and what that was asked."""

import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

from .checkpoints import CHECKPOINT, newest_whole, weight_files

OF_TRAINING = ("quantised_bits", "best_global_step", "trained_with")
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
        elif (folder / "preflight.json").is_file():
            hint = "the run was interrupted before it saved anything: launch it again"
        raise RunError(f"{record} does not exist; {hint}")
    try:
        run = json.loads(record.read_bytes())
    except ValueError as error:
        raise RunError(f"{record}: no JSON ({error})") from error
    arguments = run.get("arguments") if isinstance(run, dict) and "recipe" in run else None
    if not isinstance(arguments, dict) or not all(isinstance(arguments.get(part), dict) for part in parts):
        raise RunError(f"{record} is no record of a run, or was cut: make it anew with --do_train false")
    return run


def kept_in(state: Path) -> dict[str, Any] | None:
    """What a `trainer_state.json` says that its training was begun with, see `resuming`; None where it does not."""
    try:
        return json.loads(state.read_bytes())["stateful_callbacks"]["TrainedAs"]["args"]
    except (OSError, ValueError, LookupError, TypeError):  # not there, half-written, or older than this
        return None


def model_of(folder: Path, run: dict[str, Any]) -> Path:
    """Where a run left a model: its folder, or, where it was interrupted, its newest whole checkpoint.

    Raises `RunError` where there is none.
    """
    own, (checkpoint, broken) = weight_files(folder), newest_whole(folder)
    saved = weight_files(checkpoint) if checkpoint else []
    if own and (run.get("finished", True) or not saved or _is_later(folder, checkpoint)):
        return folder
    if saved:
        return checkpoint
    training, model = (run["arguments"].get(part) or {} for part in ("training", "model"))
    if not training.get("do_train", True):
        name = model.get("model_name_or_path")
        raise RunError(f"{folder} holds no model, for its run only evaluated {name!r}: name a run that trained")
    why = [f"{path.name} is broken ({fault})" for path, fault in broken.items()]
    why += [f"{checkpoint.name} is sharded"] if checkpoint else [] if broken else ["no checkpoint was saved"]
    raise RunError(
        f"{folder} holds no model, for the run was interrupted ({', '.join(why)}): let it go on to its end with "
        "--resume_from_checkpoint true"
    )


def _is_later(folder: Path, checkpoint: Path) -> bool:
    """Whether a folder's own weights are of no earlier step than a checkpoint's: else they are of before it went on.

    The folder's `trainer_state.json` is written with its weights. Where it is not there, times tell, which a copy of
    the folder may have lost.
    """
    try:
        step = json.loads((folder / "trainer_state.json").read_bytes())["global_step"]
        return step >= int(checkpoint.name.rpartition("-")[2])
    except (OSError, ValueError, LookupError, TypeError):
        return weight_files(folder)[0].stat().st_mtime >= weight_files(checkpoint)[0].stat().st_mtime


def no_model_in(folder: Path) -> str | None:
    """Why a folder may not be loaded as the model of its run, which was interrupted; None where it may be.

    So may one where no run is known to have been.
    """
    if not (folder / "run.json").is_file():
        newest, was_run = newest_whole(folder)[0], (folder / "preflight.json").is_file()
        if weight_files(folder) or not (newest or was_run):
            return None
        advice = f"name {newest}" if newest else "launch it again"
        return f"{folder} holds no model, for its run was interrupted: {advice}"
    try:
        run = read_run(folder, ())
    except RunError:  # of a record that was cut nothing is known
        return None
    try:
        place = folder if run.get("finished", True) else model_of(folder, run)
    except RunError as error:
        return str(error)
    return None if place == folder else f"{folder} holds no model of its run, which was interrupted: name {place}"


def left_in(folder: Path, model: str | None) -> bool:
    """Whether a model is what a run left in the folder, or one of its checkpoints."""
    path = Path(model or "").resolve()
    return bool(model) and folder.resolve() == (path.parent if CHECKPOINT.fullmatch(path.name) else path)


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
        name = _began_with(folder) if folder else name
    return name


def _began_with(folder: Path) -> str:
    """The model that `run.json` names; where the folder's own was evaluated since, what the training began with."""
    name = read_run(folder)["arguments"]["model"]["model_name_or_path"]
    if not left_in(folder, name):
        return name
    states = [folder / "trainer_state.json", *folder.glob("checkpoint-*/trainer_state.json")]
    kept = next(filter(None, map(kept_in, states)), {"run": {}})
    return kept["run"].get("model_name_or_path", name)


def kept_of_training(folder: Path, model: str | None, now: dict[str, Any]) -> dict[str, Any]:
    """What `run.json` keeps of the training in a folder while only the `model` that it left there is evaluated.

    With the training's own settings as its `arguments`, so that it can be compared and launched again; those of `now`,
    the evaluation's record, are `evaluated_with`. Of one of the folder's checkpoints, how many bits it has.
    """
    if not left_in(folder, model):
        return {}
    try:
        run = read_run(folder, ())
    except RunError:
        return {}
    if folder.resolve() != Path(model).resolve():
        return {name: run[name] for name in OF_TRAINING[:1] if name in run}
    kept, before = {name: run[name] for name in OF_TRAINING if name in run}, run["arguments"]
    if before.get("training", {}).get("do_train"):
        asked = {part: now["arguments"][part] for part in ("training", "model")}
        own = {part: before[part] for part in asked if part in before}
        kept |= {"arguments": now["arguments"] | own, "evaluated_with": asked}
    return kept


def log_history_in(folder: Path, model: str | None) -> list[dict[str, Any]]:
    """What the training in a folder logged that left this `model` there; nothing of another model."""
    if not (model and folder.resolve() == Path(model).resolve()):
        return []
    try:
        return json.loads((folder / "trainer_state.json").read_bytes())["log_history"]
    except (OSError, ValueError, LookupError, TypeError):  # not there, or cut
        return []


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
