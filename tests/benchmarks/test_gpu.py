"""The command for a GPU: parts that end in every way, and all real ones at toy size, as where it will be run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.parts import Part
from tests.support.paths import ROOT

PATIENCE = 1200  # seconds; two cores that others use, too


def part(does: str, limit: float = 30, name: str = "", **arguments) -> Part:
    return Part(name or does.replace("_", " "), f"tests.support.gpu_parts:{does}", limit, arguments)


@pytest.fixture
def check(monkeypatch, tmp_path, capfd):
    """Run the command with these parts: its exit status, what it printed, and its file."""
    monkeypatch.setenv("OUT", str(tmp_path))

    def run(*parts: Part, machine: str = "gpu", arguments: tuple[str, ...] = ()) -> tuple[int, str, dict]:
        monkeypatch.setattr(gpu, "PARTS", parts)
        monkeypatch.setattr(gpu, "DESCRIBE", f"tests.support.gpu_parts:{machine}")
        status = gpu.main(list(arguments))
        file = tmp_path / "gpu.json"
        return status, capfd.readouterr().out, json.loads(file.read_text()) if file.exists() else {}

    return run


def alive(process: int) -> bool:
    """Whether the process runs, and is not one that has ended and that nobody has asked about."""
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_parts_that_are_done_share_a_process_and_the_exit_status_is_0(check):
    status, printed, saved = check(part("measures", name="one", what="a"), part("measures", name="two", what="b"))
    assert status == 0 and "2 of 2 parts done" in printed and "a drawn GPU, 80.0 GB" in printed
    assert saved["device"] == "a drawn GPU" and saved["GB"] == 80.0 and saved["versions"] == {"torch": "0"}
    (first,), (second,) = (one["rows"] for one in saved["parts"])
    assert first["process"] == second["process"] != os.getpid()
    assert [first["parts before"], second["parts before"]] == [0, 1]  # the file is there after every part
    summary = printed.partition("2 of 2 parts done")[2].splitlines()
    assert [line.split() for line in summary[1:4]] == [
        ["one:", "done,", "0", "s"],
        ["what", "toy", "process", "parts", "before", "s/step"],
        ["a", "False", str(first["process"]), "0", "0.125"],
    ]


def test_a_part_that_fails_hangs_or_dies_costs_only_itself(check, tmp_path):
    status, printed, saved = check(
        part("measures", name="before", what="a"),
        part("fails"),
        part("measures", name="between", what="b"),
        part("hangs", limit=1),
        part("dies"),
        part("ends_by_a_line"),
        part("finds_wrong_rows"),
        part("returns_what_is_no_row"),
        Part("has no module", "benchmarks.nowhere:measure", 30),
        part("measures", name="after", what="c"),
        part("measures", limit=10000, name="too long", what="d"),
        part("measures", name="last", what="e"),
    )
    assert status == 1 and "5 of 12" not in printed and "4 of 12 parts done" in printed
    outcomes = {one["name"]: (one["status"], one["why"]) for one in saved["parts"]}
    left = outcomes.pop("too long")
    assert left[0] == "not run" and gpu.SECONDS - 60 < float(left[1].removesuffix(" s left")) <= gpu.SECONDS
    assert outcomes == {
        **dict.fromkeys(["before", "between", "after", "last"], ("done", "")),
        "fails": ("failed", "of which the last says why"),
        "hangs": ("out of time", "no end after 1 s"),
        "dies": ("failed", "its process died: SIGKILL"),
        "ends by a line": ("failed", "SystemExit: error: name another dataset"),
        "finds wrong rows": ("failed", "ValueError: one of two is wrong"),
        "returns what is no row": ("failed", "TypeError: Object of type PosixPath is not JSON serializable"),
        "has no module": ("failed", "ModuleNotFoundError: No module named 'benchmarks.nowhere'"),
    }
    rows = {one["name"]: one["rows"] for one in saved["parts"]}
    assert rows["hangs"] == [{"what": "came in time"}] and 'gpu_parts.py", line' in printed and "in hangs" in printed
    assert rows["finds wrong rows"] == [{"what": "right"}, {"what": "wrong"}]
    assert len({rows[name][0]["process"] for name in ("before", "between", "after")}) == 3
    assert rows["after"][0]["process"] == rows["last"][0]["process"]
    assert rows["last"][0]["parts before"] == 11
    assert "half a line that a killed part has said is seen" in printed
    assert not [process for process in (tmp_path / "hanging").read_text().split() if alive(int(process))]
    assert "hangs: out of time, 1 s: no end after 1 s" in printed.partition("parts done")[2]


def test_no_part_goes_on_beyond_the_end_of_all(check, monkeypatch):
    monkeypatch.setattr(gpu, "SECONDS", 4)
    status, _, saved = check(part("fails", limit=2), part("hangs", limit=2), part("measures", limit=3, what="a"))
    assert status == 1 and [one["status"] for one in saved["parts"]] == ["failed", "out of time", "not run"]


def test_parts_are_chosen_by_how_their_names_begin(check, capfd):
    parts = [part("measures", name=name, what=name) for name in ("one", "two", "two again")]
    status, _, saved = check(*parts, arguments=("--only", "two", "one"))
    assert status == 0 and [one["name"] for one in saved["parts"]] == ["two", "two again", "one"]
    with pytest.raises(SystemExit):
        check(*parts, arguments=("--only", "three"))
    assert "no part begins so: one, two, two again" in capfd.readouterr().err


def test_toys_are_told_that_they_are(check):
    status, printed, saved = check(part("measures", what="a"), machine="no_gpu", arguments=("--toy",))
    assert status == 0 and saved["toy"] is saved["parts"][0]["rows"][0]["toy"] is True


def test_without_a_gpu_it_says_so_and_ends_well(check):
    status, printed, saved = check(part("measures", what="a"), machine="no_gpu")
    assert status == 0 and printed.startswith("no GPU here") and printed.count("\n") == 1 and saved == {}


def test_a_machine_on_which_no_process_starts_ends_it_in_one_line(check):
    with pytest.raises(SystemExit, match="error: no process to measure in: its process died: exit status 3"):
        check(part("measures", what="a"), machine="no_machine")


def test_every_recipe_is_measured_at_full_size_and_all_ends_before_nine_minutes():
    assert set(gpu.RECIPES) == {file.stem for file in (ROOT / "recipes").glob("*.py")}
    assert gpu.SECONDS < 540 and max(one.limit for one in gpu.PARTS) < gpu.SECONDS


def write_what_travels(folder: Path) -> None:
    """The files that git tracks, and in `.whl` a wheel of the project as they stand."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    (folder / ".whl").mkdir()
    subprocess.run([sys.executable, "-c", build, ".whl"], cwd=folder, check=True, capture_output=True)
    for left in [folder / "build", *folder.glob("*.egg-info")]:
        shutil.rmtree(left)


