"""README and docs as a reader meets them: short, every link leads somewhere, tables that can be read."""

import re
from pathlib import Path

import pytest
import yaml

from tests.support.pages import PAGES, code, table_rows, without_code
from tests.support.paths import ROOT

README = ROOT / "README.md"
LINK = re.compile(r"\[(?:[^][]|\[[^]]*\])*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Those of its headings, as GitHub makes them: lower case, blanks as hyphens, no other sign but `_`."""
    titles = re.findall(r"^#+ (.*)$", without_code(page), re.MULTILINE)
    names = [re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", title).lower()).replace(" ", "-") for title in titles]
    return {name if not names[:i].count(name) else f"{name}-{names[:i].count(name)}" for i, name in enumerate(names)}


def test_anchors_are_those_of_github(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One, `two_b`: [three](x.md)\n```\n# no heading\n```\n## Same\n### Same\n## What's 4-D?\n")
    assert anchors(page) == {"one-two_b-three", "same", "same-1", "whats-4-d"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(page):
    for link in LINK.findall(without_code(page)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists() and (not anchor or anchor in anchors(target)), link


def test_readme_has_at_most_130_lines_and_links_to_every_page():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 130
    linked = {(ROOT / link.partition("#")[0]) for link in LINK.findall(without_code(README))}
    assert {page for page in PAGES if page != README} <= linked


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_cell_of_a_table_holds_a_paragraph(page):
    assert [cell for row in table_rows(page) for cell in row if len(cell) > 120] == []


def test_cells_are_read_without_heads_links_and_code(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "| a | b |\n| --- | ---: |\n| [one](two.md) | 2 |\n| 3 | `4` |\n\n```\n| x | y |\n```\n| c |\n| - |\n| d |"
    )
    assert table_rows(page) == [["one", "2"], ["3", "`4`"], ["d"]]


def test_readme_s_tree_has_a_line_for_every_folder_and_names_nothing_that_is_not_there():
    [tree] = [block for blocks in code(README, "").values() for block in blocks if block.startswith("recipes/ ")]
    named = [line.split()[0] for line in tree.splitlines()]
    kinds = {".py", ".yaml", ".sbatch"}
    ours = [path for path in ROOT.glob("[!.]*/") if path.name not in ("outputs", "build", "data")]
    folders = {f"{path.name}/" for path in ours if kinds & {file.suffix for file in path.rglob("[!.]*")}}
    assert folders == {*named} and len({*named}) == len(named)


def test_readme_s_own_numbers_are_those_of_measured_md():
    prose = re.sub(r"^\|.*$", "", without_code(README), flags=re.MULTILINE)
    shown = set(re.findall(r"(?<!\d)\.\d{3}", prose))
    assert shown and shown <= set(re.findall(r"(?<!\d)\.\d{3}", (ROOT / "docs" / "measured.md").read_text()))


def test_numbers_called_published_are_those_of_published_yaml():
    """To the three digits shown; in README's table of recipes, and in the one that says whose they are."""
    published = yaml.safe_load((ROOT / "recipes" / "published.yaml").read_text())
    known = {
        recipe: {
            f"{value:.3f}"[1:] for row in entry.get("rows", ()) for value in row.values() if isinstance(value, float)
        }
        for recipe, entry in published.items()
    }
    found = 0
    for page, column in ((README, 4), (ROOT / "docs" / "recipes.md", 1)):
        for row in table_rows(page):
            if (recipe := row[0].strip("`")) in known:
                shown = re.findall(r"(?<!\d)\.\d{3}", row[column])
                assert set(shown) <= known[recipe], row
                found += len(shown)
    assert found >= 15
