"""Until a run's first step: its seconds and its memory are those of the process, and one that ends before is shown."""

import pytest

from benchmarks import rows

TIMED = """
import time
held = bytearray(200 * 2**20)
time.sleep(1)
print("step 1/2: loss 3.1", flush=True)
time.sleep(60)
"""


def test_the_seconds_and_the_memory_of_a_process_are_measured_and_it_is_ended(tmp_path, monkeypatch):
    (tmp_path / "timed.py").write_text(TIMED)
    monkeypatch.setattr(rows, "ROOT", tmp_path)
    seconds, memory = rows.first_step(["timed"])
    assert 1 <= seconds < 30 and 200 / 1024 <= memory < 0.5


def test_a_run_that_ends_before_its_first_step_ends_the_benchmark_with_what_it_said(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("print('the disk is full')")
    monkeypatch.setattr(rows, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match="the disk is full"):
        rows.first_step(["broken"])


def test_what_is_drawn_is_there_wholly_or_not_at_all_and_once(tmp_path):
    drawn = []

    def draw(folder):
        (folder / "half").write_text("")
        drawn.append(folder)
        if len(drawn) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rows.drawn(tmp_path / "rows", draw)
    assert not (tmp_path / "rows").exists()
    rows.drawn(tmp_path / "rows", draw)
    rows.drawn(tmp_path / "rows", draw)
    assert len(drawn) == 2 and (tmp_path / "rows" / "half").exists()