@pytest.mark.slow
def test_every_part_is_done_at_toy_size_by_the_line_that_a_gpu_machine_is_given(tmp_path):
    """From a folder with what travels, the installed wheel beside it; nothing of this clone's is imported."""
    folder, site, out = tmp_path / "folder", tmp_path / "site", tmp_path / "out"
    folder.mkdir()
    write_what_travels(folder)
    install = "python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade"
    install += f" --target {site} .whl/*.whl && export PYTHONPATH={site}:$PWD || exit; "
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "OUT": str(out), "OMP_NUM_THREADS": "1"}
    where = "import vlm_recipes.training.run, recipes.vqa_rad, sys; "
    where += "print(*(m.__file__ for n, m in sys.modules.items() if n.startswith(('vlm_recipes.', 'recipes.'))))"
    asked = {"cwd": folder, "env": environment, "text": True, "timeout": PATIENCE, "stdout": subprocess.PIPE}
    imported = subprocess.run(["bash", "-c", f'{install} python3 -c "{where}"'], check=True, **asked).stdout.split()
    assert len(imported) > 20 and all(Path(file).is_relative_to(tmp_path) for file in imported), imported
    ran = subprocess.run(["bash", "-c", f"{install} python3 -m benchmarks.gpu --toy"], **asked)
    saved = json.loads((out / "gpu.json").read_text())
    assert ran.returncode == 0, ran.stdout[-5000:]
    assert saved["toy"] and saved["versions"].keys() >= {"torch", "transformers", "trl"}
    assert [(one["name"], one["status"]) for one in saved["parts"]] == [(one.name, "done") for one in gpu.PARTS]
    assert all(one["rows"] and one["seconds"] > 0 for one in saved["parts"])
    summary = ran.stdout.partition(f"{len(gpu.PARTS)} of {len(gpu.PARTS)} parts done")[2]
    assert all(f"\n{one.name}: done" in summary for one in gpu.PARTS)
