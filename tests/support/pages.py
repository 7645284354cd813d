"""What README, CONTRIBUTING.md and docs show: their code, by the headings that it stands under."""

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
