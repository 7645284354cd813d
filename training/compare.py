"""Compare runs of one recipe: `vlm-compare OUT OUT … [--html FILE] [--recipe FILE]`.

Their answers are scored again, beside published numbers. Where a run answered the rows of the first, the headline and
its groups have the paired difference to the first, with its interval over images.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from ..eval.evaluation import Evaluation
from ..eval.metrics.number import Number, beside
from ..eval.report.page import short, write_page
from ..eval.report.tables import NOTHING, Published, Table, cells, measured_as
from .published import other_rows, published_numbers
from .runs import RECIPES, RunError, read_run, recipe_of, restore
from .score import Split, metric_rows, score_file

SETTINGS = ("arguments", "git_commit", "dataset_fingerprint", "versions", "device", "processes")
NO_RULE = {"image_id", "image_size", "question"}  # columns that no answer is scored by
OF_THE_FOLDER = ("output_dir", "overwrite_output_dir", "logging_dir", "run_name")  # another one in each run


@dataclass
class Answered:
    """A run's folder, its record, the settings of its rows and its scored answers."""

    name: str
    record: dict[str, Any]
    data: Any
    evaluation: Evaluation
    splits: dict[str, Split]


def read_answers(folder: Path, recipe: Path | None) -> Answered:
    """Score what a run has answered; `RunError` where that is nothing."""
    run, file = read_run(folder), folder / "predictions.jsonl"
    if not file.is_file() or not file.stat().st_size:  # only trained, or not yet evaluated
        raise RunError(
            f"{folder} has no answers: wait until it has evaluated, or launch {run['recipe']}.py --do_train false "
            f"--model_name_or_path {folder} --output_dir …, and compare that"
        )
    module = recipe_of(run, recipe)
    data = restore(module.Data, run["arguments"]["data"])
    scored = score_file(file, module, data, run.get("groups"))
    return Answered(f"{folder}{'' if run['finished'] else ' (not finished)'}", run, data, *scored)


def difference(first: Answered, other: Answered, split: str) -> Number | str:
    """How much higher the other's headline is on the same rows, or the line that says why that is not known.

    Rows are the same by their id and question, and the truth that both runs score by. What else they are
    scored by has to be the same, too: what only one of them calls the truth, such as names of boxes, and what
    `Evaluation.keep` names.
    """
    parts, keys = (first.splits[split], other.splits[split]), []
    told = [[run.evaluation.restore(row)[0] for row in run.splits[split].rows] for run in (first, other)]
    ours, theirs = (set(chain.from_iterable(truths)) for truths in told)
    kept = {*first.evaluation.keep, *other.evaluation.keep} - NO_RULE - ours - theirs
    asked = "question" in {*first.evaluation.keep} & {*other.evaluation.keep}
    asked = ["question"] * (asked and all("question" in row for part in parts for row in part.rows))
    truth, rules = ["id", *asked, *sorted(ours & theirs)], sorted(kept | ours ^ theirs)
    for part, truths in zip(parts, told, strict=True):
        pairs, unknown = zip(part.rows, truths, strict=True), dict.fromkeys(ours | theirs)
        rows = [row | unknown | true | {"id": row["id"]} for row, true in pairs]
        keys.append(sorted((_texts(row, truth), _texts(row, rules), i) for i, row in enumerate(rows)))
    if [same for same, *_ in keys[0]] != [same for same, *_ in keys[1]]:
        return f"{other.name} answered other rows than {first.name}: there is no difference to give."
    by = [list(zip(*(texts for _, texts, _ in own), strict=True)) for own in keys]  # one column for each of the rules
    unlike = [name for name, one, two in zip(rules, *by, strict=True) if one != two]
    if unlike:
        names = ", ".join(unlike)
        return f"{other.name} and {first.name} are scored otherwise ({names}): there is no difference to give."
    before, after = ([part.per_row[i] for *_, i in own] for part, own in zip(parts, keys, strict=True))
    return first.evaluation.gain(after, before, [parts[0].rows[i] for *_, i in keys[0]])


