"""An evaluation while a recipe trains takes the loss over the rows that it answers, and over no others."""

import importlib

import pytest

from demo.worlds.small import SIZES, build
from vlm_recipes.training.launch import RecipeParser
from vlm_recipes.training.run import Run

LAUNCH = "--use_cpu true --bf16 false --dataloader_num_workers 0 --eval_rows 2".split()
MORE = {"nutrition_tables": {"train": 40}, "reasonseg": {"val": 4}}


@pytest.mark.parametrize("name", SIZES)
def test_the_loss_is_taken_over_the_watched_rows_alone(name, tmp_path, monkeypatch):
    recipe, given = importlib.import_module(f"recipes.{name}"), []
    monkeypatch.setattr(Run, "train", lambda run, trainer, watch, *more, **named: given.append((run, trainer, watch)))
    monkeypatch.setattr(Run, "conclude", lambda run, network, *others: None)
    arguments = [*build(name, tmp_path, **MORE.get(name, {})), *LAUNCH, "--output_dir", str(tmp_path / "out")]
    recipe.main(*RecipeParser((recipe.Data, recipe.Training, recipe.Model)).parse_args_and_config(arguments))
    [(run, trainer, watch)] = given
    assert watch.rows is trainer.eval_dataset and len(watch.rows) == 2 < len(run.parts["validation"])
    assert len(trainer.get_eval_dataloader().dataset) == 2
