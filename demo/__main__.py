"""`python -m demo RECIPE`: draw a small dataset, make a small model, and launch the recipe on them.

The recipe does not know: it gets a --dataset_name, a --model_name_or_path and a --config, as from anybody.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from demo.worlds.build import DEMO, RECIPES, build

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__.splitlines()[0])
    parser.add_argument("recipe", choices=DEMO)
    recipe = parser.parse_args(arguments).recipe

    output = ROOT / "outputs" / "demo" / recipe
    dataset, checkpoint = output / "dataset", output / "untrained"
    if not (checkpoint / "config.json").is_file():  # written last
        print(f"drawing the dataset and making the model in {output}", flush=True)
        build(recipe, dataset, checkpoint)
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--config_file", "accelerate_configs/cpu.yaml", f"recipes/{RECIPES.get(recipe, recipe)}.py"]
    command += ["--dataset_name", dataset, "--model_name_or_path", checkpoint, "--output_dir", output]
    command += ["--config", f"demo/configs/{recipe}.yaml"]
    # Threads that wait asleep: on busy cores the default, waiting awake, made a step ten times slower.
    threads = {"OMP_NUM_THREADS": str(os.cpu_count()), "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.run(command, cwd=ROOT, env={**threads, **os.environ, "HF_HUB_OFFLINE": "1"}).returncode


if __name__ == "__main__":
    sys.exit(main())
