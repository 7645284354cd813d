"""Does it learn the same when an image's questions come together? `python -m benchmarks.learning_curve [START]`.

The demo of `recipes/kvasir_vqa.py`, one epoch, with each question by itself and with all questions of an image as one
row, about 64 questions a step either way, for three seeds: accuracy on watched validation questions over the epoch,
and at its end on the whole test part. From scratch on the demo's pictures, or, from the checkpoint START (such as
outputs/demo/kvasir_vqa), on 2,000 new ones at a smaller rate. About half an hour on two CPU cores.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from demo.__main__ import ROOT
from demo.endoscopy import draw_endoscopy
from demo.worlds import build_kvasir_vqa

SEEDS, QUARTERS = (1, 2, 3), 4
VARIANTS = {"each question by itself": 1, "an image's questions together": 20}
NEW_PICTURES, NEW_SEED, SMALLER_RATE = 2000, 7, 3e-4


def learn(start: Path, dataset: Path, output: Path, *settings: object) -> tuple[list[float], dict]:
    """Train an epoch and test once; validation accuracy after each part of the epoch, and the test's metrics."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/cpu.yaml"]
    command += ["recipes/kvasir_vqa.py", "--config", "demo/configs/kvasir_vqa.yaml", "--output_dir", output]
    command += ["--dataset_name", dataset, "--model_name_or_path", start, "--max_steps", -1, "--num_train_epochs", 1]
    command += ["--eval_steps", 1 / QUARTERS, "--save_strategy", "no", "--load_best_model_at_end", "false", *settings]
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(list(map(str, command)), cwd=ROOT, env=os.environ | quiet, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    state = json.loads((output / "trainer_state.json").read_text())
    curve = [log["eval_accuracy"] for log in state["log_history"] if "eval_accuracy" in log]
    return curve, json.loads((output / "results.json").read_text())["test"]


def main() -> None:
    folder = ROOT / "outputs" / "learning_curve"
    shutil.rmtree(folder, ignore_errors=True)
    start, dataset, settings = folder / "untrained", folder / "dataset", []
    if len(sys.argv) > 1:
        start, settings = Path(sys.argv[1]).resolve(), ["--learning_rate", SMALLER_RATE]
        draw_endoscopy(dataset, images=NEW_PICTURES, seed=NEW_SEED)
    else:
        build_kvasir_vqa(dataset, start)
    ends: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for seed in SEEDS:
        for name, questions_per_row in VARIANTS.items():
            own = ["--seed", seed, "--questions_per_row", questions_per_row, *settings]
            curve, test = learn(start, dataset, folder / f"{questions_per_row}_{seed}", *own)
            ends[name].append(test["accuracy"])
            print(f"seed {seed}, {name:30}", *(f"{value:.3f}" for value in curve), flush=True, end="")
            print(f"   test {test['accuracy']:.3f} (n = {test['n']}, {test['accuracy_low']:.3f} to", end="")
            print(f" {test['accuracy_high']:.3f}; majority {test['baseline_accuracy']:.3f})", flush=True)
    for name, values in ends.items():
        print(f"{name:30} {statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")


if __name__ == "__main__":
    main()
