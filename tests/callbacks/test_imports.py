"""Who adds one callback to a Trainer of their own gets that callback, and nothing that it does not need."""

import json
import subprocess
import sys

import pytest

HEAVY = {"matplotlib", "sklearn", "evaluate", "pycocotools", "datasets", "pandas", "pyarrow", "vlm_recipes.eval"}
LIGHT = ["FrozenPartsCallback", "GradNormCallback", "InterruptCallback", "LabelAuditCallback", "ResumeCallback"]
LIGHT += ["LogLinesCallback", "SharedImageCallback"]
# Each name in a process of its own, forked when all have what every callback needs, which takes the longest.
SCRIPT = """
import json, os, sys
from transformers import TrainerCallback
for name in sys.argv[1:]:
    if os.fork() == 0:
        exec(f"from vlm_recipes.callbacks import {name}")
        print(json.dumps([name, list(sys.modules)]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> dict[str, set[str]]:
    """name -> the modules that importing it leaves loaded, far from the clone."""
    command, folder = [sys.executable, "-c", SCRIPT, *LIGHT, "IoUCallback"], tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return {name: set(modules) for name, modules in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", LIGHT)
def test_a_callback_brings_no_package_that_it_does_not_need(name, loaded):
    assert "vlm_recipes.callbacks" in loaded[name] and sorted(loaded[name] & HEAVY) == []


def test_a_callback_that_scores_answers_brings_what_scores_them(loaded):
    assert {"datasets", "vlm_recipes.eval"} <= loaded["IoUCallback"]
