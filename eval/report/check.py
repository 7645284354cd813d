"""What a run checks before and after its training: a line each, in the terminal, preflight.json and the report."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from ..metrics.number import Number
from .page import replace_file

CLEAR = 0.05  # of the headline, 0-1, above its baseline: less is little to show for a training


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


def check_learnt(headline: str, number: Number, groups: Sequence[str], baseline: str) -> list[Check]:
    """A warning for each group whose interval does not lie `CLEAR` above its own baseline, and thus may not be learnt.

    All rows are judged together where some are in none of the groups. What has no rows or no baseline is not judged;
    what has too few rows for an interval is not clear of it. `baseline` is whose it is, in words.
    """
    parts = {group: number.groups[group] for group in groups if group in number.groups}
    if sum(own.n for own in parts.values()) < number.n:
        parts = {headline: number} | parts
    checks = []
    for name, own in parts.items():
        if own.value is None or own.baseline is None or (own.low is not None and own.low > own.baseline + CLEAR):
            continue
        interval = "" if own.low is None else f"{own.low:.3f} to {own.high:.3f}, "
        found = f"{own.value:.3f} ({interval}n = {own.n:,}), not clear of {baseline} {own.baseline:.3f}"
        numbers = {key: getattr(own, key) for key in ("value", "n", "low", "high", "baseline")}
        checks.append(Check(name, "warn", found, {key: value for key, value in numbers.items() if value is not None}))
    return checks


def save_checks(folder: str | Path, checks: Sequence[Check]) -> None:
    """Write `preflight.json` into `folder`: a list of `{name, status, found, numbers}`."""
    text = json.dumps([asdict(check) for check in checks], indent=2, ensure_ascii=False, default=float)
    replace_file(Path(folder, "preflight.json"), text.encode(errors="backslashreplace"))
