"""`evaluate.load` reads each metric from its file, offline and outside the clone, as an installed user would."""

import json
import os
import subprocess
import sys

import numpy as np

from tests.support.paths import ROOT
from vlm_recipes.eval.metrics.boxes import box_metrics
from vlm_recipes.eval.metrics.classification import classification_metrics
from vlm_recipes.eval.metrics.masks import encode, mask_metrics
from vlm_recipes.eval.metrics.number import flat
from vlm_recipes.eval.metrics.text import text_metrics
from vlm_recipes.eval.metrics.type_accuracy import type_accuracy

BOX, TRUE = [[0, 0, 10, 10]], encode(np.ones((4, 4), dtype=bool))
HALF = encode(np.arange(16).reshape(4, 4) < 8)
WORDS, RIGHT = ["Yes", "no", "the left lung"], ["yes", "yes", "left lung"]
# predictions, references and what `compute` is given besides
METRICS = {
    "boxes": (box_metrics, [BOX, [], [[0, 0, 5, 10]]], [BOX] * 3, {"groups": ["a", "b", "a"]}),
    "classification": (
        classification_metrics,
        ["hook", "2", "hook"],
        ["hook", "hook", "2"],
        {"labels": ["2", "hook"], "types": [["x"], ["x"], ["y", "x"]], "groups": ["a", "b", "b"]},
    ),
    "masks": (
        mask_metrics,
        [[HALF], [], [HALF, TRUE]],
        [[TRUE]] * 3,
        {"image_ids": ["a", "b", "a"], "ignores": [None, None, HALF]},
    ),
    "text": (text_metrics, WORDS, RIGHT, {"closed": [True, True, False]}),
    "type_accuracy": (type_accuracy, WORDS, RIGHT, {"types": ["yes_no", "yes_no", "open_ended"]}),
}
LOAD = """
import json, sys, evaluate
from pathlib import Path
import vlm_recipes.eval.metrics.scripts as scripts
computed = {}
for name, (predictions, references, more) in json.loads(sys.argv[1]).items():
    metric = evaluate.load(str(Path(scripts.__file__).parent / f"{name}.py"))
    metric.add_batch(predictions=predictions[:2], references=references[:2])
    metric.add_batch(predictions=predictions[2:], references=references[2:])
    computed[name] = metric.compute(**more)
print(json.dumps(computed))
"""


def test_every_metric_loads_from_its_file_and_computes_what_its_function_does(tmp_path):
    assert {path.stem for path in (ROOT / "eval/metrics/scripts").glob("[!_]*.py")} == set(METRICS)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    inputs = json.dumps({name: inputs for name, (_, *inputs) in METRICS.items()})
    result = subprocess.run(
        [sys.executable, "-c", LOAD, inputs], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    computed = json.loads(result.stdout.splitlines()[-1])
    for name, (function, predictions, references, more) in METRICS.items():
        assert computed[name] == flat(function(predictions, references, **more)), name
    assert (computed["boxes"]["n"], computed["boxes"]["iou_mean"]) == (3, 0.5)
    assert computed["masks"]["ciou"] == (8 + 0 + 8) / (16 + 16 + 8)
    assert computed["text"]["closed_accuracy"] == 0.5
