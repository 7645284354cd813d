"""The tables of README and docs that are made of docs/measured.json.

They stand between `<!-- measured: NAME -->` and `<!-- end -->`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.numbers.measured import commit_of, locked, read
from benchmarks.numbers.parts import SEEDS
from benchmarks.numbers.sources import ROOT

MARKED = re.compile(r"(<!-- measured: (.+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
# Beside a demo's headline and its groups.
MORE = {
    "coco": ("precision_50", "recall_50", "f1_50", "ap_50", "ap_50_95"),
    "vqa_rad": ("exact_match", "exact_match_of_majority_per_type"),
    "ssg_vqa": ("macro_f1",),
    "visual_chat": ("rouge_l", "exact_match"),
}
SPEEDS = (
    ("51 labels scored as one tree, against a forward for each; 32 questions", "times", "labels scored as a tree"),
    ("constrained against free decoding; 32 rows of all types", "times", "constrained decoding"),
    ("`ChatCollator` against TRL's, rows a second; small pictures", "small pictures", "collator"),
    ("the same, photographs of 1224×1632", "photographs", "collator"),
)
TRAINING, ANSWERING = "shared images, training", "shared images, answering"
LEARNING = {
    "adapter": "LoRA on the language model of one that can describe other pictures",
    "whole": "all of that model",
    "scratch": "all of an untrained one, as in the demo",
}
Kept = Mapping[str, Mapping[str, Any]]


def write() -> None:
    """Make the tables of every page anew, of what is kept; a table of which nothing is kept stays as it is."""
    with locked():
        kept = read()
        for page in PAGES:
            before = page.read_text(encoding="utf-8")
            after = MARKED.sub(lambda found: f"{found[1]}{table(found[2], kept) or found[3]}{found[4]}", before)
            if after != before:
                page.write_text(after, encoding="utf-8")


def table(name: str, kept: Kept) -> str:
    """The table of that name, a line of its own behind it says where it comes from; empty where nothing is kept."""
    kind, _, what = name.partition(" ")
    lines = list(MAKERS[kind](what, kept)) if kind in MAKERS else []
    return "\n".join(lines) + "\n" if lines else ""


def demo(name: str, kept: Kept) -> Iterator[str]:
    runs = {seed: kept[f"demo {name}, seed {seed}"] for seed in SEEDS if f"demo {name}, seed {seed}" in kept}
    if not runs:
        return
    tests = [run["numbers"]["splits"]["test"]["numbers"] for run in runs.values()]
    headline = next(iter(runs.values()))["numbers"]["headline"]
    numbers = [own[headline] for own in tests]
    yield row(headline.replace("_", " "), *(f"seed {seed}" for seed in runs), "baseline", "n")
    yield row("---", *["---:"] * (len(runs) + 2))
    yield number_row("all", numbers, bold=True)
    yield from group_rows(numbers)
    for metric in MORE.get(name, ()):
        own, called = [own.get(metric, {}) for own in tests], metric.replace("_", " ")
        yield number_row(called, own)
        if name == "coco":
            yield from group_rows(own, f"{called}, ")
    if any("free" in number for number in numbers):
        yield number_row("answered freely", [number.get("free", {}) for number in numbers])
    if any(blank := [run["numbers"].get("blank images", {}) for run in runs.values()]):
        yield number_row("the same questions about grey images", [own.get("blank", {}) for own in blank])
        yield number_row("with their own images", [own.get("with_images", {}) for own in blank])
    yield ""
    yield f"In brackets 95% intervals, `*` where they reach the baseline. {origin(runs)}"


def group_rows(numbers: Sequence[Mapping[str, Any]], before: str = "") -> Iterator[str]:
    """A row of each group that any run has rows of."""
    for group in dict.fromkeys(group for number in numbers for group in number.get("groups", {})):
        own = [number.get("groups", {}).get(group, {}) for number in numbers]
        if any(one.get("n") for one in own):
            yield number_row(before + group, own)


def number_row(name: str, numbers: Sequence[Mapping[str, Any]], bold: bool = False) -> str:
    """A row of a number of each run, `*` where its interval reaches its baseline; empty where a run has none."""
    baselines = [decimal(number["baseline"]) for number in numbers if "baseline" in number]
    counts = [f"{number['n']:,}" for number in numbers if "n" in number]
    beside = [" / ".join(dict.fromkeys(column)) for column in (baselines, counts)]
    return row(name, *(cell(number, bold) for number in numbers), *beside)


def cell(number: Mapping[str, Any], bold: bool) -> str:
    if "value" not in number:
        return "–"
    value = f"**{decimal(number['value'])}**" if bold else decimal(number["value"])
    if "low" not in number:
        return value
    vague = "baseline" in number and number["low"] <= number["baseline"]
    return f"{value}{'*' if vague else ''} ({decimal(number['low'])} to {decimal(number['high'])})"


def decimal(value: float, digits: int = 3) -> str:
    """As the pages have it: .825."""
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.{digits}f}")


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def origin(runs: Mapping[int, Mapping[str, Any]]) -> str:
    """Which command gave this, where and when."""
    first = next(iter(runs.values()))
    seeds = ", ".join(f"{seed} at {commit_of(run)} in {minutes(run['seconds'])}" for seed, run in runs.items())
    return f"`{first['command']}`; seed {seeds}; {first['machine']}."


def minutes(seconds: float) -> str:
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s" if seconds >= 60 else f"{seconds:.0f} s"


def speed(what: str, kept: Kept) -> Iterator[str]:
    """Ratios within one run, a row each."""
    rows = [(what, name, kept[part]) for what, name, part in SPEEDS if part in kept]
    if len(rows) == len(SPEEDS):
        yield row("what", "times", "commit")
        yield row("---", "---", "---")
        for label, name, part in rows:
            yield row(label, ratio(part["numbers"][name]), commit_of(part))
        yield ""
        yield machine_of(kept, [part for _, _, part in SPEEDS])


def shared(what: str, kept: Kept) -> Iterator[str]:
    """How many times as fast an image's questions are trained on and answered together."""
    if {TRAINING, ANSWERING} <= kept.keys():
        trained, answered = kept[TRAINING]["numbers"], kept[ANSWERING]["numbers"]
        yield row("Kvasir-VQA's distribution of questions, one run each", "times", "peak memory")
        yield row("---", "---", "---")
        for label, name in (
            ("training: TRL's `SFTTrainer` and collator, padded", "TRL's collator"),
            ("the same with `ChatCollator`", "ChatCollator"),
            ("**shared images**", "shared images"),
        ):
            memory = decimal(trained[f"{name}, GB"]["value"], 2)
            yield row(label, ratio(trained[name]) if name in trained else "1", f"{memory} GB")
        yield row("answering, 8 tokens each: one question at a time", "1", "")
        yield row("padded batches of 16", ratio(answered["padded batches"]), "")
        yield row("**shared images**, the same 72 texts", ratio(answered["shared images"]), "")
        yield row("scoring closed sets of 4.6 answers: a forward for each answer", "1", "")
        yield row("**shared image and question**", ratio(answered["closed sets"]), "")
        yield ""
        yield machine_of(kept, [TRAINING, ANSWERING])


