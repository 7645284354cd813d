"""Every number of README and docs: kept with its command and commit, shown as kept, and above what a demo promises."""

import json
import re

import pytest

from benchmarks.numbers import __main__ as numbers
from benchmarks.numbers import measured, pages, parts
from benchmarks.numbers.parts import PARTS, Part
from benchmarks.numbers.reading import answers_of, found, text_of
from benchmarks.numbers.sources import ROOT, digest, files_of, imports_of
from tests.support.left import left_by

KEPT = measured.read()
DEMOS = sorted(name for name in KEPT if name.startswith("demo "))


# --- what is kept


@pytest.mark.parametrize(
    "page", [page for page in pages.PAGES if pages.MARKED.search(page.read_text())], ids=lambda p: p.name
)
def test_the_tables_of_a_page_are_made_of_what_is_kept(page):
    for mark, name, shown, _ in pages.MARKED.findall(page.read_text(encoding="utf-8")):
        made = pages.table(name, KEPT)
        assert not made or shown == made, f"{mark.strip()}: python -m benchmarks.numbers --pages"


def test_every_kept_number_is_of_a_part_that_there_is_and_says_where_it_comes_from():
    assert KEPT.keys() <= PARTS.keys()
    for name, kept in KEPT.items():
        assert kept["command"] == " ".join(PARTS[name].command) and kept["machine"] and kept["seconds"] > 0
        assert re.fullmatch("[0-9a-f]{7,}", kept["commit"]) and kept["files"]


def test_what_has_changed_since_a_number_was_measured_is_said():
    stale = {name: why for name, part in PARTS.items() if (why := numbers.why(name, part))}
    if stale:
        pytest.skip(
            f"{len(stale)} of {len(PARTS)} parts to measure: " + "; ".join(f"{n}: {w}" for n, w in stale.items())
        )


# --- what a demo promises


def answers_to_test(name: str) -> dict:
    return KEPT[name]["numbers"]["splits"]["test"]["numbers"]


@pytest.mark.parametrize("name", DEMOS)
def test_a_demo_learns_what_it_promises_on_every_seed(name):
    own, blank = answers_to_test(name), KEPT[name]["numbers"]["blank images"]
    demo = name.removeprefix("demo ").split(",")[0]
    headline = own[KEPT[name]["numbers"]["headline"]]
    groups = headline.get("groups", {})
    if demo == "nutrition_tables":
        assert headline["value"] >= 0.70
    elif demo == "kvasir_vqa":
        for kind in ("yes_no", "color", "size_numeric", "count_numeric"):
            assert groups[kind]["value"] >= groups[kind]["baseline"] + 0.15, kind
    elif demo == "vqa_rad":
        assert own["exact_match"]["value"] >= own["exact_match_of_majority_per_type"]["value"] + 0.15
    elif demo == "reasonseg":
        assert headline["value"] >= 0.70
        assert {kind: one["value"] for kind, one in groups.items() if one["value"] < 0.35} == {}
    elif demo == "ssg_vqa":
        assert headline["value"] >= headline["baseline"] + 0.20
        assert headline["value"] >= own["type_baseline_accuracy"]["value"] + 0.10
        assert blank["with_images"]["value"] >= blank["blank"]["value"] + 0.15
    elif demo == "visual_chat":
        assert headline["value"] >= headline["baseline"] + 0.20
        assert blank["with_images"]["value"] >= blank["blank"]["value"] + 0.20
    else:
        assert demo == "coco" and own["precision_50"]["value"] >= 0.90 and own["recall_50"]["value"] >= 0.90


# --- how


def test_the_numbers_of_a_run_are_those_of_its_results():
    folder = left_by("kvasir_vqa")
    kept, results = answers_of(folder), json.loads((folder / "results.json").read_text())["test"]
    own = kept["splits"]["test"]["numbers"]["accuracy"]
    assert kept["headline"] == "accuracy" and own["n"] == results["n"]
    assert own["value"] == round(results["accuracy"], 6) and own["baseline"] == round(results["baseline_accuracy"], 6)
    assert own["groups"]["mcq"]["value"] == round(results["accuracy_mcq"], 6)


def test_a_part_is_measured_once_anew_when_its_files_say_something_else_and_never_of_no_commit(tmp_path, monkeypatch):
    script = ROOT / "benchmarks" / "constraints.py"
    part = Part(
        ("python", "-c", "print('times: 2.5 (from 2 to 3)')"),
        ("benchmarks/constraints.py",),
        found(times=r"times: ([\d.]+) \(from ([\d.]+) to ([\d.]+)\)"),
    )
    monkeypatch.setattr(numbers, "PARTS", {"one": part})
    monkeypatch.setattr(numbers.pages, "write", lambda: None)
    monkeypatch.setattr(measured, "FILE", file := tmp_path / "measured.json")
    monkeypatch.setattr(measured, "uncommitted", lambda part: [])
    numbers.main([])
    assert measured.read()["one"]["numbers"] == {"times": {"value": 2.5, "low": 2.0, "high": 3.0}}
    assert numbers.why("one", part) == ""
    kept = measured.read()
    kept["one"]["files"]["benchmarks/constraints.py"] = "something else"
    file.write_text(json.dumps(kept))
    assert "other: benchmarks/constraints.py" in numbers.why("one", part)
    monkeypatch.setattr(measured, "uncommitted", lambda part: [str(script)])
    with pytest.raises(SystemExit, match="commit .*constraints.py first"):
        numbers.main([])


