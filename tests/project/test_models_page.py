"""docs/models.md says what happens: its cells are tried anew, those of trainings also in `tests/recipes`."""

import pytest

from tests.support.families import FAMILIES, STRANGERS
from tests.support.families.table import COLUMNS, NAMES, PAGE, TRIED, cell, documented, page

EVERY = (*FAMILIES, *STRANGERS)
pytestmark = [
    pytest.mark.filterwarnings("ignore:the chat template writes nothing behind an answer"),
    pytest.mark.usefixtures("figures_are_blank"),
]


def test_the_page_has_every_cell_and_is_as_it_would_be_written():
    cells = documented()
    assert cells.keys() == {(family, column) for family in EVERY for column in COLUMNS} and all(cells.values())
    assert NAMES.keys() == {*EVERY}
    assert PAGE.read_text(encoding="utf-8") == page(cells)


@pytest.mark.parametrize("family", EVERY)
def test_what_the_page_says_of_rows_boxes_and_lora_happens(family):
    said = documented()
    assert {column: cell(family, column) for column in TRIED} == {column: said[family, column] for column in TRIED}


@pytest.mark.slow
@pytest.mark.parametrize("column", ["resumed", "exported"])
@pytest.mark.parametrize("family", EVERY)
def test_what_the_page_says_of_checkpoints_and_exports_happens(family, column):
    assert cell(family, column) == documented()[family, column]