def _texts(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [json.dumps(row.get(name), sort_keys=True) for name in names]


def split_table(split: str, runs: list[Answered], published: Published | None) -> Table:
    """The runs' numbers on a split, metric by metric, and those that others have published."""
    rows, notes, first = {}, [], runs[0]
    for run in runs:
        if split not in run.splits:
            notes.append(f"{run.name} has not answered {split}.")
            continue
        part, gain = run.splits[split], None
        if run is not first and split in first.splits:
            gain = difference(first, run, split)
            if isinstance(gain, str):
                notes, gain = [*notes, gain], None
        number = part.scores[run.evaluation.headline]
        scores = part.scores | {run.evaluation.headline: beside(number, number.free, gain)}
        for row in metric_rows(scores, run.evaluation.headline):
            shown = cells(row, "difference")
            rows.setdefault(row.name, []).append({"metric": row.name, "run": run.name, **shown})
    for name, numbers, note in published.rows if published else ():
        for metric in numbers:
            if (own := measured_as(metric, rows)) in rows:
                rows[own].append({"metric": own, "run": f"{name} (published)", "value": short(numbers[metric])})
        notes += [f"{name}: {note}."] if note else []
    if published:
        notes += [f"Published, not measured here: {published.source}."]
        notes += [f"{run.name} has {others}." for run in runs if (others := other_rows(run.data))]
    if any(row["difference"] != NOTHING for of_metric in rows.values() for row in of_metric if "difference" in row):
        notes.insert(0, f"Difference: to {first.name} on the same rows, with its interval over images.")
    return Table(split, [row for of_metric in rows.values() for row in of_metric], notes, texts=2)


def settings_table(runs: list[Answered]) -> Table:
    """The settings, versions and data in which the runs differ."""
    flats = [_flat({name: run.record.get(name) for name in SETTINGS}) for run in runs]
    names = [name for name in dict.fromkeys(name for flat in flats for name in flat) if name not in OF_THE_FOLDER]
    rows = [
        {"setting": name, **{run.name: str(flat.get(name)) for run, flat in zip(runs, flats, strict=True)}}
        for name in names
        if len({str(flat.get(name)) for flat in flats}) > 1
    ]
    return Table("Settings that differ", rows, [] if rows else ["None."], texts=1 + len(runs))


def _flat(record: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """A record's values under the names of `--help`, others with what they are of."""
    flat = {}
    for name, value in record.items():
        if isinstance(value, Mapping) and name in ("arguments", "data", "training", "model"):
            flat |= _flat(value)
        elif isinstance(value, Mapping) and name in SETTINGS:
            flat |= _flat(value, f"{name} ")
        else:
            flat[before + name] = value
    return flat


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="vlm-compare", description="Runs of one recipe beside published numbers.")
    parser.add_argument("runs", type=Path, nargs="+", metavar="OUT", help="what recipes were given as --output_dir")
    parser.add_argument("--recipe", type=Path, metavar="FILE", help="default: the clone's own that made the runs")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the tables there, too, as one page")
    args = parser.parse_args(arguments)
    try:
        runs = [read_answers(folder, args.recipe) for folder in args.runs]
        names = dict.fromkeys(run.record.get("experiment", run.record["recipe"]) for run in runs)
        if len(names) > 1:
            raise RunError(f"runs of {' and '.join(names)}: compare runs of one recipe")
        recipe = args.recipe or RECIPES / f"{runs[0].record['recipe']}.py"
        title, published = published_numbers(recipe, *names)
        splits = dict.fromkeys(split for run in runs for split in run.splits)
        splits = sorted(splits, key=lambda split: split != "test")
        parts = [split_table(split, runs, published if split == "test" else None) for split in splits]
    except RunError as error:
        sys.exit(f"error: {error}")
    tables = [settings_table(runs), *parts]
    print(*tables, sep="\n")
    if args.html:
        shown = {"title": f"{title}: {len(runs)} runs", "headline": runs[0].evaluation.headline, "tables": tables}
        print(f"page: {write_page(args.html, 'compare.html.jinja', checks=(), **shown)}")


if __name__ == "__main__":
    main()
