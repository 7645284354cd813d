"""What all recipes set alike: limits of rows, a learning rate for the vision tower, what a run was trained with."""

import ast
import json
from pathlib import Path

import pytest
import torch
import yaml
from datasets import Dataset
from transformers import AutoModelForImageTextToText, Trainer, TrainingArguments

from demo.worlds.small import SIZES
from recipes import vqa_rad
from tests.support import tiny
from tests.support.left import VALIDATED, quick_look
from tests.support.paths import ROOT
from tests.support.running import fails, read
from tests.support.worlds import world
from vlm_recipes.training.launch import RecipeParser
from vlm_recipes.training.published import other_rows, published_numbers
from vlm_recipes.training.runs import load_recipe
from vlm_recipes.training.settings import RowSettings
from vlm_recipes.training.trainers import RateError, with_rate_of_vision

RECIPES = sorted((ROOT / "recipes").glob("*.py"))
SHORT = "--max_steps 2 --logging_steps 1 --eval_strategy no --save_strategy no --load_best_model_at_end false "
SHORT += "--use_cpu true --bf16 false --dataloader_num_workers 0 --disable_tqdm true --gradient_accumulation_steps 2"

pytestmark = pytest.mark.usefixtures("figures_are_blank")


def test_each_part_is_limited_to_its_first_rows(tmp_path):
    parts = [Dataset.from_dict({"id": list(range(n))}) for n in (5, 4, 3)]
    training = vqa_rad.Training(str(tmp_path), use_cpu=True)
    limited = RowSettings(max_train_rows=2, max_test_rows=9).limited(*parts, training)
    assert [part["id"][:] for part in limited] == [[0, 1], [0, 1, 2, 3], [0, 1, 2]]
    assert RowSettings(max_train_rows=2).limited(None, None, parts[2], training)[:2] == [None, None]


@pytest.mark.parametrize("none", [0, -1])
def test_a_limit_that_leaves_no_row_is_one_line(none, tmp_path, monkeypatch):
    arguments = [*world("vqa_rad"), "--output_dir", str(tmp_path / "out"), *SHORT.split()]
    line = fails("vqa_rad", *arguments, "--max_test_rows", str(none), monkeypatch=monkeypatch)
    assert line == "error: --max_train_rows, --max_validation_rows and --max_test_rows have to be 1 or more"


def test_the_watched_rows_are_the_same_ones_for_a_seed_and_never_more_than_there_are():
    rows = Dataset.from_dict({"id": list(range(20))})
    few, again, others = (RowSettings(eval_rows=5).watched(rows, seed)["id"][:] for seed in (0, 0, 1))
    assert few == again != others and len(set(few)) == 5
    assert sorted(RowSettings(eval_rows=50).watched(rows, 0)["id"]) == list(range(20))


@pytest.mark.parametrize("name", SIZES)
def test_a_quick_look_trains_validates_and_tests_on_so_many_questions(name):
    """And the record says what was asked and what was trained."""
    out, _ = quick_look(name)
    results = read(out)["results"]
    assert {split: metrics["n"] for split, metrics in results.items() if "shuffled" not in split} == (
        {"validation": 2, "test": 1} if name in VALIDATED else {"test": 1}
    )
    preflight = json.loads((out / "preflight.json").read_text())
    assert next(line for line in preflight if line["name"] == "rows")["found"].startswith("train 4 on ")
    run = json.loads((out / "run.json").read_text())
    assert run["arguments"]["training"]["gradient_accumulation_steps"] == 2  # as asked
    used = run["arguments"]["training"] | run["trained_with"]
    assert 1 <= used["per_device_train_batch_size"] <= run["arguments"]["training"]["per_device_train_batch_size"]
    batch = {"per_device_train_batch_size", "gradient_accumulation_steps"}
    assert run["trained_with"].keys() <= batch | {"ddp_find_unused_parameters"}  # SFTTrainer's own


def test_the_vision_tower_trains_at_a_rate_of_its_own_under_the_same_schedule(tmp_path):
    settings = {"report_to": "none", "use_cpu": True, "remove_unused_columns": False, "disable_tqdm": True}
    args = TrainingArguments(tmp_path, learning_rate=1e-3, weight_decay=0.1, max_steps=4, **settings)
    network = AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl())
    trainer = Trainer(network, args, train_dataset=tiny.chat_rows())
    with_rate_of_vision(trainer, 1e-5)
    trainer.create_optimizer_and_scheduler(4)
    names = {id(weight): name for name, weight in network.named_parameters()}
    seen = {names[id(weight)]: group for group in trainer.optimizer.param_groups for weight in group["params"]}
    assert seen.keys() == set(names.values())
    rates = {name: group["initial_lr"] for name, group in seen.items()}
    assert {name for name, rate in rates.items() if rate == 1e-5} == {
        name for name in rates if "visual" in name and "merger" not in name
    }
    assert {rate for rate in rates.values()} == {1e-5, 1e-3}
    decays = {group["weight_decay"] for name, group in seen.items() if "visual" in name and "merger" not in name}
    assert decays == {0.0, 0.1}  # biases and norms keep theirs
    trainer.lr_scheduler.step()
    shares = [group["lr"] / group["initial_lr"] for group in trainer.optimizer.param_groups]
    assert shares == pytest.approx([0.75] * len(shares))


