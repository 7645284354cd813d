"""The recipes on their small worlds, on the GPU beside the CPU: a part of `python -m benchmarks.gpu`.

Each recipe is launched as its user would, in bfloat16, and in 4 or 8 bits where it uses them: preflight, 20 steps with
two evaluations and checkpoints, the evaluation at the end. From the checkpoint in the middle it is launched once more.
Beside it the same in float32 on the CPU, with the same bits. Without a GPU the CPU itself computes in bfloat16; a toy
run takes 4 steps, in each recipe's fewest bits alone.

How far losses may be apart, as a share of the loss, is set by what bfloat16 costs on a CPU: at most .1 % in any of 20
steps, and .4 % with fewer bits. Ten and five times that are allowed, for a GPU adds up in another order. Learning
makes the loss 10 to 26 % smaller in these steps, so that a gradient which is missing, or of another scale, is out of
bounds. A run that goes on from its checkpoint had its own losses to .03 %, and .4 % or more apart where its optimizer
began anew: .2 % is allowed.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from demo.worlds.small import SIZES, build

ROOT = Path(__file__).parents[1]
STEPS, TOY_STEPS = 20, 4
BITS = {"nutrition_tables": "4", "kvasir_vqa": "4", "vqa_rad": "8", "reasonseg": "4", "visual_chat": "4"}
APART, QUANTISED_APART, RESUMED_APART = 0.01, 0.02, 0.002
# Without dropout, whose random numbers are others on a GPU, and at a rate at which 20 steps learn something.
ARGUMENTS = """--lora_dropout 0 --learning_rate 1e-3 --warmup_steps 0 --per_device_train_batch_size 2
--gradient_accumulation_steps 2 --logging_steps 1 --eval_strategy steps --save_strategy steps --save_total_limit 2
--max_new_tokens 8 --dataloader_num_workers 1 --disable_tqdm true""".split()


class FailedRun(Exception):
    """A launch did not come to its end; the message is what it ended with."""


@dataclass
class Run:
    """What one launch left."""

    output: Path
    seconds: float

    @property
    def losses(self) -> dict[int, float]:
        """By step."""
        log = json.loads((self.output / "trainer_state.json").read_text())["log_history"]
        return {entry["step"]: entry["loss"] for entry in log if "loss" in entry}

    @property
    def megabytes(self) -> float:
        """What the preflight says that a step takes."""
        checks = json.loads((self.output / "preflight.json").read_text())
        return next(check["numbers"]["gib"] for check in checks if check["name"] == "longest batch") * 2**30 / 1e6

    def apart(self, other: "Run", after: int = 0) -> float:
        """The largest difference of two losses of the same step, as a share of the other's."""
        own, others = self.losses, other.losses
        assert own.keys() == others.keys(), f"{self.output}: losses of steps {list(own)}, not {list(others)}"
        shares = [abs(own[step] / others[step] - 1) for step in own if step > after]
        return max(shares) if all(map(math.isfinite, shares)) else math.inf


@dataclass(frozen=True)
class World:
    """A recipe in one format; `arguments` name its data, its model and its bits."""

    recipe: str
    bits: str
    folder: Path
    arguments: list[str]
    steps: int

    @property
    def name(self) -> str:
        return f"{self.recipe}, {f'{self.bits} bits' if self.bits else 'bf16'}"

    def launch(self, name: str, *more: str, on_cpu: bool = False) -> Run:
        """Raise `FailedRun` after what it printed last."""
        output = self.folder / f"{self.name}, {name}"
        config = ["cpu.yaml"] if on_cpu else ["h100_80gb.yaml"]
        if not on_cpu and not torch.cuda.is_available():
            config = ["cpu.yaml", "--mixed_precision", "bf16"]
        command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
        command += [f"accelerate_configs/{config[0]}", *config[1:], f"recipes/{self.recipe}.py"]
        command += [*self.arguments, *ARGUMENTS, *more, "--output_dir", str(output)]
        command += ["--dtype", "float32" if on_cpu else "bfloat16", "--max_steps", str(self.steps)]
        command += ["--eval_steps", str(self.steps // 2), "--save_steps", str(self.steps // 2)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({"CUDA_VISIBLE_DEVICES": ""} if on_cpu else {})
        began = time.monotonic()
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace")
        if ended.returncode:
            own = ended.stderr.rpartition("Traceback (most recent call last)")[0]  # after it the launcher's
            print(f"--- {self.name}, {name}\n{ended.stdout[-1000:]}{own[-3000:]}", flush=True)
            raise FailedRun(f"{name}: {(own.strip().splitlines() or ['it failed'])[-1]}")
        print(f"{self.name}, {name}: {time.monotonic() - began:.0f} s", flush=True)
        return Run(output, time.monotonic() - began)

    def launch_twice(self) -> tuple[Run, Run]:
        """From the beginning and from the checkpoint in the middle."""
        first = self.launch("whole")
        assert (first.output / "results.json").is_file(), f"{first.output} has no results.json"
        checkpoint = first.output / f"checkpoint-{self.steps // 2}"
        return first, self.launch("resumed", "--resume_from_checkpoint", str(checkpoint))


def row_of(world: World, launched: Any, reference: Any) -> dict[str, Any]:
    """What the three runs say, "ok" or what is wrong last; they are futures."""
    try:
        (own, resumed), cpu = launched.result(), reference.result()
    except FailedRun as failed:
        return {"what": world.name, "verdict": str(failed)}
    allowed = QUANTISED_APART if world.bits else APART
    apart, resumed_apart = own.apart(cpu), resumed.apart(own, after=world.steps // 2)
    wrong = [f"{apart:.2%} from the CPU's losses, {allowed:.1%} allowed"] if not apart <= allowed else []
    if not resumed_apart <= RESUMED_APART:
        wrong.append(f"resumed, {resumed_apart:.2%} from its own losses, {RESUMED_APART:.1%} allowed")
    return {
        "what": world.name,
        "first loss": own.losses[1],
        "last loss": own.losses[world.steps],
        "the CPU's": cpu.losses[world.steps],
        "% apart": 100 * apart,
        "% resumed": 100 * resumed_apart,
        "MB": own.megabytes,
        "s": own.seconds,
        "verdict": "; ".join(wrong) or "ok",
    }


def measure(toy: bool) -> Iterator[dict[str, Any]]:
    """A row for each recipe and format; raises `ValueError` after the last where losses are out of bounds."""
    with tempfile.TemporaryDirectory() as path:
        worlds = []
        for recipe in SIZES:
            folder, bits = Path(path, recipe), BITS.get(recipe, "")
            arguments = build(recipe, folder)
            for each in [bits] if toy or not bits else ["", bits]:
                own = [*arguments, *([f"--load_in_{bits}bit", "true"] if each else [])]
                worlds.append(World(recipe, each, folder, own, TOY_STEPS if toy else STEPS))
        with ThreadPoolExecutor(2 * os.cpu_count()) as cores:  # a run waits for its GPU or reads files half its time
            launched = [cores.submit(world.launch_twice) for world in worlds]
            references = [cores.submit(world.launch, "CPU", on_cpu=True) for world in worlds]
            wrong = []
            for runs in zip(worlds, launched, references, strict=True):
                yield (row := row_of(*runs))
                wrong += [f"{row['what']}: {row['verdict']}"] if row["verdict"] != "ok" else []
    if wrong:
        raise ValueError("; ".join(wrong))
