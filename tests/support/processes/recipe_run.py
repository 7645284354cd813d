"""A recipe's file, run as a user runs it, in processes that a test may kill."""

import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm

from tests.support.paths import ROOT

PATIENCE = 300  # seconds; a loaded machine is slow
TIMES = ("_runtime", "_per_second")


class RecipeRun:
    """The recipe with `arguments`, forked, for imports take longer than all the rest.

    It leads a process group, as under a shell.
    """

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
        # Processes share tqdm's own lock, of which subclasses may keep a copy; one that is killed may hold it.
        bars, lock = [tqdm], threading.RLock()
        for bar in bars:
            bar.set_lock(lock)
            bars += bar.__subclasses__()
        sys.argv = self.command
        runpy.run_path(self.command[0], run_name="__main__")

    @property
    def is_alive(self) -> bool:
        return self.process.is_alive()

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Look again and again, each millisecond, whether the condition holds while the process runs."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert self.is_alive and time.monotonic() < end, self.text
            time.sleep(0.001)

    def wait_for_step(self, step: int) -> None:
        """Until it has printed so many losses of its own."""
        self.wait_until(lambda: self.text.count(": loss ") >= step)

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


class LaunchedRun(RecipeRun):
    """The recipe under `accelerate launch` with one of our configs, at the head of a session of its own."""

    def __init__(self, recipe: str, output_dir: Path, config: str, *arguments: str):
        self.output_dir, self.printed = output_dir, output_dir.with_suffix(".txt")
        launcher = ["-m", "accelerate.commands.launch", "--config_file", f"accelerate_configs/{config}.yaml"]
        launcher += ["--mixed_precision", "no", "--main_process_port", "0"]
        recipe_arguments = [f"recipes/{recipe}.py", "--output_dir", str(output_dir), *arguments]
        with self.printed.open("w") as printed:
            self.process = subprocess.Popen(
                [sys.executable, *launcher, *recipe_arguments],
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                cwd=ROOT,
                stdout=printed,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def rank(self, number: int) -> int:
        """The process id of one of the processes that the launcher started."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                environment = (folder / "environ").read_bytes().split(b"\0")
            except (OSError, IndexError):  # it has just ended
                continue
            if parent == self.process.pid and f"LOCAL_RANK={number}".encode() in environment:
                return int(folder.name)
        raise AssertionError(f"no rank {number}:\n{self.text}")

    def end(self) -> int:
        try:
            return self.process.wait(PATIENCE)
        finally:
            if self.is_alive:
                self.process.terminate()  # the launcher ends those that it started
                self.process.wait(PATIENCE)
