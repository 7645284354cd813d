"""Each recipe hands `--background` to each of its collators."""

import ast

import pytest

from tests.support.paths import ROOT
from vlm_recipes.training.settings import RowSettings

RECIPES = sorted((ROOT / "recipes").glob("*.py"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)
def test_every_collator_of_a_recipe_gets_what_the_row_settings_say_of_pictures(recipe):
    calls = [node for node in ast.walk(ast.parse(recipe.read_text())) if isinstance(node, ast.Call)]
    made = [call for call in calls if ast.unparse(call.func).lower().endswith("collator")]
    assert len(made) == 2  # to train, and to answer
    for call in made:
        assert "data.shown" in [ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg is None]


def test_these_are_the_background_that_is_asked_for():
    assert RowSettings(dataset_name="").shown == {"background": "white"}
    assert RowSettings(dataset_name="", background="black").shown == {"background": "black"}
