"""What each recipe's preflight says of a step, against the first steps that the training then takes."""

import importlib
import json
import statistics
import time

import pytest
from torch.nn import functional as F
from transformers import Trainer

from demo.worlds.small import SIZES
from tests.support.profiled import peak_of
from tests.support.worlds import world
from vlm_recipes.callbacks.preflight import batches
from vlm_recipes.training.launch import RecipeParser

ALL_ROWS_IN_ONE_STEP = {"per_device_train_batch_size": 1000, "gradient_accumulation_steps": 1, "max_steps": 3}
ROWS = {"ssg_vqa": 60}  # questions, of which its images have many; else 12 rows
SETTINGS = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": "false", "do_predict": "false"}
SETTINGS |= {"use_cpu": "true", "bf16": "false", "dataloader_num_workers": 0, "disable_tqdm": "true"}
LOOKS = 3  # the preflight's own steps

pytestmark = pytest.mark.usefixtures("figures_are_blank")


@pytest.mark.parametrize("name", SIZES)
def test_the_first_step_has_the_loss_time_and_memory_that_the_preflight_says(name, tmp_path, monkeypatch):
    arguments = [*world(name), "--output_dir", str(tmp_path / "out")]
    rows = {"max_train_rows": ROWS.get(name, 12)}
    for key, value in (ALL_ROWS_IN_ONE_STEP | SETTINGS | rows).items():
        arguments += [f"--{key}", str(value)]
    monkeypatch.setattr(batches, "INSPECTED", 10_000)  # so that the longest rows are all rows
    # The rows come in another order than the preflight's: what is dropped would differ.
    attention = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "dropout", lambda values, *arguments, **settings: values)
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *inputs, dropout_p=0.0, **settings: attention(*inputs, **settings)
    )
    recipe, losses, seconds, memory = importlib.import_module(f"recipes.{name}"), [], [], []
    own_step = Trainer.training_step

    def step(trainer, model, inputs, *more):
        start, taken = time.perf_counter(), []
        if len(losses) == LOOKS:
            held = [*model.parameters(), *model.buffers()]
            memory.append(peak_of(lambda: taken.append(own_step(trainer, model, inputs, *more)), held, inputs))
        else:
            taken.append(own_step(trainer, model, inputs, *more))
        losses.append(taken[0].item())
        seconds.append(time.perf_counter() - start)
        return taken[0]

    monkeypatch.setattr(Trainer, "training_step", step)
    recipe.main(*RecipeParser((recipe.Data, recipe.Training, recipe.Model)).parse_args_and_config(arguments))
    lines = {line["name"]: line["numbers"] for line in json.loads((tmp_path / "out/preflight.json").read_text())}
    assert len(losses) == LOOKS + 3
    assert lines["first loss"]["loss"] == pytest.approx(losses[LOOKS], rel=1e-4) == pytest.approx(losses[0])
    assert lines["longest batch"]["gib"] * 2**30 == pytest.approx(memory[0], rel=0.002)
    assert 1 / 3 < lines["longest batch"]["seconds"] / statistics.median(seconds[LOOKS + 1 :]) < 3
