"""Parts of a check, one after the other, in a process of their own that a part may break, kill or outstay.

Nothing here imports torch: whoever watches the parts has neither their memory nor their faults.
"""

import faulthandler
import json
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from os import environ, kill, killpg, setpgid
from typing import Any

START = 90  # seconds that a new process may take to import what it needs and find its device
LEAVE = 5  # seconds to end in
GLANCE = 0.2  # seconds between two looks whether the process still lives
# Where nothing can be downloaded nothing is tried; threads that wait awake slow each other down on shared cores.
QUIETLY = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_WAIT_POLICY": "PASSIVE"}


@dataclass(frozen=True)
class Part:
    """Something to measure: `measure`, a "module:function", is called with `toy` and the `arguments`.

    It yields rows for a table, each of which is seen and kept as it comes, and raises where something is wrong.
    """

    name: str
    measure: str
    limit: float  # seconds
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came of a part: "done", "failed", "out of time" or "not run", and why."""

    name: str
    status: str
    why: str = ""
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.name}: {self.status}, {self.seconds:.0f} s{': ' * bool(self.why)}{self.why}"


class Gone(Exception):
    """The process gives no answer: the status of what it was asked, and why."""


class Worker:
    """The process that does the parts; one that fails, dies or takes too long is replaced for the next part.

    Args:
        toy: handed on to each part.
        describe: a "module:function" that returns what there is to say about the machine, each process's first work.
    """

    def __init__(self, toy: bool, describe: str):
        self.toy, self.describe = toy, describe
        self.process = None

    def start(self, seconds: float = START) -> dict[str, Any]:
        """Raise `Gone` if there is no new process after so many seconds; what it says about the machine."""
        self.connection, theirs = Pipe()
        self.process = get_context("spawn").Process(target=_work, args=(theirs, self.toy, self.describe))
        self.process.start()
        theirs.close()
        return self._answer(seconds)[1]

    def do(self, part: Part, seconds: float) -> Outcome:
        """Do the part within its limit and so many seconds, a new process included if there has to be one."""
        end = time.monotonic() + seconds
        began, rows = time.monotonic(), []
        try:
            if self.process is None:
                self.start(min(START, seconds))
                began = time.monotonic()
            with suppress(BrokenPipeError):  # it has died since: so says the answer
                self.connection.send(part)
            while (answer := self._answer(min(part.limit, end - began), began))[0] == "row":
                rows.append(answer[1])
            status, why = answer
        except Gone as gone:
            status, why = gone.args
        if status != "done":  # a GPU's context may be broken
            self.end()
        return Outcome(part.name, status, why, time.monotonic() - began, rows)

    def leave(self) -> None:
        """Let the process tidy up and end, if it does so soon."""
        if self.process is not None:
            self.connection.close()
            self.process.join(LEAVE)
            self.end()

    def end(self) -> None:
        """Kill the process and whatever it has started."""
        if self.process is not None:
            with suppress(ProcessLookupError):  # it has left nothing, or is no group yet
                killpg(self.process.pid, signal.SIGKILL)
            self.process.kill()
            self.process.join()
            self.process = None

    def _answer(self, seconds: float, asked: float | None = None) -> tuple[str, Any]:
        """What it sends next, in so many seconds from the moment it was `asked`, by default now."""
        asked = time.monotonic() if asked is None else asked
        while not self.connection.poll(GLANCE):
            # What it has started may outlive it and hold its end of the pipe.
            if not self.process.is_alive():
                break
            if time.monotonic() > asked + seconds:
                with suppress(ProcessLookupError):
                    kill(self.process.pid, signal.SIGUSR1)  # it says where it stands
                    time.sleep(GLANCE)
                raise Gone("out of time", f"no end after {seconds:.0f} s")
        try:
            if self.connection.poll():
                return self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(START)
        code = self.process.exitcode or 0
        raise Gone("failed", f"its process died: {signal.Signals(-code).name if code < 0 else f'exit status {code}'}")


def carry_out(parts: Sequence[Part], worker: Worker, end: float) -> Iterator[Outcome]:
    """Do the parts in their order until `end` (of `time.monotonic`); one for which no time is left is not begun."""
    for part in parts:
        left = end - time.monotonic()
        fits = part.limit <= left
        yield worker.do(part, left) if fits else Outcome(part.name, "not run", f"{max(left, 0):.0f} s left")
    worker.leave()


def called(name: str) -> Any:
    """The function that a "module:function" names."""
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)


def _work(connection: Connection, toy: bool, describe: str) -> None:
    """Do one part after the other as they come; what they print is seen at once, and is complete when they are."""
    setpgid(0, 0)  # to be killed with all that a part starts
    faulthandler.register(signal.SIGUSR1, sys.stdout)
    sys.stdout.reconfigure(line_buffering=True)
    for name, value in QUIETLY.items():
        environ.setdefault(name, value)
    connection.send(("machine", called(describe)()))
    while True:
        try:
            part = connection.recv()
        except EOFError:  # nobody waits for more
            return
        status, why, began = "failed", "", time.monotonic()
        print(f"--- {part.name}", flush=True)
        try:
            for row in called(part.measure)(toy=toy, **part.arguments):
                print(f"--- {part.name}, after {time.monotonic() - began:.0f} s: {json.dumps(row)}", flush=True)
                connection.send(("row", row))
            status = "done"
        except (Exception, SystemExit) as error:  # a recipe ends itself by a line
            traceback.print_exc()
            why = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
        sys.stdout.flush()
        connection.send((status, why))
