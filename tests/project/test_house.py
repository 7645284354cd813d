"""The README's tree, the launch configs and the packaging say what is there."""

import re

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from tests.support.paths import ROOT

CONFIGS = sorted((ROOT / "accelerate_configs").glob("*.yaml"))
NAMES = {"cpu", "rtx_8gb", "t4_16gb", "a100_40gb", "h100_80gb", "ddp", "zero2", "zero3", "zero3_offload", "fsdp2"}
NAMES |= {"multinode_ddp", "multinode_zero3"}


def test_every_file_of_the_readme_s_tree_exists_and_no_module_is_missing():
    tree = (ROOT / "README.md").read_text().split("```")[3]
    folder, named = "", set()
    for line in tree.splitlines():
        if match := re.match(r"(\w+)/ ", line):
            folder = match[1]
        for name in re.findall(r"\w+\.py", line.split("   ")[0] if line.startswith(" ") is False else line):
            named.add(f"{folder}/{name}")
    there = {
        str(path.relative_to(ROOT))
        for folder in ("recipes", "collators", "callbacks", "eval")
        for path in (ROOT / folder).glob("*.py")
        if path.name != "__init__.py"
    }
    assert {name for name in named if not (ROOT / name).is_file()} == set()
    assert there - named == set()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_the_launch_config_and_each_line_of_it_says_why(path):
    config = load_config_from_file(str(path))
    assert config.mixed_precision == {"cpu": "no", "t4_16gb": "fp16"}.get(path.stem, "bf16")
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert all("#" in line or line.endswith(":") for line in lines)
    assert config.num_processes == (1 if yaml.safe_load(path.read_text())["distributed_type"] == "NO" else 2)


def test_the_launch_configs_are_the_twelve_that_are_named_here_and_the_recipes_name_no_other():
    assert {path.stem for path in CONFIGS} == NAMES
    text = "".join(path.read_text() for path in (ROOT / "recipes").glob("*.py")) + (ROOT / "README.md").read_text()
    assert set(re.findall(r"accelerate_configs/(\w+)\.yaml", text)) <= NAMES
