"""The recipes' measurement at full size, at a size that needs no GPU."""

import json

import pytest
import torch

from benchmarks import full_size_recipes
from benchmarks.full_size_worlds import WORLDS
from vlm_recipes.models import checkpoints
from vlm_recipes.models.lisa import loading

AT_ONCE = ("nutrition_tables", "reasonseg")  # an SFTTrainer's and a composed one; all in `make test-slow`
RECIPES = [pytest.param(name, marks=[] if name in AT_ONCE else pytest.mark.slow) for name in WORLDS]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_trains_on_random_weights_and_its_preflight_s_numbers_stand_beside(recipe, capsys):
    before = checkpoints.load_weights, loading.load_weights
    [row] = full_size_recipes.measure(True, recipe)
    assert row["what"] == recipe and row["s/step"] > 0 and row["rows/step"] > 0
    assert row["preflight's s/step"] > 0 and row["preflight's GB"] > 0
    assert row["--plan's GB"] > 0  # of a GPU: on a CPU the preflight's are others
    printed = capsys.readouterr().out
    assert "✓ gradients" in printed and "✓ longest batch" in printed and f"{recipe}: " in printed
    assert (checkpoints.load_weights, loading.load_weights) == before
    json.dumps(row)


def test_a_step_lasts_from_one_optimizer_step_to_the_next():
    watch = full_size_recipes.Watch()
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight])
    handle = full_size_recipes.register_optimizer_step_post_hook(watch.stepped)
    optimizer.step()
    optimizer.step()
    handle.remove()
    optimizer.step()
    assert len(watch.moments) == 2 and watch.moments[0] < watch.moments[1]
