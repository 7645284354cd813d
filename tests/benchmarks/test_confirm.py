"""A number stands after a change of code where a short run gives the same digits, and only there."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.numbers import __main__ as numbers
from benchmarks.numbers import confirm, measured, sources
from benchmarks.numbers.parts import Part

DEMO = """
import json, sys
from pathlib import Path
from vlm_recipes.training.rate import RATE

assert sys.argv[1] == "toy" and "--max_train_rows" in sys.argv, sys.argv
folder = Path("outputs/demo/toy")
folder.mkdir(parents=True, exist_ok=True)
log = [{"step": 1, "loss": RATE * 2, "train_runtime": id(folder)}, {"step": 2, "loss": RATE}]
(folder / "trainer_state.json").write_text(json.dumps({"log_history": log}))
for name in ("predictions.jsonl", "results.json", "model.safetensors"):
    (folder / name).write_text("yes" if RATE > 0.3 else "no")
"""
PART = Part(("python", "-m", "demo", "toy"), ("training/rate.py",), lambda printed: {}, told_by=(("toy",),))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of three files, whose number was measured; it gives a function that commits another rate."""
    for module in (sources, measured, confirm):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(measured, "FILE", tmp_path / "measured.json")
    monkeypatch.setattr(numbers, "PARTS", {"demo toy": PART})
    monkeypatch.setattr(numbers.pages, "write", lambda: None)

    def commit(rate: str) -> str:
        (tmp_path / "training" / "rate.py").write_text(f"RATE = {rate}\n")
        user = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "add", "demo", "training"], cwd=tmp_path, check=True)
        subprocess.run(["git", *user, "commit", "--quiet", "--message", rate], cwd=tmp_path, check=True)
        sources.digest.cache_clear()
        return measured.git("rev-parse", "--short", "HEAD")

    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    for name, text in (("demo/__init__", ""), ("demo/__main__", DEMO), ("training/__init__", "")):
        file = tmp_path / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    commit("0.5")
    measured.keep("demo toy", measured.origin(PART), {}, 60)
    yield commit
    sources.digest.cache_clear()
    sources.imports_of.cache_clear()


def test_other_code_that_gives_the_same_digits_keeps_the_number_as_of_that_commit(project, capsys):
    first, other = measured.read()["demo toy"]["commit"], project("1 / 2")
    numbers.main(["--stale"])
    assert "other: training/rate.py" in capsys.readouterr().out
    numbers.main(["--confirm"])
    assert capsys.readouterr().out.endswith("demo toy: the same\n")
    kept = measured.read()["demo toy"]
    assert measured.commit_of(kept) == f"{first} (the same at {other})" and numbers.why("demo toy", PART) == ""
    again = project("0.25 * 2")  # compared with the code that was confirmed last
    numbers.main(["--confirm"])
    assert measured.commit_of(measured.read()["demo toy"]) == f"{first} (the same at {again})"


def test_code_that_gives_another_digit_is_named_with_it_and_the_number_stays_stale(project, capsys):
    first, other = measured.read()["demo toy"]["commit"], project("0.5000001")
    numbers.main(["--confirm"])
    assert f"{first} and {other} differ: step 1, loss 1.0 and 1.0000002" in capsys.readouterr().out
    assert "confirmed" not in measured.read()["demo toy"] and "other: " in numbers.why("demo toy", PART)


def test_a_setting_a_library_a_time_and_what_was_never_measured_are_not_told_by_a_short_run(project, monkeypatch):
    monkeypatch.setattr(confirm, "left_at", None)
    project("1 / 2")
    for changed in ("demo/configs/coco.yaml", "requirements.txt", "benchmarks/learning_curve.py"):
        monkeypatch.setattr(measured, "changed", lambda kept, part, changed=changed: ["training/rate.py", changed])
        assert confirm.refuted("demo toy", PART) == f"{changed}: no short run tells"
    monkeypatch.setattr(measured, "changed", lambda kept, part: ["training/rate.py"])
    assert confirm.refuted("demo toy", Part((), (), lambda printed: {})) == "a time: no short run tells"
    assert confirm.refuted("another", PART) == "not measured yet"
    (measured.ROOT / "training" / "rate.py").write_text("RATE = 0.5\n")
    assert confirm.refuted("demo toy", PART) == "commit training/rate.py first"


def test_a_run_that_fails_ends_in_a_line(project):
    project("1 / 0")
    with pytest.raises(SystemExit, match="toy at .* ended with 1:[^$]*ZeroDivisionError"):
        numbers.main(["--confirm"])


def test_the_packages_of_a_commit_are_imported_and_no_others():
    root = confirm.checked_out("HEAD")
    code = "import vlm_recipes.collators, vlm_recipes.training.folder as f, recipes; print(f.__file__)"
    path = {"PYTHONPATH": f"{root / 'installed'}:{root}"}
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=path, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).resolve() == (root / "training" / "folder.py").resolve()
