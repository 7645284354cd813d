"""`python -m demo RECIPE`: draw a small dataset, make a small model, and launch the recipe on them.

The recipe does not know: it gets a --dataset_name, a --model_name_or_path and a --config, as from anybody.
"""

import argparse
import os
import subprocess
import sys
from math import prod
from pathlib import Path

import yaml
from safetensors import safe_open
from transformers.utils.logging import disable_progress_bar

from demo.worlds.build import DEMO, RECIPES, build

ROOT = Path(__file__).resolve().parent.parent
LEARNT = {
    "nutrition_tables": "to find the nutrition tables on packages of food",
    "kvasir_vqa": "to answer questions about endoscopy images, each by its type",
    "vqa_rad": "to answer questions about radiology images in words of its own",
    "reasonseg": "to draw the mask of what a question asks for",
    "ssg_vqa": "to answer questions about operations with one of 51 labels",
    "visual_chat": "to talk about one picture or two over several turns",
    "coco": "to find figures of three kinds, asked in words of one's own",
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__.splitlines()[0])
    parser.epilog = "Further arguments are settings of the recipe, such as --seed 1."
    parser.add_argument("recipe", choices=DEMO)
    parser.add_argument("--output_dir", type=Path, help="default: outputs/demo/RECIPE, where data and model lie")
    args, more = parser.parse_known_args(arguments)

    recipe, world = args.recipe, ROOT / "outputs" / "demo" / args.recipe
    output, dataset, checkpoint = args.output_dir or world, world / "dataset", world / "untrained"
    if not (checkpoint / "config.json").is_file():  # written last
        print(f"drawing the dataset and making the model in {world}", flush=True)
        disable_progress_bar()  # of weights that are written in a moment
        build(recipe, dataset, checkpoint)
    print(first_look(recipe, world, output), flush=True)
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--config_file", "accelerate_configs/cpu.yaml", f"recipes/{RECIPES.get(recipe, recipe)}.py"]
    command += ["--dataset_name", dataset, "--model_name_or_path", checkpoint, "--output_dir", output]
    command += ["--config", f"demo/configs/{recipe}.yaml", *more]
    # Threads that wait asleep: on busy cores the default, waiting awake, made a step ten times slower.
    threads = {"OMP_NUM_THREADS": str(os.cpu_count()), "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.run(command, cwd=ROOT, env={**threads, **os.environ, "HF_HUB_OFFLINE": "1"}).returncode


def first_look(recipe: str, world: Path, output: Path) -> str:
    """What will be learnt, from what, in how long, and where to look meanwhile."""
    pictures = sum(file.suffix in (".png", ".jpg") for file in (world / "dataset").rglob("*"))
    size = sum(map(weights_in, (world / "untrained").rglob("*.safetensors")))
    config = yaml.safe_load((ROOT / "demo" / "configs" / f"{recipe}.yaml").read_text(encoding="utf-8"))
    steps, batch = config["max_steps"], config["per_device_train_batch_size"]
    return f"""
a model of {size / 1e6:.1f} million random weights learns {LEARNT[recipe]}
from what      {pictures:,} drawn pictures, in {world / "dataset"}: {steps:,} steps of {batch} examples
in how long    measured on this machine before the first step (below: "longest batch"), and said anew with each line
where to look  {output / "report.html"}, from the first evaluation on; it reloads itself while the model trains
"""


def weights_in(file: Path) -> int:
    """How many numbers the tensors of a file have; none of them is read."""
    with safe_open(file, "pt") as tensors:
        return sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118


if __name__ == "__main__":
    sys.exit(main())
