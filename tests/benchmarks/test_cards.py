"""The page about cards and the comments of their launch configs say the same, of every recipe on every card."""

import re

import pytest

from benchmarks.cards import CONFIGS, PAGE, Cell, cell_of_line, cells_of, comments, page, with_comments
from benchmarks.full_size_worlds import WORLDS
from vlm_recipes.training.plan.gpus import ALLOWANCE, GPUS


def cells(text: str) -> list[Cell]:
    """What the page says."""
    return [
        cell_of_line(line, card)
        for card, table in zip(GPUS, re.split(r"^## ", text, flags=re.MULTILINE)[1:], strict=True)
        for line in table.splitlines()
        if line.startswith("| ") and not line.startswith(("| recipe", "| ---"))
    ]


def test_the_page_has_every_recipe_on_every_card():
    found = cells(PAGE.read_text(encoding="utf-8"))
    assert [(one.recipe, one.card) for one in found] == [(recipe, card) for card in GPUS for recipe in WORLDS]


@pytest.mark.parametrize("card", GPUS)
def test_the_launch_config_of_a_card_says_what_the_page_says(card):
    text = (CONFIGS / f"{card}.yaml").read_text(encoding="utf-8")
    assert with_comments(text, card, cells(PAGE.read_text(encoding="utf-8"))) == text
    assert text.count("#   nutrition_tables: ") == 1


def test_the_page_is_read_as_it_was_written():
    made = [
        Cell("kvasir_vqa", "a100_40gb", "", "17.2", "6 h 3 min", 16.6),
        Cell("nutrition_tables", "a100_40gb", "--max_pixels 501760", "8.2", "40 s", 17.8),
        Cell("vqa_rad", "rtx_8gb", "does not fit"),
    ]
    text = page(made, 5.0, 6.0)
    assert [(one.recipe, one.card, one.flags, one.gib, one.training) for one in cells(text)] == [
        (one.recipe, one.card, one.flags, one.gib, one.training) for one in [made[2], *made[:2]]
    ]
    assert comments("a100_40gb", cells(text)) == comments("a100_40gb", made)


@pytest.mark.slow
def test_a_recipe_is_planned_in_its_world():
    [cell] = cells_of("ssg_vqa", ("a100_40gb",), toy=True)
    assert (cell.recipe, cell.card, cell.flags) == ("ssg_vqa", "a100_40gb", "")
    assert ALLOWANCE <= float(cell.gib) < 1 and cell.training and cell.tensors > 0
