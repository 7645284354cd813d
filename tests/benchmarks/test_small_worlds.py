"""What is made of the losses that a run left beside those of the CPU; the runs themselves are in `test_gpu.py`."""

import json
import os
from concurrent.futures import Future
from pathlib import Path

import pytest

from benchmarks import small_worlds
from benchmarks.small_worlds import FailedRun, Run, World, row_of

LOSSES = [6.0 - 0.05 * step for step in range(20)]


def left(folder: Path, losses: list[float]) -> Run:
    folder.mkdir()
    log = [{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)] + [{"step": 10, "eval_loss": 9.0}]
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": log}))
    checks = [{"name": "labels", "numbers": {}}, {"name": "longest batch", "numbers": {"gib": 0.5}}]
    (folder / "preflight.json").write_text(json.dumps(checks))
    return Run(folder, 12.0)


def came_to(result: object) -> Future:
    future = Future()
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
    return future


@pytest.mark.parametrize("bits, allowed", [("", 0.01), ("4", 0.02)])
@pytest.mark.parametrize("step", [1, 20])
@pytest.mark.parametrize("sign", [-1, 1])
def test_one_loss_out_of_bounds_is_named_and_one_within_is_not(bits, allowed, step, sign, tmp_path):
    world = World("kvasir_vqa", bits, tmp_path, [], 20)
    cpu = left(tmp_path / "cpu", LOSSES)
    for share in (0.9, 1.1):
        losses = [loss * (1 + sign * share * allowed * (i == step)) for i, loss in enumerate(LOSSES, 1)]
        own = left(tmp_path / f"own {share}", losses)
        row = row_of(world, came_to((own, own)), came_to(cpu))
        within = share < 1
        assert (row["verdict"] == "ok") == within
        assert within or row["verdict"] == f"{1.1 * allowed:.2%} from the CPU's losses, {allowed:.1%} allowed"
        assert row["% apart"] == pytest.approx(100 * share * allowed) and row["% resumed"] == 0
        assert row["MB"] == pytest.approx(536.87, abs=0.01)
        assert (row["first loss"], row["last loss"], row["the CPU's"]) == (losses[0], losses[-1], LOSSES[-1])


def test_a_run_that_goes_on_elsewhere_is_named_where_its_own_steps_are_apart(tmp_path):
    world, own = World("ssg_vqa", "", tmp_path, [], 20), left(tmp_path / "own", LOSSES)
    for step, verdict in [(10, "ok"), (11, "resumed, 0.30% from its own losses, 0.2% allowed")]:
        losses = [loss * (1.003 if i == step else 1) for i, loss in enumerate(LOSSES, 1)]
        resumed = left(tmp_path / f"resumed {step}", losses)
        assert row_of(world, came_to((own, resumed)), came_to(own))["verdict"] == verdict


def test_a_loss_that_is_no_number_is_out_of_bounds_and_a_missing_step_an_error(tmp_path):
    world, cpu = World("ssg_vqa", "", tmp_path, [], 20), left(tmp_path / "cpu", LOSSES)
    own = left(tmp_path / "own", [*LOSSES[:5], float("nan"), *LOSSES[6:]])
    assert "from the CPU's losses" in row_of(world, came_to((own, own)), came_to(cpu))["verdict"]
    short = left(tmp_path / "short", LOSSES[:-1])
    with pytest.raises(AssertionError, match="losses of steps"):
        row_of(world, came_to((short, short)), came_to(cpu))


def test_a_launch_that_fails_says_what_the_recipe_says(tmp_path):
    (tmp_path / "own.py").write_text("import sys\nprint('ready')\nsys.exit(f'error: no {sys.argv[2]}')\n")
    own = os.path.relpath(tmp_path / "own", small_worlds.ROOT / "recipes")
    world = World(own, "8", tmp_path, ["--dataset_name", str(tmp_path / "nowhere")], 2)
    with pytest.raises(FailedRun, match="^whole: error: .*nowhere") as failed:
        world.launch("whole")
    assert row_of(world, came_to(failed.value), came_to(None)) == {
        "what": f"{own}, 8 bits",
        "verdict": str(failed.value),
    }


def test_all_rows_are_there_when_some_are_wrong(monkeypatch):
    monkeypatch.setattr(small_worlds, "SIZES", ["ssg_vqa", "vqa_rad"])
    monkeypatch.setattr(small_worlds, "build", lambda recipe, folder: [])
    monkeypatch.setattr(
        small_worlds, "row_of", lambda world, *runs: {"what": world.name, "verdict": "ok" if world.bits else "bad"}
    )
    monkeypatch.setattr(World, "launch", lambda *arguments, **settings: None)
    monkeypatch.setattr(World, "launch_twice", lambda *arguments: None)
    rows = []
    with pytest.raises(ValueError, match="^ssg_vqa, bf16: bad; vqa_rad, bf16: bad$"):
        for row in small_worlds.measure(toy=False):
            rows.append(row)
    assert [row["what"] for row in rows] == ["ssg_vqa, bf16", "vqa_rad, bf16", "vqa_rad, 8 bits"]
