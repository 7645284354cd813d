"""Whether a number stands after a change of code: `python -m benchmarks.numbers --confirm [PART …]`.

On one machine a demo gives the same digits each time. So a short run of it is made twice, with the code of the commit
that its number is of and with today's: its world drawn anew, a few epochs of few rows, four evaluations, a test. Where
each loss, rate, gradient norm and weight, each answer and each score is the same to the last digit, the number is kept
as of today's files. A time, another setting and another version of a library are told by no short run.
"""

import atexit
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.numbers import measured
from benchmarks.numbers.parts import Part
from benchmarks.numbers.sources import ROOT

SHORT = {"max_train_rows": 200, "max_validation_rows": 100, "max_test_rows": 100, "eval_rows": 40}
SHORT |= {"max_steps": 24, "eval_steps": 6, "save_steps": 6, "warmup_steps": 6, "logging_steps": 1}
TIMES = re.compile(r"\w*(runtime|_per_second)")


@dataclass(frozen=True)
class Code:
    """A commit, which is another's equal where the files that can move a number say the same."""

    commit: str = field(compare=False)
    files: tuple[tuple[str, str], ...]


def refuted(name: str, part: Part) -> str:
    """Why a part's number has to be measured again; empty where it stands, which is kept then."""
    kept = measured.read().get(name)
    if kept is None:
        return "not measured yet"
    files = measured.changed(kept, part)
    other = [file for file in files if not file.endswith(".py") or file.startswith("benchmarks/")]
    if other or not part.told_by:
        return f"{', '.join(other) or 'a time'}: no short run tells"
    if fresh := measured.uncommitted(part):
        return f"commit {', '.join(fresh)} first"
    origin = measured.origin(part)
    before = Code(kept.get("confirmed", kept["commit"]), tuple(kept["files"].items()))
    now = Code(origin["commit"], tuple(origin["files"].items()))
    for demo, *settings in part.told_by:
        difference = first_difference(left_at(before, demo, *settings), left_at(now, demo, *settings))
        if difference:
            return f"{before.commit} and {now.commit} differ: {difference}"
    measured.confirm(name, origin)
    return ""


@cache
def left_at(code: Code, demo: str, *settings: str) -> dict[str, Any]:
    """What a short run of a demo with this code leaves: by step and name, and each file's digest."""
    short = [word for name, value in SHORT.items() for word in (f"--{name}", str(value))]
    root = checked_out(code.commit)
    command = [sys.executable, "-m", "demo", demo, *short, *settings, "--overwrite_output_dir", "true"]
    paths = {"PYTHONPATH": f"{root / 'installed'}{os.pathsep}{root}"}
    done = subprocess.run(command, cwd=root, env=os.environ | paths, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: {demo} at {code.commit} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    output = root / "outputs" / "demo" / demo
    log = json.loads((output / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    files = [output / "predictions.jsonl", output / "results.json", *sorted(output.glob("*.safetensors"))]
    by_step = {
        f"step {entry['step']}, {key}": value
        for entry in log
        for key, value in entry.items()
        if not TIMES.fullmatch(key)
    }
    return by_step | {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@cache
def checked_out(commit: str) -> Path:
    """The project as of a commit, until this process ends; what is imported from `installed` there is its packages."""
    packed = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True)
    if packed.returncode:
        sys.exit(f"error: {commit} is not to be had here: {packed.stderr.decode().strip()}")
    folder = Path(tempfile.mkdtemp(prefix=f"vlm-recipes-{commit}-"))
    atexit.register(shutil.rmtree, folder)
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as files:
        files.extractall(folder, filter="data")
    packages = folder / "installed" / "vlm_recipes"
    packages.mkdir(parents=True)
    for package in folder.glob("*/__init__.py"):
        (packages / package.parent.name).symlink_to(package.parent)
    return folder


def first_difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Where two runs differ first, with both values; empty where they are the same."""
    for name in dict.fromkeys([*before, *now]):
        if before.get(name) != now.get(name):
            return f"{name} {before.get(name)} and {now.get(name)}"
    return ""