def test_a_command_that_fails_or_prints_no_number_ends_in_a_line(monkeypatch):
    monkeypatch.setattr(measured, "uncommitted", lambda part: [])
    for code, line in (("raise SystemExit(3)", "ended with 3"), ("print('none')", "is not in what was printed")):
        part = Part(("python", "-c", code), ("benchmarks/constraints.py",), found(times=r"times: (\d+)"))
        with pytest.raises(SystemExit, match=line):
            numbers.measure("a part", part)


def test_files_that_can_move_a_number_are_those_that_are_imported_and_no_comment_moves_one(tmp_path, monkeypatch):
    files = files_of(*PARTS["demo kvasir_vqa, seed 0"].entries)
    for file in (
        "recipes/kvasir_vqa.py",
        "collators/shared_image.py",
        "demo/worlds/endoscopy/picture.py",
        "eval/typed.py",
    ):
        assert file in files
    for file in ("recipes/vqa_rad.py", "demo/worlds/album/dataset.py", "eval/report/page.py", "collators/video.py"):
        assert file not in files
    lazy = {path.relative_to(ROOT).as_posix() for path in imports_of(ROOT / "recipes" / "kvasir_vqa.py")}
    assert {"callbacks/__init__.py", "callbacks/grad_norm.py"} <= lazy
    monkeypatch.setattr("benchmarks.numbers.sources.ROOT", tmp_path)
    said = []
    for i, text in enumerate(('"""A."""\nx = 1  # one\n', '"""B."""\n\nx   = 1\n', "x = 2\n")):
        (tmp_path / f"{i}.py").write_text(text)
        said.append(digest(f"{i}.py"))
    assert said[0] == said[1] != said[2]


def test_a_table_has_a_column_for_each_seed_and_marks_what_reaches_its_baseline():
    number = {
        "value": 0.5,
        "n": 20,
        "low": 0.4,
        "high": 0.6,
        "baseline": 0.45,
        "groups": {"few": {"value": 0.25, "n": 4}},
    }
    run = {"command": "python -m demo vqa_rad", "commit": "abc", "seconds": 61, "machine": "2 cores"}
    run["numbers"] = {
        "headline": "token_f1",
        "splits": {"test": {"n": 20, "numbers": {"token_f1": number, "exact_match": number}}},
    }
    lines = pages.table("demo vqa_rad", {"demo vqa_rad, seed 0": run, "demo vqa_rad, seed 1": run}).splitlines()
    assert lines[0] == "| token f1 | seed 0 | seed 1 | baseline | n |"
    assert lines[2] == "| all | **.500*** (.400 to .600) | **.500*** (.400 to .600) | .450 | 20 |".replace(
        "*** (", "*** ("
    )
    assert lines[3] == "| few | .250 | .250 |  | 4 |"
    assert "seed 0 at abc in 1 min 1 s, 1 at abc in 1 min 1 s; 2 cores." in lines[-1]
    assert pages.table("demo nothing", {}) == ""


def test_a_run_that_lacks_a_number_or_has_another_n_has_its_own_cells():
    one = {"value": 0.5, "n": 20, "baseline": 0.4, "groups": {"a": {"value": 0.25, "n": 4}}}
    other = {"value": 0.6, "n": 31, "baseline": 0.3, "groups": {"b": {"value": 0.75, "n": 5}}}
    runs = {}
    for seed, number in enumerate((one, other)):
        numbers = {"headline": "token_f1", "splits": {"test": {"n": number["n"], "numbers": {"token_f1": number}}}}
        numbers |= {"blank images": {"blank": {"value": 0.1, "n": 9}}} if seed else {}
        runs[f"demo vqa_rad, seed {seed}"] = {"command": "c", "commit": "x", "seconds": 1, "machine": "m"} | {
            "numbers": numbers
        }
    lines = pages.table("demo vqa_rad", runs).splitlines()
    assert "| all | **.500** | **.600** | .400 / .300 | 20 / 31 |" in lines
    assert "| a | .250 | – |  | 4 |" in lines and "| b | – | .750 |  | 5 |" in lines
    assert "| the same questions about grey images | – | .100 |  | 9 |" in lines
    with pytest.raises(ValueError, match="no table"):
        text_of("nothing")


def test_every_mark_on_a_page_names_a_part_that_is_measured():
    for page in pages.PAGES:
        for _, name, _, _ in pages.MARKED.findall(page.read_text(encoding="utf-8")):
            kind, _, what = name.partition(" ")
            assert kind in pages.MAKERS
            assert what in {"demo": parts.WORLDS, "table": PARTS}.get(kind, {"": ""})


def test_a_ratio_and_its_range_are_told_by_name_in_whatever_order_they_are_kept():
    number = {"value": 6.004, "low": 0.9, "high": 10.26}
    assert pages.ratio(number) == pages.ratio(dict(sorted(number.items()))) == "**6.00** (.90 to 10.3)"
    assert pages.ratio({"value": 34.64}) == "**34.6**"


def test_what_ran_with_other_threads_is_not_said_to_have_run_with_the_first_one_s():
    kept = {
        name: {"command": f"python -m {name}", "commit": "abc", "machine": f"2 cores, {threads}"}
        for name, threads in (("a", "1 thread"), ("b", "2 threads"), ("c", "1 thread"))
    }
    first, second = (
        "`python -m a` at abc, `python -m c` at abc; 2 cores, 1 thread",
        "`python -m b` at abc; 2 cores, 2 threads",
    )
    assert pages.machine_of(kept, ["a", "b", "c"]) == f"{first}. {second}."
