"""Score answers that are there: `vlm-score PREDICTIONS.jsonl [--recipe FILE] [--output FILE.json] [settings]`.

No model is loaded. A line has a `prediction`, a `reference` and the columns that the recipe's metrics read. The lines
of a run have them all, need no `--recipe` and give the run's numbers again. Settings are those of the recipe's `Data`,
such as `--dataset_format real_colon`. Baselines are of training rows: a run leaves them in `baseline.json`.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

from transformers import HfArgumentParser

from ..eval.evaluation import Evaluation
from ..eval.metrics.baselines import from_json
from ..eval.metrics.number import Scores, flat
from ..eval.report.page import replace_file
from ..eval.report.tables import ResultRow, Table, cells, metric_table
from .runs import RunError, existing, load_recipe, read_run, recipe_of, restore

ALL = "all rows"  # of a file that names no splits


@contextmanager
def named(where: str) -> Iterator[None]:
    """An error in reading what lies there says where it is."""
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        hint = "a run's predictions.jsonl shows what is"
        raise RunError(f"{where}: not what this recipe scores ({error}); {hint}") from error


class Line(dict):
    """A line of a file as a row, which says where it is when a column is missing."""

    def __init__(self, columns: dict[str, Any], where: str):
        super().__init__(columns)
        self.where = f"{where}, id {columns['id']!r}" if "id" in columns else where

    def __missing__(self, column: str) -> Any:
        raise RunError(f"{self.where}: no column {column!r}")


@dataclass
class Split:
    """Rows that were answered, what each scores in the headline, and the metrics."""

    rows: list[Line]
    per_row: list[float | None]
    scores: Scores


def read_lines(file: Path) -> dict[str, list[Line]]:
    """The lines of a JSON Lines file by split."""
    splits: dict[str, list[Line]] = {}
    for number, text in enumerate(existing(file).read_bytes().split(b"\n"), start=1):
        if not text.strip():
            continue
        where = f"{file}, line {number}"
        try:
            columns = json.loads(text)
        except ValueError as error:
            raise RunError(f"{where}: no JSON ({error})") from error
        if not isinstance(columns, dict):
            raise RunError(f"{where}: no JSON object")
        splits.setdefault(str(columns.get("split", ALL)), []).append(Line(columns, where))
    if not splits:
        raise RunError(f"{file} has no answers")
    return splits


def score_file(
    file: Path, recipe: ModuleType, data: Any, groups: list[str] | None = None
) -> tuple[Evaluation, dict[str, Split]]:
    """Score each split of a file as the recipe does, with the baseline that a run has left beside it.

    `groups` are the run's; by default they are those of the lines. Raises `RunError`.
    """
    splits, baseline = read_lines(file), file.with_name("baseline.json")
    with named(str(baseline)):
        blind = from_json(baseline.read_text(encoding="utf-8")) if baseline.is_file() else None
    evaluation = recipe.evaluation(data, None, None, blind)
    if takes_groups := len(signature(recipe.evaluation).parameters) > 4 and not evaluation.groups:
        group = recipe.evaluation(data, None, None, blind, ("",)).group
        groups = groups or sorted({_group(group, line) for lines in splits.values() for line in lines} - {""})
    if groups and takes_groups:
        evaluation = recipe.evaluation(data, None, None, blind, tuple(groups))
    return evaluation, {split: _score(evaluation, lines, file, split) for split, lines in splits.items()}


def _group(group: Callable[[Line], Any], line: Line) -> str:
    if not isinstance(name := group(line), str):
        raise RunError(f"{line.where}: {name!r} names no group of rows, as a text does")
    return name


def _score(evaluation: Evaluation, rows: list[Line], file: Path, split: str) -> Split:
    answers, free = [], None
    for row in rows:
        with named(row.where):
            columns, answer = evaluation.restore(row)
            row |= columns
            if not isinstance(answer, str | list | dict):
                raise TypeError(f"the prediction {answer!r} is no answer")
            evaluation.score([answer], [row])
        answers.append(answer)
    if any("free_prediction" in row for row in rows):
        free = [row.get("free_prediction") for row in rows]  # not all are asked so
    with named(f"{file}, {split}"):
        scores, own = evaluation.scored(rows, answers, free)
    return Split(rows, [row["score"] for row in own], scores)


def metric_rows(scores: Scores, headline: str) -> list[ResultRow]:
    """Every number, the headline and its groups first."""
    return metric_table(Scores(scores.n, {headline: scores[headline], **scores}), headline)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="vlm-score", description="Score answers that are there, without a model.")
    parser.add_argument("predictions", type=Path, help="JSON Lines with `prediction` and `reference`")
    parser.add_argument("--recipe", type=Path, metavar="FILE", help="default: the clone's own that made the run")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the numbers there, too, like results.json")
    parser.epilog = "Further arguments are settings of the recipe's Data."
    args, settings = parser.parse_known_args(arguments)
    try:
        record = existing(args.predictions).with_name("run.json")
        run = read_run(record.parent) if record.is_file() else None
        if run is None and args.recipe is None:
            raise RunError(f"no run.json lies beside {args.predictions}: say which metrics, --recipe FILE")
        recipe = recipe_of(run, args.recipe) if run else load_recipe(args.recipe)
        known = HfArgumentParser(recipe.Data, prog=parser.prog, usage=argparse.SUPPRESS)
        known.set_defaults(**(asdict(restore(recipe.Data, run["arguments"]["data"])) if run else {}))
        data, unknown = known.parse_args_into_dataclasses(settings, return_remaining_strings=True)
        if unknown:
            raise RunError(f"{' '.join(unknown)}: no setting of the recipe's Data")
        if args.output and args.output.is_dir():
            raise RunError(f"{args.output} is a folder: name a file, --output FILE")
        evaluation, splits = score_file(args.predictions, recipe, data, run and run.get("groups"))
    except RunError as error:
        sys.exit(f"error: {error}")
    notes = []
    if evaluation.blind is None:
        notes = ["baseline unknown: it comes from training rows, and no run has left a baseline.json beside the file"]
    for split, part in splits.items():
        rows = [cells(row) for row in metric_rows(part.scores, evaluation.headline)]
        print(Table(f"{split} (n = {part.scores.n:,})", rows, notes))
    if args.output:
        as_flat = {split: flat(part.scores) for split, part in splits.items()}
        replace_file(args.output, json.dumps(as_flat, indent=2).encode())


if __name__ == "__main__":
    main()
