"""What a run checks before and after its training: a line each, in the terminal, preflight.json and the report."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from .page import replace_file


@dataclass(frozen=True)
class Check:
    """What was looked at, what came of it, and the numbers behind that.

    `status`: "pass"; "warn", worth a look; "stop", the run would come to nothing; "skip", could not be looked at here.
    """

    name: str
    status: Literal["pass", "warn", "stop", "skip"]
    found: str
    numbers: dict[str, float] = field(default_factory=dict)

    @property
    def sign(self) -> str:
        """One character for the status."""
        return {"pass": "✓", "warn": "!", "stop": "✗", "skip": "–"}[self.status]

    def __str__(self) -> str:
        return f"{self.sign} {self.name}: {self.found}"


def save_checks(folder: str | Path, checks: Sequence[Check]) -> None:
    """Write `preflight.json` into `folder`: a list of `{name, status, found, numbers}`."""
    text = json.dumps([asdict(check) for check in checks], indent=2, ensure_ascii=False, default=float)
    replace_file(Path(folder, "preflight.json"), text.encode(errors="backslashreplace"))
