"""docs/measured.json: what each part gave, at which commit, on what, and what the files said that can move it."""

import hashlib
import json
import os
import platform
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from benchmarks.numbers.parts import Part
from benchmarks.numbers.sources import ROOT, digest, files_of, imports_of
from vlm_recipes.eval.report.page import replace_file

FILE = ROOT / "docs" / "measured.json"


def read() -> dict[str, dict[str, Any]]:
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}


def origin(part: Part) -> dict[str, Any]:
    """Where numbers come from that are measured now."""
    imports_of.cache_clear()
    digest.cache_clear()
    return {
        "command": " ".join(part.command),
        "commit": git("rev-parse", "--short", "HEAD"),
        "machine": machine(),
        "files": {source: digest(source) for source in files_of(*part.entries)},
    }


def keep(name: str, origin: dict[str, Any], numbers: dict[str, Any], seconds: float) -> None:
    """Put what a part gave into the file, beside what other processes put there."""
    with locked():
        _write(read() | {name: origin | {"seconds": round(seconds), "numbers": numbers}})


def _write(everything: dict[str, dict[str, Any]]) -> None:
    written = json.dumps(dict(sorted(everything.items())), indent=1, ensure_ascii=False)
    replace_file(FILE, f"{written}\n".encode())


def confirm(name: str, origin: dict[str, Any]) -> None:
    """Keep a part's numbers as of this commit and its files."""
    with locked():
        everything = read()
        everything[name] |= {"confirmed": origin["commit"], "files": origin["files"]}
        _write(everything)


def commit_of(kept: dict[str, Any]) -> str:
    """At which commit a number was measured, and at which a short run was the same."""
    return f"{kept['commit']} (the same at {kept['confirmed']})" if "confirmed" in kept else kept["commit"]


def locked() -> FileLock:
    """For whoever changes the file or the pages that are made of it; the lock itself lies elsewhere."""
    return FileLock(Path(tempfile.gettempdir(), f"{hashlib.sha256(str(FILE).encode()).hexdigest()}.lock"))


def changed(kept: dict[str, Any], part: Part) -> list[str]:
    """The files that can move a part's numbers and say something else than when it was measured."""
    now = {source: digest(source) for source in files_of(*part.entries)}
    before = kept["files"]
    return sorted(source for source in now.keys() | before.keys() if now.get(source) != before.get(source))


def uncommitted(part: Part) -> list[str]:
    """The part's files that differ from the last commit: their numbers would be of no commit."""
    return git("diff", "--name-only", "HEAD", "--", *files_of(*part.entries)).split()


def machine() -> str:
    """In words: cores, threads, memory, Python and PyTorch."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    threads = os.environ.get("OMP_NUM_THREADS", os.cpu_count())
    return (
        f"{os.cpu_count()} {platform.machine()} cores, {threads} thread{'' if str(threads) == '1' else 's'}, "
        f"{memory:.0f} GiB, Python {platform.python_version()}, PyTorch {torch.__version__.partition('+')[0]}"
    )


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
