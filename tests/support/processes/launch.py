"""Runs checks in two processes on the CPU, forked from this one or under a launcher, and returns what each found."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import multiprocessing

from tests.support.paths import ROOT
from tests.support.processes import checks
from vlm_recipes.training.launch import leave_processes

PATIENCE = 300  # seconds


def _forked(rank: int, number: int, port: int, folder: Path, check: Callable[..., Any], arguments: tuple) -> None:
    # As torchrun sets them.
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(number), LOCAL_WORLD_SIZE=str(number))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    # A listener of the test's own process would have blocked them, as for a worker of a data loader.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    AcceleratorState._reset_state(reset_partial_state=True)  # that of the test's own process
    GradientState._reset_state()
    PartialState(cpu=True)
    torch.save(check(*arguments), folder / f"result.{rank}")
    leave_processes()


def in_two_processes(check: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `check(*arguments)` returns in each of two processes, see `in_processes`."""
    return in_processes(2, check, *arguments)


def in_processes(number: int, check: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `check(*arguments)` returns in each of so many processes, as under `torchrun --nproc_per_node`.

    They are forked: a launcher's would take ten seconds for imports. An error of either is raised here.
    """
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        given, end = (number, port, Path(folder), check, arguments), time.monotonic() + PATIENCE
        forked = multiprocessing.start_processes(_forked, given, nprocs=number, join=False, start_method="fork")
        try:
            while not forked.join(1):
                assert time.monotonic() < end, "still running"
        finally:
            for process in forked.processes:
                process.kill()
        return [torch.load(Path(folder, f"result.{rank}"), weights_only=False) for rank in range(number)]


@cache
def ddp(check: str) -> list[Any]:
    """One of `checks.py` under DDP."""
    checks.write_checkpoints()
    with tempfile.TemporaryDirectory() as folder:
        return in_two_processes(getattr(checks, check), Path(folder))


@cache
def _deepspeed(stage: int) -> dict[str, list[Any]]:
    checks.write_checkpoints()
    with tempfile.TemporaryDirectory() as folder:
        config = str(ROOT / "accelerate_configs" / f"zero{stage}.yaml")
        launcher = ["accelerate.commands.launch", "--config_file", config, "--mixed_precision", "no"]
        launcher += ["--main_process_port", "0", checks.__file__, folder]
        process = subprocess.Popen(
            [sys.executable, "-m", *launcher],
            env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=PATIENCE)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # the launcher alone would leave its workers behind
        assert process.returncode == 0, output[-5000:]
        ranks = [json.loads(Path(folder, f"results.{rank}.json").read_text()) for rank in (0, 1)]
        return {check: [results[check] for results in ranks] for check in ranks[0]}


def deepspeed(stage: int, check: str) -> list[Any]:
    """One of the checks that ZeRO could fail, launched together with the accelerate config that users use."""
    return _deepspeed(stage)[check]
