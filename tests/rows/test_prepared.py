"""Rows are prepared once, and anew where the data, what is asked or the code that makes them has changed."""

import io
import multiprocessing
import os
import runpy
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from vlm_recipes.rows.beside import beside
from vlm_recipes.rows.errors import DataError
from vlm_recipes.rows.grouping import group_by_image, one_per_query, with_questions_shuffled
from vlm_recipes.rows.prepared import MAKERS, code_in, prepared, processes_for, state_of
from vlm_recipes.rows.splits import hold_out
from vlm_recipes.rows.usable import usable_rows

# A recipe of somebody's own: each row that it adapts is noted in a file.
RECIPE = """
import sys
from pathlib import Path
import datasets
from spelling import spelt
from vlm_recipes.rows import usable_rows

FOLDER = Path(sys.argv[1])

def adapt(row):
    with (FOLDER / "adapted").open("a") as file:
        file.write(row["id"] + "\\n")
    return {"id": row["id"], "answer": spelt(row["answer"])}

rows = datasets.Dataset.from_dict({"id": ["a", "b"], "answer": ["x", "y"], "image": [str(FOLDER / "one.png")] * 2})
rows = rows.cast_column("image", datasets.Image(decode=False))
(usable,), _ = usable_rows({"train": rows}, adapt, str(FOLDER / sys.argv[2]), 0.0)
print(usable["answer"][:], usable["image_size"][:])
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    module = sys.modules[prepared.__module__]  # of which other tests keep what code was loaded
    monkeypatch.setattr(module, "other_code", module.other_code.__wrapped__)
    (tmp_path / "own.py").write_text(RECIPE)
    (tmp_path / "spelling.py").write_text("def spelt(answer):\n    return answer.upper()\n")
    Image.new("RGB", (6, 4)).save(tmp_path / "one.png")
    return tmp_path


def launched(folder: Path, seed: int) -> str:
    """What the recipe prints in an interpreter of its own, whose strings have other hashes than another seed's."""
    command = [sys.executable, str(folder / "own.py"), str(folder), "out"]
    environment = os.environ | {"HF_DATASETS_CACHE": str(folder / "cache"), "PYTHONHASHSEED": str(seed)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout


def _run(folder: Path, output: str) -> None:
    sys.argv = ["own.py", str(folder), output]
    sys.path.insert(0, str(folder))
    sys.stdout = sys.stderr = (folder / f"{output}.txt").open("w")
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    runpy.run_path(str(folder / "own.py"), run_name="__main__")


def begin(folder: Path, output: str = "out") -> multiprocessing.Process:
    """The recipe in a process forked from this one, which has all of it imported but what is the recipe's own."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(folder, output))
    process.start()
    return process


def told(folder: Path, output: str = "out", run: multiprocessing.Process | None = None) -> str:
    """What the recipe prints, begun now or by `run`."""
    run = run or begin(folder, output)
    run.join(120)
    printed = (folder / f"{output}.txt").read_text()
    assert run.exitcode == 0, printed
    return printed.splitlines()[-1]


def adapted(folder: Path) -> list[str]:
    return (folder / "adapted").read_text().split()


def test_the_next_start_finds_the_rows(recipe):
    assert launched(recipe, seed=1) == launched(recipe, seed=2) == "['X', 'Y'] [[6, 4], [6, 4]]\n"
    assert adapted(recipe) == ["a", "b"]


def test_a_changed_line_or_picture_makes_the_rows_anew(recipe):
    first = told(recipe)
    assert first == "['X', 'Y'] [[6, 4], [6, 4]]" and adapted(recipe) == ["a", "b"]
    assert told(recipe, "another") == first and adapted(recipe) == ["a", "b"]

    own = (recipe / "own.py").read_text()
    (recipe / "own.py").write_text(own.replace('spelt(row["answer"])}', 'spelt(row["answer"]) + "!"}'))
    assert told(recipe) == "['X!', 'Y!'] [[6, 4], [6, 4]]"
    (recipe / "own.py").write_text(own)
    assert told(recipe) == first and adapted(recipe) == ["a", "b"] * 2  # as it was: still there

    (recipe / "spelling.py").write_text(
        "def spelt(answer):\n    return answer * 2\n"
    )  # `datasets` knows its name alone
    assert told(recipe) == "['xx', 'yy'] [[6, 4], [6, 4]]"

    Image.new("RGB", (10, 8)).save(recipe / "one.png")
    assert told(recipe) == "['xx', 'yy'] [[10, 8], [10, 8]]"
    assert adapted(recipe) == ["a", "b"] * 4


def test_two_processes_that_start_together_make_the_rows_once(recipe):
    runs = {output: begin(recipe, output) for output in ("one", "two")}
    assert len({told(recipe, output, run) for output, run in runs.items()}) == 1
    assert adapted(recipe) == ["a", "b"]


def test_what_a_killed_process_left_is_made_anew(recipe):
    own = (recipe / "own.py").read_text()
    wait = '        __import__("time").sleep(60)\n'
    (recipe / "own.py").write_text(own.replace("        file.write", f"{wait}        file.write"))
    run = begin(recipe)
    deadline = time.time() + 60
    while not (recipe / "adapted").exists() and time.time() < deadline:
        time.sleep(0.1)
    run.kill()
    run.join()
    assert list((recipe / "cache").rglob("*.unfinished"))
    (recipe / "own.py").write_text(own)
    assert told(recipe) == "['X', 'Y'] [[6, 4], [6, 4]]" and adapted(recipe) == ["a", "b"]


def test_a_change_of_one_line_in_what_makes_rows_is_another_code(tmp_path):
    for name in ("codec.py", "deeper/adapter.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("SIDE = 1000\n")
    before = code_in((tmp_path,))
    code_in.cache_clear()
    assert code_in((tmp_path,)) == before
    (tmp_path / "deeper" / "adapter.py").write_text("SIDE = 999\n")
    code_in.cache_clear()
    assert code_in((tmp_path,)) != before


def test_the_code_that_makes_rows_is_where_it_is_looked_for():
    known = {"/".join(file.parts[-2:]) for folder in MAKERS for file in folder.rglob("*.py")}
    assert {"rows/usable.py", "formats/ssg_vqa.py", "collators/chat.py", "models/chat.py"} <= known
    assert {"metrics/box_codecs.py", "metrics/question_types.py"} <= known


def test_the_state_of_a_folder_is_that_of_its_files(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.txt").write_text("a")
    states = [state_of([tmp_path]), state_of([tmp_path])]
    (tmp_path / "deep" / "a.txt").write_text("ab")
    states.append(state_of([tmp_path]))
    (tmp_path / "b.txt").write_text("")
    states.append(state_of([tmp_path]))
    assert states[0] == states[1] and len(set(states)) == 3


def test_a_copy_of_a_folder_is_another_one_by_whatever_path_both_are_named(tmp_path, monkeypatch):
    """`cp -a` keeps lengths and times; a project that is moved keeps its relative paths."""
    (tmp_path / "one" / "data").mkdir(parents=True)
    (tmp_path / "one" / "data" / "a.txt").write_text("a")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    states = []
    for project in ("one", "two"):
        monkeypatch.chdir(tmp_path / project)
        states += [state_of(["data"]), state_of(["data/a.txt"])]
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(tmp_path / project)
        states.append(state_of([tmp_path / "link" / "data"]))
    assert states[0] == states[2] != states[3] == states[5] and states[1] != states[4]


def test_a_cache_that_cannot_be_written_ends_in_one_line_that_says_where_it_is(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "file")
    with pytest.raises(DataError, match=r"cannot prepare rows in '.*file/vlm_recipes' \(HF_DATASETS_CACHE names"):
        prepared("nothing", lambda scratch: datasets.Dataset.from_dict({"id": [1]}))


def test_few_rows_take_one_process_and_many_no_more_than_there_are_cores():
    assert processes_for(1999) is None and processes_for(10, asked=3) == 3
    assert (processes_for(10**6) or 1) <= os.cpu_count()


# --- no byte of a picture is copied


def noise(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def asked(row: dict) -> dict:
    text = [{"role": "user", "content": row["question"]}]
    return {"id": row["id"], "image_id": row["image_id"], "question": row["question"], "messages": text}


def addresses(rows: datasets.Dataset) -> set[int]:
    """Where the bytes of the pictures lie."""
    chunks = (chunk.field("bytes") for chunk in rows.data.column("image").chunks)
    return {chunk.buffers()[2].address for chunk in chunks}


def test_the_bytes_of_pictures_stay_where_the_dataset_has_them(tmp_path):
    images = [{"bytes": noise(i // 4), "path": None} for i in range(48)]
    columns = {"id": [str(i) for i in range(48)], "image_id": [f"image {i // 4}" for i in range(48)]}
    columns["question"] = [f"what is {i}?" for i in range(48)]
    features = datasets.Features({name: datasets.Value("string") for name in columns} | {"image": datasets.Image()})
    stored = datasets.Dataset.from_dict(columns | {"image": images}, features=features)
    parts = dict(zip(("train", "test"), hold_out(stored, 0.25, by="image_id", seed=0), strict=True))
    assert all(part.data.num_rows == 48 > len(part) for part in parts.values())  # selections

    (train, test), refused = usable_rows(parts, asked, str(tmp_path), 0.0)
    rest, validation = hold_out(train, 0.3, by="image_id", seed=0)
    grouped, shuffled = group_by_image(rest, 3), with_questions_shuffled(test, 0)
    for rows in (train, test, rest, validation, grouped, shuffled):
        assert addresses(rows) == addresses(stored)
    for row in grouped:
        image = int(row["image_id"].split()[1])
        assert {int(query["id"]) // 4 for query in row["queries"]} == {image}
        assert np.array_equal(np.asarray(row["image"]), np.asarray(Image.open(io.BytesIO(noise(image)))))
    assert sorted(query["id"] for row in grouped for query in row["queries"]) == sorted(rest["id"][:])
    assert not refused


def test_the_queries_of_an_image_look_at_the_same_bytes():
    images = [{"bytes": noise(i), "path": None} for i in range(6)]
    features = datasets.Features({"image": datasets.Image()})
    stored = datasets.Dataset.from_dict({"image": images}, features=features)
    queries = [[{"id": f"{i} {j}", "question": "?"} for j in range(i % 3 + 1)] for i in range(6)]
    about = datasets.Dataset.from_dict({"id": list("abcdef"), "image_id": list("abcdef"), "queries": queries})
    rows = one_per_query(beside(about, stored).select([5, 0, 4, 2]))
    assert rows["id"][:] == ["5 0", "5 1", "5 2", "0 0", "4 0", "4 1", "2 0", "2 1", "2 2"]
    held = hold_out(rows, 0.3, by="image_id", seed=0)[0]
    for part in (rows, held, group_by_image(held, 2)):
        assert addresses(part) <= addresses(stored)
        for row in part:
            image = "abcdef".index(row["image_id"])
            assert np.array_equal(np.asarray(row["image"]), np.asarray(Image.open(io.BytesIO(noise(image)))))


def test_rows_that_are_refused_in_a_selection_leave_the_others_their_own_pictures(tmp_path):
    images = [{"bytes": noise(i) if i % 3 else b"broken", "path": None} for i in range(12)]
    features = datasets.Features({"id": datasets.Value("string"), "image": datasets.Image()})
    stored = datasets.Dataset.from_dict({"id": [str(i) for i in range(12)], "image": images}, features=features)
    chosen = stored.select([7, 0, 10, 3, 2])
    (rows,), refused = usable_rows({"x": chosen}, partial(dict), str(tmp_path), 1.0)
    assert [row["id"] for row in refused] == ["0", "3"] and rows["id"][:] == ["7", "10", "2"]
    for row in rows:
        assert np.array_equal(np.asarray(row["image"]), np.asarray(Image.open(io.BytesIO(noise(int(row["id"]))))))


def test_lists_with_something_that_is_none_in_all_of_them_are_kept():
    """ReasonSeg's queries, where no picture has pixels to ignore: pyarrow breaks such a table as it casts it."""
    rows = [[{"text": "a", "ignore": None}, {"text": "b", "ignore": None}]] * 3
    made = prepared(["lists of None"], lambda scratch: datasets.Dataset.from_dict({"queries": rows}))
    assert made["queries"][:] == rows
