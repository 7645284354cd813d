"""The same seed gives the same numbers, and run.json is enough to launch the same run again.

One recipe is in `make test`; four of the others took 95 s on two cores shared with others.
"""

import json
import runpy
import sys
from pathlib import Path

import pytest

from demo.worlds.small import SIZES
from tests.support.paths import ROOT
from tests.support.worlds import world

pytestmark = pytest.mark.usefixtures("figures_are_blank")
SHORT = """--use_cpu true --eval_strategy no --save_strategy no --load_best_model_at_end false --logging_steps 1
--seed 5 --max_steps 3 --warmup_steps 0
--dataloader_num_workers 0 --dataloader_pin_memory false --disable_tqdm true""".split()


def launch(recipe: str, output: Path, *arguments: str, monkeypatch) -> dict:
    """Run the recipe's file; what it left, but for times, memory and its own folder."""
    monkeypatch.setattr(sys, "argv", [f"recipes/{recipe}.py", *arguments, "--output_dir", str(output)])
    runpy.run_path(str(ROOT / "recipes" / f"{recipe}.py"), run_name="__main__")
    log = json.loads((output / "trainer_state.json").read_text())["log_history"]
    run = json.loads((output / "run.json").read_text())
    run["arguments"]["training"].pop("output_dir")
    kept = ("recipe", "arguments", "versions", "git_commit", "dataset_fingerprint", "device", "processes")
    return {
        "log": [{k: v for k, v in entry.items() if not k.endswith(("_runtime", "_per_second"))} for entry in log],
        "run": {key: run[key] for key in kept},
        **{name: (output / name).read_text() for name in ("results.json", "predictions.jsonl", "rejected.jsonl")},
    }


@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=[] if name == "vqa_rad" else pytest.mark.slow) for name in SIZES]
)
def test_run_json_launches_the_same_run_again_to_the_same_numbers(recipe, tmp_path, monkeypatch):
    arguments = world(recipe)
    first = launch(recipe, tmp_path / "first", *arguments, *SHORT, monkeypatch=monkeypatch)
    again = launch(
        recipe, tmp_path / "again", "--config", str(tmp_path / "first" / "run.json"), monkeypatch=monkeypatch
    )
    assert again == first
    assert len([log for log in first["log"] if "loss" in log]) == 3
