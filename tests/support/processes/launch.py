"""Launches a script, `checks.py` by default, in two processes on the CPU and reads what each of them wrote."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tests.support import tiny
from tests.support.paths import ROOT

TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def run(
    launcher: list[str], checks: list[str], script: str = "checks.py", checkpoints: tuple[Path, ...] | None = None
) -> dict[str, list[Any]]:
    """Check -> its result in each of the processes, which find the `checkpoints` in their folder.

    Args:
        script: a file in this folder, or the path of another.
    """
    with tempfile.TemporaryDirectory() as folder:
        for checkpoint in checkpoints or (tiny.trained_qwen2_vl(), tiny.trained_blip2(), *tiny.lisa()):
            Path(folder, checkpoint.name).symlink_to(checkpoint)
        process = subprocess.Popen(
            [sys.executable, "-m", *launcher, str(Path(__file__).parent / script), folder, *checks],
            env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=300)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # the launcher alone would leave its workers behind
        assert process.returncode == 0, output[-5000:]
        return {
            check: [json.loads(Path(folder, f"{check}.{rank}.json").read_text()) for rank in (0, 1)]
            for check in checks
        }


@cache
def ddp() -> dict[str, list[Any]]:
    """All checks under DDP; launched once for the tests of all files."""
    return run(TORCHRUN, ["grad_norms", "sharded_grad_norms", "answers", "token_mean", "mask_losses", "image_losses"])


@cache
def deepspeed(stage: int) -> dict[str, list[Any]]:
    """The checks that ZeRO could fail, with the accelerate config that users use."""
    config = str(ROOT / "accelerate_configs" / f"zero{stage}.yaml")
    launcher = ["accelerate.commands.launch", "--config_file", config, "--mixed_precision", "no"]
    checks = ["grad_norms", "answers", "mask_losses", "image_losses"]
    return run([*launcher, "--main_process_port", "0"], checks)
