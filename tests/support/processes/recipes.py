"""Each recipe on a few drawn rows and a tiny checkpoint, in this process or launched as a user does."""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trl import TrlParser

from demo.worlds.small import build
from recipes import vqa_rad
from tests.support.paths import ROOT
from tests.support.tiny import learn
from vlm_recipes.collators import ChatCollator, Seq2SeqCollator


def learned_radiology(folder: Path) -> None:
    """The model has learnt a little, for untrained it is silent."""
    build("vqa_rad", folder, images=12)
    rows = json.loads(next((folder / "data").glob("*.json")).read_text())
    rows = [row | {"prompt": vqa_rad.prompt(row["question"].strip())} for row in rows[:16]]
    shown = [row | {"image": str(folder / "data" / "images" / row["image_name"])} for row in rows]
    untrained = (folder / "model").rename(folder / "untrained")
    learn(untrained, folder / "model", Seq2SeqCollator, shown, steps=40, learning_rate=5e-3)


def odd_scenes(folder: Path) -> None:
    """One training picture has nothing to be drawn, and another nothing but what does not count."""
    build("reasonseg", folder, train=3, val=1, test=1)
    for number, shapes in enumerate([[], [{"label": "ignore", "points": [[0, 0], [9, 0], [9, 9]]}]]):
        path = folder / "data" / "train" / f"0000{number}_0.json"
        path.write_text(json.dumps({**json.loads(path.read_bytes().decode("cp1252")), "shapes": shapes}))


def learned_album(folder: Path) -> None:
    """Here, too."""
    build("visual_chat", folder, train=12, test=2)
    lines = (folder / "data" / "train" / "metadata.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[:16]]
    shown = [row | {"images": [str(folder / "data/train" / name) for name in row["file_names"]]} for row in rows]
    untrained = (folder / "model").rename(folder / "untrained")
    learn(untrained, folder / "model", ChatCollator, shown, steps=60, learning_rate=5e-3)


WORLDS: dict[str, Callable[[Path], object]] = {
    "nutrition_tables": lambda folder: build("nutrition_tables", folder, train=20, val=3),
    "kvasir_vqa": lambda folder: build("kvasir_vqa", folder, images=7),
    "vqa_rad": learned_radiology,
    "reasonseg": odd_scenes,
    "ssg_vqa": lambda folder: build("ssg_vqa", folder, frames={"train": 3, "validation": 1, "test": 1}),
    "visual_chat": learned_album,
}

SINGLE, SINGLE_GPU = "cpu", "a100_40gb"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
SETTINGS = {
    "per_device_train_batch_size": 2,
    "max_steps": 5,
    "learning_rate": 0.01,
    "warmup_steps": 0,
    "logging_steps": 1,
    "eval_strategy": "steps",
    "eval_steps": 4,
    "save_strategy": "steps",
    "save_steps": 4,
    "per_device_eval_batch_size": 2,
    "dataloader_num_workers": 0,
    "dataloader_pin_memory": "false",
    "disable_tqdm": "true",
    "lora_dropout": 0,
}
# Steps, and rounds of an evaluation, come out even: else accelerate would fill them with rows seen before.
OWN_SETTINGS = {
    "nutrition_tables": {
        "validation_fraction": 0.4,
        "min_pixels": 12544,
        "max_pixels": 18816,
        "max_new_tokens": 20,
    },
    "kvasir_vqa": {
        "questions_per_row": 3,
        "per_device_train_batch_size": 12,
        "min_pixels": 12544,
        "max_pixels": 12544,
        "max_new_tokens": 12,
    },
    "vqa_rad": {
        "questions_per_row": 2,
        "per_device_train_batch_size": 10,
        "per_device_eval_batch_size": 1,
        "load_in_8bit": "false",
        "max_new_tokens": 8,
    },
    "reasonseg": {"sam_name_or_path": "{world}/model/sam", "per_device_train_batch_size": 8, "max_new_tokens": 8},
    "ssg_vqa": {
        "videos": "{world}/data/videos.yaml",
        "per_device_train_batch_size": 20,
        "per_device_eval_batch_size": 1,
        "max_new_tokens": 4,
    },
    "visual_chat": {  # four of six pairs of pictures are trained on, with five conversations each
        "validation_fraction": 0.33,
        "per_device_train_batch_size": 5,
        "per_device_eval_batch_size": 1,
        "min_pixels": 12544,
        "max_pixels": 12544,
        "max_new_tokens": 12,
    },
}


@dataclass
class Run:
    """What a run left: its log by step, its results by split, and its predictions by split and id."""

    folder: Path

    @property
    def log(self) -> list[dict[str, float]]:
        return json.loads((self.folder / "trainer_state.json").read_text())["log_history"]

    @property
    def results(self) -> dict[str, dict[str, float]]:
        return json.loads((self.folder / "results.json").read_text())

    @property
    def predictions(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "predictions.jsonl").read_text().splitlines()]

    @property
    def processes(self) -> int:
        return json.loads((self.folder / "run.json").read_text())["processes"]


def arguments(recipe: str, config: str, world: Path, output: Path) -> list[str]:
    """A recipe's own; a single process takes at each step as many batches as there would be processes."""
    settings = {**SETTINGS, **OWN_SETTINGS[recipe], "output_dir": output}
    settings |= {"dataset_name": world / "data", "model_name_or_path": world / "model"}
    settings |= {"gradient_accumulation_steps": 2 if config in (SINGLE, SINGLE_GPU) else 1}
    if "zero" in config:
        settings |= {"ddp_backend": "gloo"}  # with use_cpu accelerate would take DDP
    elif config not in ("fsdp2", SINGLE_GPU):
        settings |= {"use_cpu": "true"}
    return [part for key, value in settings.items() for part in (f"--{key}", str(value).format(world=world))]


def run_here(recipe: str, config: str, world: Path, output: Path) -> Run:
    """A recipe in this process, with the arguments that it has under the config."""
    module = importlib.import_module(f"recipes.{recipe}")
    parser = TrlParser((module.Data, module.Training, module.Model))
    module.main(*parser.parse_args_and_config(arguments(recipe, config, world, output)))
    return Run(output)


def launch(recipe: str, config: str, world: Path, output: Path, *launchers: list[str], script: tuple = ()) -> Run:
    """A recipe as users launch it, once with each of the `launchers`' options, which run at the same time.

    Args:
        script: a file, and its first arguments, that runs the recipe.
    """
    started = []
    output.mkdir()
    try:
        for number, options in enumerate(launchers or [["--main_process_port", "0"]]):
            command = [sys.executable, "-m", "accelerate.commands.launch"]
            command += ["--config_file", f"accelerate_configs/{config}.yaml", "--mixed_precision", "no", *options]
            command += [*script, f"recipes/{recipe}.py", *arguments(recipe, config, world, output)]
            with (output / f"launcher-{number}.log").open("w") as log:
                started.append(
                    subprocess.Popen(
                        command, env=ENVIRONMENT, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
                    )
                )
        codes = [launcher.wait(timeout=300) for launcher in started]
    finally:
        for launcher in started:
            if launcher.poll() is None:
                os.killpg(launcher.pid, signal.SIGKILL)  # the launcher alone would leave its processes behind
    assert not any(codes), "\n".join(log.read_text()[-4000:] for log in sorted(output.glob("launcher-*.log")))
    return Run(output)
