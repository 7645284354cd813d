"""The tree of files and the launch configs say what is there; no file has grown too long to read."""

import re

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from tests.support.pages import PAGES, code
from tests.support.paths import ROOT

CONFIGS = sorted((ROOT / "accelerate_configs").glob("*.yaml"))
NAMES = {"cpu", "rtx_8gb", "t4_16gb", "a100_40gb", "h100_80gb", "ddp", "zero2", "zero3", "zero3_offload", "fsdp2"}
NAMES |= {"multinode_ddp", "multinode_zero3"}


ROOMS = ("callbacks", "collators", "eval", "models", "rows", "training")
PRODUCT = sorted(
    file for folder in ROOMS for suffix in ("py", "jinja") for file in (ROOT / folder).rglob(f"*.{suffix}")
)


def paths_of(tree: str) -> dict[str, str]:
    """Path -> what is said of it: a folder's name ends with "/", what stands in it is set in by two blanks more."""
    found, folders = {}, []
    for line in tree.splitlines():
        blanks, name, about = re.fullmatch(r"( *)(\S+)(?: +(.*))?", line).groups()
        folders = folders[: len(blanks) // 2]
        found["".join([*folders, name])] = about
        if name.endswith("/"):
            folders.append(name)
    return found


def test_a_tree_is_read_by_its_indentation():
    assert paths_of("a/   rooms\n  b/\n    c.py  one\n  d.py  two\ne/  more") == {
        "a/": "rooms",
        "a/b/": None,
        "a/b/c.py": "one",
        "a/d.py": "two",
        "e/": "more",
    }


def test_the_tree_has_a_line_for_every_module_and_names_nothing_that_is_not_there():
    [tree] = code(ROOT / "docs" / "development.md", "")["The tree"]
    named = paths_of(tree.strip("\n"))
    modules = [file for folder in ("recipes", *ROOMS) for file in (ROOT / folder).rglob("*.py")]
    there = {file.relative_to(ROOT).as_posix() for file in modules if file.name != "__init__.py"}
    rooms = {f"{file.parent.relative_to(ROOT).as_posix()}/" for file in modules}
    assert {path for path in named if not (ROOT / path).exists()} == set()
    assert there | rooms <= set(named), there | rooms - set(named)
    assert all(named.values()), [path for path, about in named.items() if not about]


def test_tests_and_modules_that_the_pages_name_are_there():
    pages = "".join(path.read_text() for path in PAGES)
    tests = set(re.findall(r"tests/[\w/]+\.py", pages))
    tests |= {
        f"tests/{path}" for path in re.findall(r"`((?:\w+/)+\w+\.py)`", (ROOT / "docs" / "guarantees.md").read_text())
    }
    modules = set(re.findall(r"python -m ((?:vlm_recipes|benchmarks|demo)[\w.]*)", pages))
    files = {module.removeprefix("vlm_recipes.").replace(".", "/") for module in modules}
    assert len(tests) > 80 and len(files) > 4
    assert [path for path in tests if not (ROOT / path).is_file()] == []
    assert [
        path for path in files if not any((ROOT / f"{path}{end}").is_file() for end in (".py", "/__main__.py"))
    ] == []


@pytest.mark.parametrize("file", PRODUCT, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_no_file_but_a_recipe_is_longer_than_200_lines(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_the_launch_config_and_each_line_of_it_says_why(path):
    config = load_config_from_file(str(path))
    assert config.mixed_precision == {"cpu": "no", "t4_16gb": "fp16"}.get(path.stem, "bf16")
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert all("#" in line or line.endswith(":") for line in lines)
    assert config.num_processes == (1 if yaml.safe_load(path.read_text())["distributed_type"] == "NO" else 2)


@pytest.mark.parametrize("path", [path for path in CONFIGS if path.stem != "cpu"], ids=lambda path: path.stem)
def test_the_launch_config_says_on_what_it_has_been_run(path):
    head = path.read_text().split("distributed_type")[0]
    assert len(re.findall(r"^# (?:Not run yet|Run so far): \w+ .*\.", head, re.MULTILINE)) == 1


def test_the_launch_configs_are_the_twelve_that_are_named_here_and_no_recipe_or_page_names_another():
    assert {path.stem for path in CONFIGS} == NAMES
    text = "".join(path.read_text() for path in [*(ROOT / "recipes").glob("*.py"), *PAGES])
    assert set(re.findall(r"accelerate_configs/(\w+)\.yaml", text)) <= NAMES
