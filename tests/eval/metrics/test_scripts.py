"""`evaluate.load` reads each metric from its file, offline and outside the clone, as an installed user would."""

import importlib
import json
import multiprocessing
import os
import sys
from pathlib import Path

import evaluate
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


def load_elsewhere(folder: Path) -> None:
    """In a process of its own: forget the clone and what has been imported of it, and keep caches in the folder."""
    os.chdir(folder)
    sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != ROOT]
    for name in [name for name in sys.modules if name.partition(".")[0] == "vlm_recipes"]:
        del sys.modules[name]
    for name in ("HF_MODULES_CACHE", "HF_METRICS_CACHE", "HF_EVALUATE_CACHE"):
        setattr(evaluate.config, name, folder / name)
    scripts, computed = importlib.import_module("vlm_recipes.eval.metrics.scripts"), {}
    for name, (_, predictions, references, more) in METRICS.items():
        metric = evaluate.load(str(Path(scripts.__file__).parent / f"{name}.py"))
        metric.add_batch(predictions=predictions[:2], references=references[:2])
        metric.add_batch(predictions=predictions[2:], references=references[2:])
        computed[name] = metric.compute(**more)
    (folder / "computed.json").write_text(json.dumps(computed))


def test_every_metric_loads_from_its_file_and_computes_what_its_function_does(tmp_path):
    assert {path.stem for path in (ROOT / "eval/metrics/scripts").glob("[!_]*.py")} == set(METRICS)
    process = multiprocessing.get_context("fork").Process(target=load_elsewhere, args=(tmp_path,))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    computed = json.loads((tmp_path / "computed.json").read_text())
    for name, (function, predictions, references, more) in METRICS.items():
        assert computed[name] == flat(function(predictions, references, **more)), name
    assert (computed["boxes"]["n"], computed["boxes"]["iou_mean"]) == (3, 0.5)
    assert computed["masks"]["ciou"] == (8 + 0 + 8) / (16 + 16 + 8)
    assert computed["text"]["closed_accuracy"] == 0.5