def test_a_rate_for_a_vision_tower_that_does_not_train_is_one_line(tmp_path, monkeypatch):
    arguments = [*world("kvasir_vqa"), "--output_dir", str(tmp_path / "out"), *SHORT.split()]
    line = fails("kvasir_vqa", *arguments, "--vision_learning_rate", "1e-5", monkeypatch=monkeypatch)
    assert line == "error: --vision_learning_rate 1e-05: no weight of a vision tower trains"
    network = torch.nn.Linear(2, 2)
    with pytest.raises(RateError, match="no weight"):
        with_rate_of_vision(Trainer(network, TrainingArguments(tmp_path, report_to="none", use_cpu=True)), 1e-5)


@pytest.mark.parametrize("kind", ["is_deepspeed_enabled", "is_fsdp_enabled"])
def test_where_one_rate_would_train_all_a_rate_for_the_vision_tower_is_refused(kind, tmp_path):
    args = TrainingArguments(tmp_path, report_to="none", use_cpu=True)
    trainer = Trainer(AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl()), args)
    setattr(trainer, kind, True)
    with pytest.raises(RateError, match="DeepSpeed and FSDP have one rate for all"):
        with_rate_of_vision(trainer, 1e-5)


def test_every_recipe_s_published_numbers_are_read_and_a_copy_without_the_file_has_its_name_for_a_title(tmp_path):
    listed = yaml.safe_load((ROOT / "recipes" / "published.yaml").read_text())
    assert {recipe.stem for recipe in RECIPES} | {"real_colon"} == set(listed)
    for recipe in RECIPES:
        title, published = published_numbers(recipe, recipe.stem)
        assert title == listed[recipe.stem]["title"]
        if recipe.stem == "visual_chat":  # nobody's are known
            assert published is None
            continue
        assert published.source == listed[recipe.stem]["source"]  # and no word of other rows
        shown = {metric for _, numbers, _ in published.rows for metric in numbers}
        assert shown == set(published.metric_names) and all(
            0 < v < 1 for _, row, _ in published.rows for v in row.values()
        )
    assert published_numbers(RECIPES[0], "real_colon") == ("REAL-Colon-VQA", None)
    assert published_numbers(tmp_path / "mine.py", "mine") == ("mine", None)


@pytest.mark.parametrize("asked", [{"dataset_name": "my/scans"}, {"image_disjoint": True}, {"max_test_rows": 20}])
def test_published_numbers_stand_beside_a_word_of_the_run_s_own_rows(asked):
    [(name, value)] = asked.items()
    assert other_rows(vqa_rad.Data(**asked)) == f"the rows of --{name} {value}, not the recipe's own"
    assert not any(other_rows(load_recipe(recipe).Data()) for recipe in RECIPES)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_main_and_the_helpers_that_only_it_calls_are_short(recipe: Path):
    """At most 45 lines; what a recipe defines for others (`load`, `evaluation`, …) is not counted."""
    tree = ast.parse(recipe.read_text())
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    calls = {
        name: {
            call.func.id for call in ast.walk(node) if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        }
        for name, node in functions.items()
    }
    interface = {"prompt", "to_question", "load", "evaluation", "read", "to_row", "to_chat"}
    own = {
        name
        for name in functions.keys() - interface - {"main"}
        if {caller for caller, called in calls.items() if name in called} == {"main"}
    }
    lines = {name: functions[name].end_lineno - functions[name].lineno + 1 for name in {"main", *own}}
    assert sum(lines.values()) <= 45, lines


LINES = {
    "nutrition_tables": 150,
    "visual_chat": 120,
    "kvasir_vqa": 175,
    "vqa_rad": 175,
    "reasonseg": 215,
    "ssg_vqa": 215,
}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_a_recipe_can_be_held_in_the_head(recipe: Path):
    assert len(recipe.read_text(encoding="utf-8").splitlines()) <= LINES[recipe.stem]


@pytest.mark.parametrize(
    ("asked", "saved"),
    [
        ({"eval_steps": 40}, ("steps", 40)),
        ({"eval_strategy": "epoch"}, ("epoch", 500)),
        ({"eval_strategy": "no", "load_best_model_at_end": False}, ("steps", 500)),
        ({"eval_steps": 40, "save_steps": 80}, ("steps", 80)),
        ({"eval_steps": 40, "save_strategy": "no", "load_best_model_at_end": False}, ("no", 40)),
    ],
)
def test_each_evaluation_has_its_checkpoint_unless_another_is_asked_for(tmp_path, asked, saved):
    settings = vqa_rad.Training(str(tmp_path), use_cpu=True, **{"eval_strategy": "steps", **asked})
    assert (settings.save_strategy, settings.save_steps) == saved


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_a_setting_whose_default_a_recipe_states_anew_is_explained_all_the_same(recipe):
    module = load_recipe(recipe)
    parser = RecipeParser((module.Data, module.Training, module.Model))
    silent = {action.dest for action in parser._actions if not action.help}
    described = {
        name
        for part in (module.Data, module.Training, module.Model)
        for base in part.__mro__
        for name, setting in getattr(base, "__dataclass_fields__", {}).items()
        if setting.metadata.get("help")
    }
    assert not silent & described
