"""A recipe's file, run as a user runs it, in a process that a test may kill. Forked, for importing takes longer."""

import json
import multiprocessing
import os
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
PATIENCE = 300  # seconds; a loaded machine is slow
TIMES = ("_runtime", "_per_second")


class RecipeRun:
    """The recipe with `arguments`, its output in `output_dir`; it leads a process group, as under a shell."""

    def __init__(self, recipe: str, output_dir: Path, *arguments: str):
        self.output_dir, self.printed = output_dir, output_dir.with_suffix(".txt")
        self.command = [f"recipes/{recipe}.py", "--output_dir", str(output_dir), *arguments]
        self.process = multiprocessing.get_context("fork").Process(target=self._run)
        self.process.start()

    def _run(self) -> None:
        os.setpgid(0, 0)
        os.chdir(ROOT)
        sys.stdout = sys.stderr = self.printed.open("w", buffering=1)
        for number in (1, 2):
            os.dup2(sys.stdout.fileno(), number)
        torch.set_num_threads(1)  # a pool of threads does not survive a fork
        sys.argv = self.command
        runpy.run_path(self.command[0], run_name="__main__")

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Look again and again, each millisecond, whether the condition holds while the process runs."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.is_alive() and time.monotonic() < end, self.text
            time.sleep(0.001)

    def wait_for_step(self, step: int) -> None:
        """Until it has printed so many losses of its own."""
        self.wait_until(lambda: self.text.count("{'loss'") >= step)

    def signal(self, number: int) -> None:
        """To the whole process group, workers included, as a terminal and SLURM do."""
        os.killpg(self.process.pid, number)

    def end(self) -> int:
        """Wait for the end; its exit status, negative for a signal."""
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            raise AssertionError(f"still running:\n{self.text[-3000:]}")
        return self.process.exitcode

    @property
    def text(self) -> str:
        return self.printed.read_text(errors="replace") if self.printed.exists() else ""

    @property
    def log(self) -> list[dict]:
        """What was logged at each step, but for how long it took."""
        log = json.loads((self.output_dir / "trainer_state.json").read_text())["log_history"]
        return [
            {name: value for name, value in entry.items() if not name.endswith(TIMES)}
            for entry in log
            if "train_loss" not in entry  # the mean over the steps of the last start alone
        ]

    @property
    def weights(self) -> bytes:
        [file] = [file for file in self.output_dir.glob("*model.safetensors")]
        return file.read_bytes()
