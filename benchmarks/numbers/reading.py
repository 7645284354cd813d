"""The numbers in what a demo leaves and a benchmark prints, as docs/measured.json has them."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

from vlm_recipes.eval.metrics.number import Number, keys_of
from vlm_recipes.training.compare import read_answers
from vlm_recipes.training.score import Split


def answers_of(folder: Path) -> dict[str, Any]:
    """Each split's numbers by metric, of the answers that a run left, and which one is the headline."""
    run = read_answers(folder, None)
    if not run.record["finished"]:
        raise ValueError(f"the run in {folder} did not come to its end")
    splits = {
        split: {"n": part.scores.n, "numbers": {name: plain(number) for name, number in part.scores.items()}}
        for split, part in run.splits.items()
    }
    headline = run.evaluation.headline
    for split, part in run.splits.items():
        own = splits[split]["numbers"].get(headline, {})
        if own and "groups" not in own and (groups := by_type(part)):
            own["groups"] = groups
    return {"headline": headline, "splits": splits, **blank_images(folder)}


def by_type(part: Split) -> dict[str, dict[str, float]]:
    """The headline's mean over the rows of each question type, where rows have one and the recipe has no groups."""
    scores: dict[str, list[float]] = {}
    for line, score in zip(part.rows, part.per_row, strict=True):
        if "question_type" in line and score is not None:
            scores.setdefault(str(line["question_type"]), []).append(score)
    return {name: {"value": round(fmean(own), 6), "n": len(own)} for name, own in sorted(scores.items())}


def blank_images(folder: Path) -> dict[str, Any]:
    """What the model says about grey images, beside the same rows with their own, as the run's last check has it."""
    for check in json.loads((folder / "preflight.json").read_text(encoding="utf-8")):
        if check["name"] == "blank images" and "blank" in check["numbers"]:
            known = check["numbers"]
            fields = ("value", "low", "high")
            pair = {
                name: {
                    one: round(known[key], 6) for one, key in keys_of(name).items() if one in fields and key in known
                }
                for name in ("with_images", "blank")
            }
            return {"blank images": {name: number | {"n": known["n"]} for name, number in pair.items()}}
    return {}


def plain(number: Number) -> dict[str, Any]:
    """A number as JSON, to six digits; what is not known is left out."""
    known = {name: getattr(number, name) for name in ("value", "n", "low", "high", "baseline", "question_baseline")}
    own = {name: round(value, 6) if isinstance(value, float) else value for name, value in known.items()}
    free = {"free": plain(number.free)} if number.free is not None and number.free.value is not None else {}
    groups = {"groups": {name: plain(group) for name, group in number.groups.items()}} if number.groups else {}
    return {name: value for name, value in own.items() if value is not None} | free | groups


def found(**patterns: str) -> Callable[[str], dict[str, Any]]:
    """Read from printed text the value, and its range where the pattern has three groups, of each name."""

    def read(printed: str) -> dict[str, Any]:
        numbers = {}
        for name, pattern in patterns.items():
            match = re.search(pattern, printed)
            if match is None:
                raise ValueError(f"{name} ({pattern}) is not in what was printed")
            numbers[name] = dict(zip(("value", "low", "high"), map(float, match.groups()), strict=False))
        return numbers

    return read


def text_of(printed: str) -> dict[str, str]:
    """A benchmark's table as it printed it, without what fills its columns."""
    rows = [line.strip("| ").split("|") for line in printed.splitlines() if line.startswith("|")]
    lines = [f"| {' | '.join(re.sub('-{3,}', '---', cell.strip()) for cell in row)} |" for row in rows]
    if not lines:
        raise ValueError("no table is in what was printed")
    return {"text": "\n".join(lines)}
