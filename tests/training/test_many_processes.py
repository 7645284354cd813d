"""Each recipe in two processes, with the launch configs that users use, trains and answers as in one.

The slow ones took 9 min 16 s on two cores shared with others.
"""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.paths import ROOT
from tests.support.processes.launch import ddp, in_two_processes
from tests.support.processes.recipes import SINGLE, SINGLE_GPU, WORLDS, Run, launch, run_here

CONFIGS = ["ddp", "zero2", "zero3"]
LAUNCHES = [(recipe, config) for recipe in WORLDS for config in CONFIGS]
LAUNCHES += [("nutrition_tables", "zero3_offload")]  # at first it compiles DeepSpeed's Adam for the CPU: two minutes
TRAINED = re.compile("loss.*|grad_norm.*|learning_rate|eval_loss")
# TRL's own are means over rounds of all processes' batches, which are other means for one process.
OF_TRL = "entropy|mean_token_accuracy|num_tokens"
ANSWERED = re.compile(f"eval_(?!loss|{OF_TRL}|runtime|.*_per_second).*")
several_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs: on a CPU, FSDP becomes DDP")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Callable[[str], Path]:
    folders = {}

    def build(recipe: str) -> Path:
        if recipe not in folders:
            folders[recipe] = tmp_path_factory.mktemp(recipe)
            WORLDS[recipe](folders[recipe])
        return folders[recipe]

    return build


@pytest.fixture(scope="module")
def single(world) -> Callable[[str], Run]:
    """A recipe in one process, run once."""
    runs = {}

    def run(recipe: str) -> Run:
        if recipe not in runs:
            runs[recipe] = run_here(recipe, SINGLE, world(recipe), world(recipe) / SINGLE)
        return runs[recipe]

    return run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: weight for file in sorted(folder.glob("*.safetensors")) for name, weight in load_file(file).items()}


def agree(several: Run, one: Run) -> None:
    """Losses and norms to 1e-4, every other number of an evaluation and every answer exactly."""
    assert (several.processes, one.processes) == (2, 1)
    losses = [entry["loss"] for entry in one.log if "loss" in entry]
    assert len(losses) == 5 and losses[4] < losses[0] and one.log[-1]["epoch"] > 1  # an epoch ends among them
    for entry, expected in zip(several.log, one.log, strict=True):
        for name, value in expected.items():
            if TRAINED.fullmatch(name):
                assert entry[name] == pytest.approx(value, rel=1e-4, abs=1e-6), (name, entry["step"])
            elif ANSWERED.fullmatch(name):
                assert entry[name] == value, (name, entry["step"])
    assert several.results == one.results
    assert several.predictions == one.predictions
    assert len({str(row["prediction"]) for row in one.predictions}) > 1
    saved, expected = weights(several.folder), weights(one.folder)
    assert {name: weight.shape for name, weight in saved.items()} == {name: w.shape for name, w in expected.items()}
    # All together: Adam makes steps of the rounding in a gradient that is zero, such as that of a key's bias.
    apart = torch.nn.utils.get_total_norm([saved[name] - expected[name] for name in expected])
    assert apart < 1e-3 * torch.nn.utils.get_total_norm(expected.values())


def test_the_last_step_of_an_epoch_is_filled_with_the_rows_that_the_epoch_began_with():
    """accelerate's way: five rows in steps of two a process, so that the second step lacks three."""
    results = ddp("rows_seen")
    assert [result["seen"] for result in results] == [[0, 1, 4, 0], [2, 3, 1, 2]]
    assert [result["steps"] for result in results] == [2, 2]


def test_the_launch_config_starts_two_processes_that_know_each_other(tmp_path):
    """Of a script that imports nothing large; what a recipe makes of such processes, those below show."""
    told = "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT".split()
    script = "import json, os, sys\nopen(sys.argv[1] + os.environ['RANK'], 'w').write(\n"
    script += f"    json.dumps({{name: os.environ[name] for name in {told}}}))\n"
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/ddp.yaml"]
    command += ["--mixed_precision", "no", "--main_process_port", "0", tmp_path / "script.py", tmp_path / "rank "]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    ranks = [json.loads((tmp_path / f"rank {rank}").read_text()) for rank in (0, 1)]
    assert [[rank[name] for name in told[:4]] for rank in ranks] == [["0", "0", "2", "2"], ["1", "1", "2", "2"]]
    assert ranks[0]["MASTER_PORT"] == ranks[1]["MASTER_PORT"] != "0"


def test_two_forked_processes_train_and_answer_as_one_does(world, single):
    """With what a launcher tells the two; they are forked, for imports take longer than all the rest."""
    folder = world("nutrition_tables") / "forked"
    in_two_processes(run_here, "nutrition_tables", "ddp", world("nutrition_tables"), folder)
    agree(Run(folder), single("nutrition_tables"))


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "config"), LAUNCHES, ids="-".join)
def test_two_processes_train_and_answer_as_one_does(recipe, config, world, single):
    agree(launch(recipe, config, world(recipe), world(recipe) / config), single(recipe))


@pytest.mark.slow
@pytest.mark.parametrize("config", ["multinode_ddp", "multinode_zero3"])
def test_two_machines_train_and_answer_as_one_process_does(config, world, single):
    """Two launchers, which meet at an address of this machine, 127.0.0.2, that is not the default."""
    with socket.socket() as free:
        free.bind(("127.0.0.2", 0))
        port = free.getsockname()[1]
    meeting = ["--num_machines", "2", "--main_process_ip", "127.0.0.2", "--main_process_port", str(port)]
    launchers = [[*meeting, "--machine_rank", str(rank)] for rank in (1, 0)]
    folder = world("nutrition_tables")
    agree(launch("nutrition_tables", config, folder, folder / config, *launchers), single("nutrition_tables"))


@several_gpus
@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["nutrition_tables", "kvasir_vqa", "vqa_rad", "visual_chat"])
def test_fsdp2_trains_and_answers_as_one_process_does(recipe, world, tmp_path):
    script = (str(ROOT / "tests/support/processes/kind.py"), str(tmp_path / "kind"))
    several = launch(recipe, "fsdp2", world(recipe), tmp_path / "fsdp2", script=script)
    assert (tmp_path / "kind").read_text() == "FSDP"
    agree(several, launch(recipe, SINGLE_GPU, world(recipe), tmp_path / "one"))
