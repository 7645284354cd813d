"""Nothing runs but this project's own code, and nothing is written outside the output folder, whatever data says."""

import ast
import json
import os
import runpy
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.eval.report.test_report import HOSTILE, chromium
from tests.support.paths import ROOT
from tests.support.worlds import world
from vlm_recipes.eval.report.data.page import Example, write_data_page

SOURCES = [
    path
    for folder in ("callbacks", "collators", "eval", "models", "recipes", "rows", "training")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
FORBIDDEN = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "pickle.load",
    "pickle.loads",
    "torch.load",
    "os.system",
    "joblib.load",
    "numpy.load",
    "np.load",
    "yaml.load",
    "yaml.unsafe_load",
}


def called(tree: ast.AST) -> set[str]:
    """The names, dotted as written, of all that is called, but for YAML's reader of nothing but texts."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {ast.unparse(one.func) for one in calls if "Loader=yaml.BaseLoader" not in map(ast.unparse, one.keywords)}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_loads_a_pickle_or_runs_text(path):
    tree = ast.parse(path.read_text())
    assert not called(tree) & FORBIDDEN
    remote = [
        node.value for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "trust_remote_code"
    ]
    assert all(isinstance(value, ast.Constant) and value.value is False for value in remote)
    safe = [node.value for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "use_safetensors"]
    assert all(isinstance(value, ast.Constant) and value.value is True for value in safe)


def test_the_search_finds_what_it_looks_for():
    assert called(ast.parse("import torch\nx = [torch.load(f) for f in files]")) == {"torch.load"}


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below, with its size and time of change."""
    paths = [Path(root, name) for root, _, names in os.walk(folder) for name in names]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory) -> tuple[Path, dict, dict]:
    """A run on rows whose ids are paths and whose texts are markup, in a folder whose name is; files before, after."""
    place = tmp_path_factory.mktemp("place")
    arguments = world("kvasir_vqa", place)
    dataset = place / "data"
    lines = [json.loads(line) for line in (dataset / "metadata.jsonl").read_text().splitlines()]
    for line in lines:
        line["img_id"] = f"../../{line['img_id']}{HOSTILE[:30]}"
        line["question"] = f"{line['question']} {HOSTILE}"
    (dataset / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    named = place / "<img src=x onerror=alert(1)>"
    dataset.rename(named)
    arguments[arguments.index("--dataset_name") + 1] = str(named)
    settings = "--use_cpu true --eval_strategy no --save_strategy steps --save_steps 1 --load_best_model_at_end false"
    settings += " --max_steps 1 --dataloader_num_workers 0 --eval_rows 4 --max_new_tokens 2 --disable_tqdm true"
    before, argv = files(place), sys.argv
    sys.argv = ["recipes/kvasir_vqa.py", *arguments, *settings.split(), "--output_dir", str(place / "out")]
    try:
        runpy.run_path(str(ROOT / "recipes" / "kvasir_vqa.py"), run_name="__main__")
    finally:
        sys.argv = argv
    return place, before, files(place)


def test_a_run_writes_into_its_output_folder_alone(hostile_run):
    place, before, after = hostile_run
    out = f"{place / 'out'}{os.sep}"
    assert {path: seen for path, seen in after.items() if not path.startswith(out)} == before
    assert {"report.html", "data.html", "preflight.json"} <= {
        Path(path).name for path in after if path.startswith(out)
    }


def test_neither_page_of_a_hostile_run_runs_a_script(hostile_run, tmp_path):
    for name in ("report.html", "data.html"):
        dom = chromium(hostile_run[0] / "out" / name, tmp_path / name, "--dump-dom")
        assert (
            "<title>Kvasir-VQA" in dom and "&lt;script&gt;" in dom and "<script" not in dom and "<img src=x" not in dom
        )


def test_the_model_card_holds_no_markup_of_the_data(hostile_run):
    card = (hostile_run[0] / "out" / "README.md").read_text()
    assert "<script" not in card and "onerror" not in card
    assert isinstance(yaml.safe_load(card.split("---")[1]), dict)


def test_chromium_runs_no_text_of_the_data_page(tmp_path):
    rows = [
        {
            "id": HOSTILE,
            "image_id": HOSTILE,
            "image_size": [40, 40],
            "question": HOSTILE,
            "answer": HOSTILE,
            "kind": HOSTILE,
        }
    ]
    examples = [Example(HOSTILE, [Image.new("RGB", (40, 40))], HOSTILE, HOSTILE)]
    path = write_data_page(tmp_path / "run", title="A run", parts={HOSTILE: rows}, examples=examples)
    dom = chromium(path, tmp_path / "profile", "--dump-dom")
    assert "<title>A run" in dom and dom.count("&lt;script&gt;") >= 4 and "<script" not in dom
