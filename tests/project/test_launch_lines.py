"""Command lines that can be pasted one after the other: each is read, and each launch writes to its own folder."""

import argparse
import re
import shlex
import sys
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import pytest

from demo.worlds.build import DEMO, RECIPES
from tests.support.pages import PAGES as READ
from tests.support.pages import code, without_code
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
    for page in ("README.md", "recipes.md", "data.md", *(path.name for path in ROOT.glob("recipes/*.py"))):
        assert any(where == page for where, _, _ in LINES), page
    assert {recipe for _, recipe, _ in LINES} == {path.stem for path in ROOT.glob("recipes/*.py")}


@pytest.mark.parametrize(("page", "recipe", "told"), LINES)
def test_a_launch_line_says_where_it_writes(page, recipe, told):
    assert re.search(r"--output_dir \S", told), f"{page}: {recipe}.py{told}"


def parsed(recipe: str, arguments: list[str]) -> tuple:
    """Data, training and model as the recipe reads them."""
    module = import_module(f"recipes.{recipe}")
    parser = RecipeParser((module.Data, module.Training, module.Model))
    return parser.parse_args_and_config([*arguments, "--use_cpu", "true", "--bf16", "false"])


@pytest.mark.parametrize(("page", "recipe", "told"), LINES)
def test_a_launch_line_is_read_by_its_recipe(page, recipe, told, tmp_path):
    arguments = [str(tmp_path) if word == "…" else word for word in shlex.split(told, comments=True)]
    if "--config" in arguments and not (ROOT / arguments[arguments.index("--config") + 1]).exists():
        place = arguments.index("--config")  # what a run will have left
        del arguments[place : place + 2]
    parsed(recipe, arguments)


def test_lines_with_the_same_folder_are_the_same_run():
    """As the refusal tells runs apart: all of these can be started, in any order."""
    owners = {}
    for page, recipe, told in LINES:
        arguments = shlex.split(told, comments=True)
        folder = arguments[arguments.index("--output_dir") + 1]
        if folder == "…" or "--config" in arguments:  # the reader's own, and a file that is not there
            continue
        data, training, model = parsed(recipe, arguments)
        asked = {"training": training.to_dict(), "data": vars(data), "model": vars(model)}
        run = run_of(recipe, asked)
        before = owners.setdefault(folder, run)
        changed = "another recipe" if before["recipe"] != recipe else differences(before, run)
        assert not changed, f"{page}: {recipe}.py{told}: {changed}"
    assert len(owners) > 20


class Understood(Exception):
    """A command has read its arguments; here it goes no further."""


SPOKEN = re.compile(r"`((?:\w+=\S+ )*(?:make|vlm-\w+|python -m|pytest|sbatch|accelerate) [^`]+)`")


def commands() -> list[tuple[str, str]]:
    """Where each stands, and itself: lines of shell blocks, and what pages quote, without comments."""
    found = []
    for page in READ:
        lines = "\n".join(chain(*code(page, "bash").values())).replace("\\\n", " ").splitlines()
        lines = [command for line in lines for command in line.split("&&")]
        lines += [re.sub(r"\s+", " ", line) for line in SPOKEN.findall(without_code(page))]
        found += [(page.name, line.strip()) for line in lines if shlex.split(line, comments=True)]
    return found


COMMANDS = commands()
KINDS = {"accelerate", "git", "cd", "ln", "make", "mkdir", "pip", "pytest", "python", "sbatch"}
KINDS |= {"vlm-ask", "vlm-compare", "vlm-export", "vlm-score"}


def words_of(command: str) -> list[str]:
    """Its words, without variables that are set before it."""
    words = shlex.split(command, comments=True)
    while re.fullmatch(r"\w+=\S*", words[0]):
        words = words[1:]
    return [words[0].removeprefix(".venv/bin/"), *words[1:]]


def test_the_pages_have_commands_of_every_kind():
    assert {words_of(command)[0] for _, command in COMMANDS} == KINDS and len(COMMANDS) > 70


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_is_read_by_what_it_calls(page, command, monkeypatch):
    first, *told = words_of(command)
    if first == "accelerate" and told[0] == "launch" and "--config_file" in told:
        assert (ROOT / told[told.index("--config_file") + 1]).is_file()
    elif first == "make":
        targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
        named = dict(word.split("=") for word in told if "=" in word)
        assert {word for word in told if "=" not in word} <= {*targets}
        assert named.keys() <= {"RECIPE"} and {*named.values()} <= {*DEMO, "…"}
    elif first == "sbatch":
        assert all((ROOT / word).is_file() for word in told if word.endswith(".sbatch"))
        assert any(word.endswith(".sbatch") for word in told)
    elif first == "pytest" or told[:2] == ["-m", "pytest"]:
        tests = [word for word in told if word.startswith("tests/")]
        assert tests and all((ROOT / word).exists() for word in tests)
    elif first == "pip":
        assert all((ROOT / after).is_file() for flag, after in zip(told, told[1:], strict=False) if flag == "-r")
    elif first.startswith("vlm-"):
        [entry] = entry_points(group="console_scripts", name=first)
        assert read(lambda: entry.load()(), told, monkeypatch) == []
    elif first == "python" and told[0].startswith("recipes/"):
        parsed(Path(told[0]).stem, told[1:])
    elif told[:2] == ["-m", "demo"]:  # it hands on what the recipe reads
        more = read(import_module("demo.__main__").main, told[2:], monkeypatch)
        parsed(RECIPES.get(told[2], told[2]), more)
    elif first == "python" and "…" not in told[1]:
        module = import_module(f"{told[1]}.__main__" if find_spec(told[1]).submodule_search_locations else told[1])
        source = Path(module.__file__).read_text(encoding="utf-8")
        if "ArgumentParser(" in source:
            assert read(module.main, told[2:], monkeypatch) == []
        else:  # some want a file
            assert len(told) == 2 + ("sys.argv[1" in source)


def read(call, told: list[str], monkeypatch) -> list[str]:
    """Call a command until its parser has read what it is told; returns what is left over."""
    whole = argparse.ArgumentParser.parse_known_args

    def parse(self, args=None, namespace=None):
        namespace, unread = whole(self, args, namespace)
        raise Understood(unread)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse)
    monkeypatch.setattr(sys, "argv", ["command", *[word.replace("…", "kvasir_vqa") for word in told]])
    with pytest.raises(Understood) as understood:
        call()
    monkeypatch.undo()
    [unread] = understood.value.args
    return unread
