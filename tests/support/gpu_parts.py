"""Parts of a check that end in every way a part can end, and machines that do them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def gpu() -> dict:
    return {"device": "a drawn GPU", "GB": 80.0, "versions": {"torch": "0"}, "commit": None}


def no_gpu() -> dict:
    return gpu() | {"device": "a CPU", "GB": None}


def no_machine() -> dict:
    os._exit(3)


def measures(toy: bool, what: str) -> list[dict]:
    so_far = json.loads(Path(os.environ["OUT"], "gpu.json").read_text())["parts"]
    return [{"what": what, "toy": toy, "process": os.getpid(), "parts before": len(so_far), "s/step": 0.125}]


def fails(toy: bool) -> list[dict]:
    raise ValueError("of two lines,\nof which the last says why")


def ends_by_a_line(toy: bool) -> list[dict]:
    sys.exit("error: name another dataset")


def finds_wrong_rows(toy: bool) -> list[dict]:
    yield from [{"what": "right"}, {"what": "wrong"}]
    raise ValueError("one of two is wrong")


def returns_what_is_no_row(toy: bool) -> list[dict]:
    return [{"what": Path("/")}]


def hangs(toy: bool) -> list[dict]:
    """With a process that it has started, whose id goes to a file beside its own."""
    yield {"what": "came in time"}
    sleeper = subprocess.Popen(["sleep", "600"])
    Path(os.environ["OUT"], "hanging").write_text(f"{os.getpid()} {sleeper.pid}")
    print("half a line that a killed part has said", end="")
    print(" is seen")
    time.sleep(600)


def dies(toy: bool) -> list[dict]:
    """And leaves a process that holds its end of the pipe."""
    if not os.fork():
        time.sleep(600)
    os.kill(os.getpid(), signal.SIGKILL)
    return []
