"""How tests run a recipe, quietly here or its file as a user does, up to the line it fails with; what it leaves."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

QUIET = dict(
    report_to="none",
    disable_tqdm=True,
    dataloader_num_workers=0,
    dataloader_pin_memory=False,
    eval_strategy="no",
    save_strategy="no",
    load_best_model_at_end=False,
    bf16=False,
    fp16=False,
    logging_steps=1,
    use_cpu=True,
)


def read(output: Path) -> dict:
    """The results, the predictions and the log that a run left."""
    state = output / "trainer_state.json"
    return {
        "results": json.loads((output / "results.json").read_text()),
        "predictions": [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()],
        "log": json.loads(state.read_text())["log_history"] if state.exists() else [],
        "output": output,
    }


def fails(recipe: str, *arguments: str, monkeypatch) -> str:
    """Run the recipe's file with these arguments; return the one line that it ends with."""
    monkeypatch.setattr(sys, "argv", [recipe, *arguments])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "recipes" / f"{recipe}.py"), run_name="__main__")
    assert isinstance(stopped.value.code, str) and "\n" not in stopped.value.code
    return stopped.value.code
