"""An evaluation answers rows that the model was not trained on: another division of the same data is refused."""

import json
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from transformers.trainer import TRAINER_STATE_NAME

from ..models.checkpoints import EXPORTED
from ..rows.errors import DataError
from .folder import DATA, differences, run_of
from .resuming import contents
from .runs import kept_in


def refuse_trained_on(model: Path, run: dict[str, Any], test: Dataset) -> None:
    """Raise `DataError` where other rows are to be tested on than beside the training of what lies in `model`.

    They may be pictures that it has learnt, with nothing to show it. The rows are compared where both are of one
    dataset, and seed or a setting that divides them differs. Where the model does not keep what was to be tested on, a
    line says what differs.

    Args:
        model: a run's folder, a checkpoint, or an export; of another model nothing is known.
        run: of the evaluation, from `describe_run`.
        test: its rows.
    """
    before = kept_in(model / TRAINER_STATE_NAME) or _exported(model)
    arguments = run["arguments"]
    now = run_of(run["recipe"], arguments)
    if before is None or before["run"]["recipe"] != now["recipe"]:
        return
    if differences({"of": before["run"].get("dataset_name")}, {"of": now.get("dataset_name")}):
        return  # of other data
    divided = {name: value for name, value in now.items() if DATA.fullmatch(name) and name != "dataset_name"}
    changed = differences(before["run"] | before["settings"], divided | {"seed": arguments["training"]["seed"]})
    if not changed or before.get("tested") == contents(test):
        return
    line = f"{model} was trained with {changed}: the rows to test on may be some that it has learnt"
    if "tested" in before:
        raise DataError(f"{line}; evaluate it with what it was trained with")
    PartialState().print(f"! {line}", flush=True)


def _exported(model: Path) -> dict[str, Any] | None:
    try:
        run = json.loads((model / EXPORTED).read_bytes())
        seed = {"seed": run["arguments"]["training"]["seed"]}
        return {"run": run_of(run["recipe"], run["arguments"]), "settings": seed}
    except (OSError, ValueError, LookupError, TypeError):  # no export, or one that was cut
        return None
