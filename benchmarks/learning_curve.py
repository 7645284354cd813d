"""Does it learn the same when an image's questions come together? `python -m benchmarks.learning_curve WHAT`.

The demo of `recipes/kvasir_vqa.py`, one epoch of its 4,000 pictures, with each question by itself and with all
questions of an image as one row, about 64 questions a step either way, for three seeds: accuracy on watched validation
questions over the epoch, and at its end on the whole test part. WHAT trains is

    adapter   LoRA on the language model, as the recipe tunes, of a model that can describe other pictures
    whole     all of that model
    scratch   all of the demo's untrained model

Half an hour to an hour on two CPU cores, the first time ten minutes more, in which the model learns to describe.
Dataset and models are kept in outputs/learning_curve and used again.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.pretraining import learn_to_describe
from demo.__main__ import ROOT
from demo.worlds.build import build

SEEDS, QUARTERS = (1, 2, 3), 4
VARIANTS = {"each question by itself": 1, "an image's questions together": 20}
SETTINGS = {"adapter": ["--use_peft", "true", "--learning_rate", 2e-3], "whole": [], "scratch": []}


def run(start: Path, dataset: Path, output: Path, *settings: object) -> dict:
    """Launch the recipe; the test's metrics."""
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/cpu.yaml"]
    command += ["recipes/kvasir_vqa.py", "--config", "demo/configs/kvasir_vqa.yaml", "--output_dir", output]
    command += ["--dataset_name", dataset, "--model_name_or_path", start, *settings]
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(list(map(str, command)), cwd=ROOT, env=os.environ | quiet, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return json.loads((output / "results.json").read_text())["test"]


def learn(start: Path, dataset: Path, output: Path, *settings: object) -> tuple[list[float], dict]:
    """Train an epoch and test once; validation accuracy after each part of the epoch, and the test's metrics."""
    epoch = ["--max_steps", -1, "--num_train_epochs", 1, "--eval_steps", 1 / QUARTERS]
    test = run(start, dataset, output, *epoch, "--save_strategy", "no", "--load_best_model_at_end", "false", *settings)
    log = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry["eval_accuracy"] for entry in log if "eval_accuracy" in entry], test


def shown(test: dict) -> str:
    return "test {accuracy:.3f} (n = {n}, {accuracy_low:.3f} to {accuracy_high:.3f})".format(**test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=SETTINGS)
    what = parser.parse_args().what
    folder = ROOT / "outputs" / "learning_curve"
    dataset, untrained, described = folder / "dataset", folder / "untrained", folder / "described"
    if not (untrained / "config.json").is_file():
        build("kvasir_vqa", dataset, untrained)
    if what != "scratch" and not (described / "model.safetensors").is_file():  # written last
        shutil.rmtree(described, ignore_errors=True)
        learn_to_describe(untrained, described)
    start = untrained if what == "scratch" else described
    before = run(start, dataset, folder / f"{what}_before", "--do_train", "false")
    print(f"before: {shown(before)}; majority {before['baseline_accuracy']:.3f}", flush=True)
    ends: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for seed in SEEDS:
        for name, questions_per_row in VARIANTS.items():
            own = ["--seed", seed, "--questions_per_row", questions_per_row, *SETTINGS[what]]
            curve, test = learn(start, dataset, folder / f"{what}_{questions_per_row}_{seed}", *own)
            ends[name].append(test["accuracy"])
            print(f"seed {seed}, {name:30}", *(f"{value:.3f}" for value in curve), f"  {shown(test)}", flush=True)
    for name, values in ends.items():
        print(f"{name:30} {statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")


if __name__ == "__main__":
    main()
