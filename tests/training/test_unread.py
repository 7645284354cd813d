"""Settings of the Trainers: what no step would follow is refused; what is best follows the metric's name."""

import json
from importlib import import_module

import pytest
import torch
from datasets import Dataset

from tests.support.left import quick_look
from tests.support.running import fails
from tests.support.worlds import world
from vlm_recipes.callbacks.preflight.model import check_best
from vlm_recipes.eval.metrics.number import flat
from vlm_recipes.eval.text import text_evaluation, text_majority
from vlm_recipes.training.launch import RecipeParser

CHATS, OTHERS = ("nutrition_tables", "kvasir_vqa", "visual_chat"), ("vqa_rad", "reasonseg", "ssg_vqa")
UNREAD = [
    *(("label_smoothing_factor", 0.3, recipe) for recipe in OTHERS),
    *(("remove_unused_columns", True, recipe) for recipe in (*CHATS, *OTHERS)),
    *((name, value, "kvasir_vqa") for name in ("completion_only_loss", "assistant_only_loss") for value in (True,)),
    *((name, "x", "visual_chat") for name in ("chat_template_path", "eos_token", "dataset_text_field")),
    ("completion_only_loss", False, "nutrition_tables"),
    ("eval_packing", True, "kvasir_vqa"),
    ("pad_to_multiple_of", 64, "kvasir_vqa"),
    ("predict_with_generate", True, "vqa_rad"),
    ("generation_num_beams", 5, "vqa_rad"),
    ("generation_max_length", 2, "vqa_rad"),
    ("eval_steps", 1, "nutrition_tables"),  # whose evaluations are epochs, as vqa_rad's
    ("eval_steps", 1, "vqa_rad"),
    ("num_train_epochs", 1, "reasonseg"),  # whose length is a number of steps, as ssg_vqa's
    ("num_train_epochs", 1, "ssg_vqa"),
    ("dataloader_persistent_workers", True, "vqa_rad"),  # without a worker, in which PyTorch's loader would fail
    ("dataloader_prefetch_factor", 4, "kvasir_vqa"),
]


def training(recipe: str, **settings):
    return import_module(f"recipes.{recipe}").Training(use_cpu=True, bf16=False, **settings)


@pytest.mark.parametrize(("name", "value", "recipe"), UNREAD)
def test_a_setting_that_no_step_would_follow_is_refused(name, value, recipe):
    with pytest.raises(ValueError, match=f"^--{name} {value} has no effect: "):
        training(recipe, dataloader_num_workers=0, **{name: value})


@pytest.mark.parametrize("recipe", [*CHATS, *OTHERS])
@pytest.mark.parametrize("name", ["per_device_train_batch_size", "gradient_accumulation_steps"])
def test_a_batch_of_nothing_is_refused(recipe, name):
    """The Trainer, or our own division by questions a row, would make 1 of it."""
    with pytest.raises(ValueError, match=f"^--{name} 0: it has to be 1 or more$"):
        training(recipe, **{name: 0})


def test_what_another_setting_gives_an_effect_is_taken():
    training("nutrition_tables", eval_steps=1, eval_strategy="steps")
    training("reasonseg", num_train_epochs=1, max_steps=-1)
    training("kvasir_vqa", label_smoothing_factor=0.1, save_only_model=True, train_sampling_strategy="sequential")
    with pytest.raises(ValueError, match="^--save_only_model True has no effect: "):
        training("kvasir_vqa", save_only_model=True, resume_from_checkpoint="true")


@pytest.mark.parametrize("recipe", [*CHATS, *OTHERS])
def test_rows_are_not_sorted_by_a_length_that_they_have_not(recipe):
    with pytest.raises(ValueError, match="^--train_sampling_strategy group_by_length: rows have no length"):
        training(recipe, train_sampling_strategy="group_by_length")


def test_a_launch_with_one_ends_in_its_line(tmp_path, monkeypatch):
    arguments = [*world("kvasir_vqa"), "--output_dir", str(tmp_path / "out"), "--chat_template_path", "mine.jinja"]
    line = fails("kvasir_vqa", *arguments, monkeypatch=monkeypatch)
    assert line.startswith(
        "error: --chat_template_path mine.jinja has no effect: the collator follows the model's own"
    )


