"""The page of symptoms says what the code says, and each of its lines is provoked by a test."""

import re

import pytest

from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
SOURCES = "".join(
    path.read_text()
    for folder in ("callbacks", "collators", "eval", "models", "recipes", "rows", "training")
    for path in sorted((ROOT / folder).rglob("*.py"))
)
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and "---" not in line and not line.startswith("| symptom")
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[3].split("::")[-1].strip(" `|"))
def test_the_line_is_in_the_code_and_a_test_provokes_it(row):
    assert len(row) == 4
    for piece in re.search("`(.+)`", row[2])[1].split("…"):
        assert piece in re.sub(r'"\s*\n\s*f?"', "", SOURCES)  # texts that go on in the next line
    file, test = row[3].strip("` |").split("::")
    assert f"def {test}(" in (ROOT / "tests" / file).read_text()


def test_the_page_has_entries_for_before_and_after():
    assert len(ROWS) >= 20
