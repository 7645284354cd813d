"""Launch lines that can be pasted one after the other: each writes to a folder of its own."""

import re
import shlex
from importlib import import_module

import pytest

from tests.support.paths import ROOT
from vlm_recipes.training.folder import differences, run_of
from vlm_recipes.training.launch import RecipeParser

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("recipes/*.py"), *ROOT.glob("demo/**/*.py")]
PAGES += [*ROOT.glob("benchmarks/*.py"), *ROOT.glob("demo/configs/*.yaml"), *ROOT.glob("accelerate_configs/*.yaml")]
LINE = re.compile(r"accelerate launch [^`\n]*?recipes/(\w+)\.py([^`\n]*)|`recipes/(\w+)\.py( --[^`\n]*)")


def launch_lines() -> list[tuple[str, str, str]]:
    """Where each stands, its recipe and what that is told."""
    found = []
    for page in sorted(PAGES):
        text = re.sub(r" *\\\n *", " ", page.read_text(encoding="utf-8"))
        for match in LINE.finditer(text):
            told = (match[2] if match[1] else match[4]).split("  ")[0]  # two blanks begin a comment
            found.append((page.name, match[1] or match[3], told))
    return found


LINES = launch_lines()


def test_the_pages_have_launch_lines_of_every_recipe():
    assert len(LINES) > 30
    for page in ("README.md", *(path.name for path in ROOT.glob("recipes/*.py"))):
        assert any(where == page for where, _, _ in LINES), page
    assert {recipe for _, recipe, _ in LINES} == {path.stem for path in ROOT.glob("recipes/*.py")}


@pytest.mark.parametrize(("page", "recipe", "told"), LINES)
def test_a_launch_line_says_where_it_writes(page, recipe, told):
    assert re.search(r"--output_dir \S", told), f"{page}: {recipe}.py{told}"


def test_lines_with_the_same_folder_are_the_same_run():
    """As the refusal tells runs apart: all of these can be started, in any order."""
    owners = {}
    for page, recipe, told in LINES:
        arguments = shlex.split(told, comments=True)
        folder = arguments[arguments.index("--output_dir") + 1]
        if folder == "…" or "--config" in arguments:  # the reader's own, and a file that is not there
            continue
        module = import_module(f"recipes.{recipe}")
        data, training, model = RecipeParser((module.Data, module.Training, module.Model)).parse_args_and_config(
            [*arguments, "--use_cpu", "true", "--bf16", "false"]
        )
        asked = {"training": training.to_dict(), "data": vars(data), "model": vars(model)}
        run = run_of(recipe, asked)
        before = owners.setdefault(folder, run)
        changed = "another recipe" if before["recipe"] != recipe else differences(before, run)
        assert not changed, f"{page}: {recipe}.py{told}: {changed}"
    assert len(owners) > 20