@pytest.mark.parametrize("recipe", [*CHATS, *OTHERS])
def test_the_best_by_a_loss_is_the_lowest(recipe):
    """As transformers has it where nobody says; with a default of True the worst model was kept."""
    assert training(recipe).greater_is_better is True
    for name in ("eval_loss", "loss"):
        assert training(recipe, metric_for_best_model=name).greater_is_better is False
    assert training(recipe, metric_for_best_model="eval_loss", greater_is_better=True).greater_is_better is True


def test_a_run_s_record_started_again_with_another_metric_follows_that_one():
    out, recipe = quick_look("kvasir_vqa")[0], import_module("recipes.kvasir_vqa")
    again = ["--config", str(out / "run.json"), "--use_cpu", "true", "--output_dir", "another"]
    parser = RecipeParser((recipe.Data, recipe.Training, recipe.Model))
    for metric, greater in (("eval_accuracy", True), ("eval_loss", False)):
        asked = parser.parse_args_and_config([*again, "--metric_for_best_model", metric])[1]
        assert asked.greater_is_better is greater


def test_a_run_s_record_started_again_with_other_evaluations_saves_with_those():
    """Else the best would be an evaluation that has no checkpoint."""
    out, recipe = quick_look("kvasir_vqa")[0], import_module("recipes.kvasir_vqa")
    parser = RecipeParser((recipe.Data, recipe.Training, recipe.Model))
    record = json.loads((out / "run.json").read_text())
    for asked, again, saved in (
        ({"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}, ("1",), ("steps", 1)),
        (
            {"eval_strategy": "epoch", "eval_steps": None, "save_strategy": "epoch", "save_steps": 500},
            ("3",),
            ("steps", 3),
        ),
        ({"eval_strategy": "steps", "eval_steps": 4, "save_strategy": "steps", "save_steps": 2}, ("8",), ("steps", 2)),
    ):
        record["arguments"]["training"] |= asked
        (out.parent / "again.json").write_text(json.dumps(record))
        start = ["--config", str(out.parent / "again.json"), "--use_cpu", "true", "--output_dir", "another"]
        start += ["--eval_strategy", "steps", "--eval_steps", *again]
        training = parser.parse_args_and_config(start)[1]
        assert (training.save_strategy, training.save_steps) == saved


@pytest.mark.parametrize(("metric", "falls"), [("eval_accuracy", False), ("eval_loss", True)])
def test_on_a_plateau_the_rate_falls_where_the_metric_gets_no_better(metric, falls):
    asked = training("kvasir_vqa", lr_scheduler_type="reduce_lr_on_plateau", metric_for_best_model=metric)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, **asked.lr_scheduler_kwargs)
    for score in (0.1, 0.2, 0.3):  # rising: a better accuracy, a worse loss
        schedule.step(score)
    assert (optimizer.param_groups[0]["lr"] < 1) == falls


@pytest.mark.usefixtures("figures_are_blank")
@pytest.mark.parametrize("recipe", ["kvasir_vqa", "reasonseg"])
def test_a_metric_that_no_evaluation_gives_ends_the_run_before_its_first_step(recipe, tmp_path, monkeypatch):
    """The Trainer says so at the first evaluation: of ssg_vqa's after 2,000 steps."""
    arguments = [*world(recipe), "--output_dir", str(tmp_path), "--max_steps", "0", "--use_cpu", "true"]
    arguments += "--bf16 false --dataloader_num_workers 0 --disable_tqdm true --metric_for_best_model".split()
    known = {"kvasir_vqa": "eval_accuracy", "reasonseg": "eval_giou"}[recipe]
    line = fails(recipe, *arguments, "eval_acuracy", monkeypatch=monkeypatch)
    assert "✗ best model: --metric_for_best_model eval_acuracy is none of eval_" in line and f"{known}, " in line


def test_every_metric_of_an_evaluation_may_be_the_one_that_is_best():
    row = {"question": "What?", "answer": "a cup", "question_type": "what", "image_id": "a", "closed": False}
    majority = text_majority(["a cup"], ["what"])
    evaluation, rows = text_evaluation(None, 8, majority, groups=("what",)), Dataset.from_list([row] * 3)
    given = flat(evaluation.scored([row] * 3, ["a cup"] * 3, ["a cup"] * 3)[0])
    assert {"token_f1_what", "baseline_token_f1", "free_token_f1", "constrained_gain"} <= set(given)
    for name in (*(given.keys() - {"n"}), "loss", "mean_token_accuracy"):
        args = training("vqa_rad", metric_for_best_model=f"eval_{name}")
        assert check_best(args, evaluation, rows) is None