def learning(what: str, kept: Kept) -> Iterator[str]:
    """What sharing images does to what is learnt in an epoch."""
    runs = {name: kept[f"learning, {name}"] for name in LEARNING if f"learning, {name}" in kept}
    if len(runs) == len(LEARNING):
        yield row("what trains", "before", "shared rows", "each question by itself")
        yield row("---", "---", "---", "---")
        for name, label in LEARNING.items():
            own = runs[name]["numbers"]
            yield row(
                f"`{name}`: {label}", decimal(own["before"]["value"]), within(own["together"]), within(own["apart"])
            )
        yield ""
        yield machine_of(kept, [f"learning, {name}" for name in LEARNING])


def ratio(number: Mapping[str, float]) -> str:
    known = [number[key] for key in ("value", "low", "high") if key in number]
    value, *span = (decimal(one, 1 if one >= 10 else 2) for one in known)
    return f"**{value}**{f' ({span[0]} to {span[1]})' if span else ''}"


def within(number: Mapping[str, Any]) -> str:
    return f"**{decimal(number['value'])}** ({decimal(number['low'])} to {decimal(number['high'])})"


def machine_of(kept: Kept, names: Sequence[str]) -> str:
    """Commands and commits of these parts, by the machine that they ran on, threads included."""
    said: dict[str, dict[str, None]] = {}
    for name in names:
        said.setdefault(kept[name]["machine"], {})[f"`{kept[name]['command']}` at {commit_of(kept[name])}"] = None
    return ". ".join(f"{', '.join(own)}; {machine}" for machine, own in said.items()) + "."


def text(name: str, kept: Kept) -> Iterator[str]:
    """What a benchmark printed as a table."""
    if name in kept:
        yield kept[name]["numbers"]["text"]
        yield ""
        yield machine_of(kept, [name])


MAKERS: dict[str, Callable[[str, Kept], Iterator[str]]]
MAKERS = {"demo": demo, "speed": speed, "shared": shared, "learning": learning, "table": text}
