"""Each recipe looks at whole parts before it trains; what it watches while it trains is a sample of one of them."""

import importlib
import json

import pytest

from demo.worlds import small
from vlm_recipes.callbacks.preflight.callback import PreflightDone
from vlm_recipes.training.launch import RecipeParser
from vlm_recipes.training.run import Run

SETTINGS = "--max_steps 0 --use_cpu true --bf16 false --dataloader_num_workers 0 --disable_tqdm true".split()


class Enough(Exception):
    """The parts were seen."""


@pytest.mark.parametrize("name", small.SIZES)
def test_the_preflight_looks_at_whole_parts_and_only_the_trainer_s_rows_are_a_sample(name, tmp_path, monkeypatch):
    world, recipe = small.build(name, tmp_path), importlib.import_module(f"recipes.{name}")
    own, seen = Run.train, []

    def started(eval_rows: int) -> None:
        arguments = [*world, *SETTINGS, "--eval_rows", str(eval_rows), "--output_dir", str(tmp_path / f"{eval_rows}")]
        recipe.main(*RecipeParser((recipe.Data, recipe.Training, recipe.Model)).parse_args_and_config(arguments))

    def train(run, trainer, watch, *more, **stated):
        seen.append((run.parts, trainer.eval_dataset, watch.rows))
        if len(seen) == 1:  # of all rows, without a preflight
            raise Enough
        return own(run, trainer, watch, *more, **stated)

    monkeypatch.setattr(Run, "train", train)
    with pytest.raises(Enough):
        started(10_000)
    with pytest.raises(PreflightDone):
        started(1)
    (whole, all_of_them, _), (parts, sample, watched) = seen
    sizes = {part: len(rows) for part, rows in whole.items()}
    assert list(sizes) == ["train", "validation", "test"] and sizes["validation"] == len(all_of_them) > 1
    assert {part: len(rows) for part, rows in parts.items()} == sizes
    assert len(sample) == len(watched) == 1 and sample[0]["id"] == watched[0]["id"] in parts["validation"]["id"][:]
    lines = {line["name"]: line["numbers"] for line in json.loads((tmp_path / "1" / "preflight.json").read_text())}
    assert {part: lines["rows"][part] for part in sizes} == sizes
    assert {part: lines[f"baselines on {part}"]["n"] for part in ("validation", "test")} == {
        part: sizes[part] for part in ("validation", "test")
    }
