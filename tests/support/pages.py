"""What README, CONTRIBUTING.md and docs show: code by the headings that it stands under, links, tables."""

import re
from pathlib import Path

from tests.support.paths import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^(#+ [^\n]*)$|^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def code(page: Path, language: str) -> dict[str, list[str]]:
    """Heading -> the blocks in this language that stand under it; only headings that have some."""
    heading, found = "", {}
    for title, written_in, block in FENCED.findall(page.read_text(encoding="utf-8")):
        if title:
            heading = title.lstrip("# ")
        elif written_in == language:
            found.setdefault(heading, []).append(block)
    return found


def without_code(page: Path) -> str:
    """The page's text, without its blocks of code."""
    return FENCED.sub(lambda found: found[1] or "", page.read_text(encoding="utf-8"))


def table_rows(page: Path) -> list[list[str]]:
    """The cells of all tables, row by row, without their heads; a link is its text."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", without_code(page))
    tables = re.findall(r"^\|.*\n\|(?: *:?-+:? *\|)+\n((?:\|.*(?:\n|\Z))*)", text, re.MULTILINE)
    rows = "".join(tables).splitlines()
    return [[cell.strip() for cell in row.strip().removeprefix("|").removesuffix("|").split(" | ")] for row in rows]
