"""Measure every number of README and docs: `python -m benchmarks.numbers [PART …]`, or `make numbers`.

A part whose files say what they said when it was measured is left out, so that this goes on where it stopped. All of
them take some six hours on two cores. Two processes can run it for two demos at once, with one thread each; what is a
time or a ratio of times wants the machine for itself.
What they give stands in docs/measured.json; the tables of README and docs are made of that. What a part printed lies
in outputs/numbers.
After a change of code that should move no number, `--confirm` tells in minutes whether it has.
"""

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.numbers import measured, pages
from benchmarks.numbers.confirm import refuted
from benchmarks.numbers.parts import PARTS, Part
from benchmarks.numbers.sources import ROOT


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.numbers", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help="those whose names begin so; default: all")
    parser.add_argument("--stale", action="store_true", help="only say which would be measured, and why")
    parser.add_argument("--confirm", action="store_true", help="only keep what a short run shows to be the same")
    parser.add_argument("--pages", action="store_true", help="only make the tables of what is kept")
    args = parser.parse_args(arguments)
    if not args.pages:
        chosen = {name: part for name, part in PARTS.items() if name.startswith(tuple(args.parts) or "")}
        if not chosen:
            sys.exit(f"error: no part is called {' or '.join(args.parts)}; there are: {', '.join(PARTS)}")
        for name, part in chosen.items():
            if reason := why(name, part):
                print(f"{name}: {reason}", flush=True)
                if args.confirm:
                    print(f"{name}: {refuted(name, part) or 'the same'}", flush=True)
                elif not args.stale:
                    measure(name, part)
    if not args.stale:
        pages.write()


def why(name: str, part: Part) -> str:
    """Why a part has to be measured; empty where it has been."""
    kept = measured.read().get(name)
    if kept is None:
        return "not measured yet"
    files = measured.changed(kept, part)
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return f"since {kept['commit']} other: {', '.join(files[:3])}{more}" if files else ""


def measure(name: str, part: Part) -> None:
    """Run a part's command and keep its numbers; a line ends it where there are none, or would be of no commit."""
    if files := measured.uncommitted(part):
        sys.exit(f"error: {name}: commit {', '.join(files[:3])} first, or its numbers are of no commit")
    log = ROOT / "outputs" / "numbers" / f"{name.replace(', ', ' ').replace(' ', '_')}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable if word == "python" else word for word in part.command]
    for folder in part.anew:
        shutil.rmtree(ROOT / folder, ignore_errors=True)
    origin, begun = measured.origin(part), time.monotonic()
    with log.open("w") as printed:
        done = subprocess.run(command, cwd=ROOT, stdout=printed, stderr=subprocess.STDOUT)
    seconds = time.monotonic() - begun
    if done.returncode:
        sys.exit(f"error: {name}: {' '.join(part.command)} ended with {done.returncode}; see {log}")
    try:
        numbers = part.read(Path(log).read_text())
    except (ValueError, OSError) as error:
        sys.exit(f"error: {name}: {error}; see {log}")
    measured.keep(name, origin, numbers, seconds)
    print(f"{name}: {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
