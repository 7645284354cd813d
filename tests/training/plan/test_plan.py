"""What `--plan` says of a run, beside what it leaves and what it takes; and what is changed where it does not fit."""

import importlib
import resource
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml
from peft import get_peft_model
from transformers import AutoModelForImageTextToText, AutoProcessor

from recipes import kvasir_vqa
from tests.support.paths import ROOT
from tests.support.worlds import world
from vlm_recipes.callbacks.preflight.counted import Counted
from vlm_recipes.models.chat import lora_on
from vlm_recipes.training.launch import RecipeParser
from vlm_recipes.training.plan.count import GIB, PlanError, Step
from vlm_recipes.training.plan.gpus import ALLOWANCE, GPUS, SHARE, Gpu
from vlm_recipes.training.plan.ladder import SMALLER, climb, smaller_evaluation
from vlm_recipes.training.plan.plan import say

PLANNED = """
import resource, runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print("kB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def planned(recipe: str, card: str, *more: str) -> None:
    """Say the plan of the small world."""
    module = importlib.import_module(f"recipes.{recipe}")

    def parse(arguments: list[str]) -> tuple:
        return RecipeParser((module.Data, module.Training, module.Model)).parse_args_and_config(arguments)

    say(module.main, parse, [*world(recipe), *more], card)


def test_a_plan_is_said_of_each_card_and_leaves_nothing(tmp_path, capsys):
    planned("nutrition_tables", "all", "--output_dir", str(tmp_path / "out"))
    said = capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    for card, gpu in GPUS.items():
        assert f"{gpu.name} (accelerate_configs/{card}.yaml" in said
    for line in ("weights", "gradients", "optimizer", "activations", "peak", "a step"):
        assert said.count(f"\n  {line} ") == len(GPUS)
    assert "bfloat16, 4 bits)" in said and "float16, 4 bits)" in said and "bfloat16)" in said  # below 24 GB, and above


@pytest.mark.parametrize(
    "recipe, more",
    [
        ("nutrition_tables", ["--tune", "joint", "--gradient_checkpointing", "true"]),
        ("vqa_rad", ["--gradient_checkpointing", "true"]),
        ("ssg_vqa", ["--gradient_checkpointing", "true"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_computed_again_in_the_backward_is_planned_in_the_format_of_the_forward(recipe, more, capsys):
    planned(recipe, "a100_40gb", *more)
    assert ": fits" in capsys.readouterr().out


@pytest.mark.parametrize(
    "more, said",
    [
        (["--optim", "adafactor"], "--optim adafactor: what it keeps"),
        (["--do_train", "false"], "--plan is of a training"),
    ],
    ids=["optimizer", "no training"],
)
def test_what_cannot_be_counted_is_refused(more, said):
    with pytest.raises(PlanError, match=said):
        planned("ssg_vqa", "rtx_8gb", *more)


@pytest.mark.parametrize("card", GPUS)
def test_a_card_computes_in_the_format_of_its_launch_config(card):
    assert (
        yaml.safe_load((ROOT / "accelerate_configs" / f"{card}.yaml").read_text())["mixed_precision"]
        == GPUS[card].precision
    )


def step_of(weights: float, activations: float, states: float = 0.0, **more) -> Step:
    """Of so many GiB."""
    known = {
        "optimizer": "adamw_torch_fused",
        "stepping": 0,
        "paged_states": 0,
        "paged_stepping": 0,
        "bits": None,
        "evaluation": 0,
        "evaluated": 1,
    }
    known |= {"batches": 2, "steps": 100} | more
    counted = Counted(int(weights * GIB), 0, int(activations * GIB), operations=10**12)
    return Step(counted, "1 row", states=int(states * GIB), **known)


def test_a_step_needs_the_card_s_memory_for_what_lasts_and_for_the_peak():
    step = step_of(4, 2, states=1)
    assert step.needed == pytest.approx(7 + ALLOWANCE) and step.lasting == pytest.approx(5 + ALLOWANCE)
    paged = step.with_paged_optimizer()
    assert paged.needed == pytest.approx(6 + ALLOWANCE) and paged.paged and not step.paged
    evaluated = step_of(4, 2, states=1, evaluation=5 * GIB, evaluated=8)
    assert evaluated.needed == pytest.approx(10 + ALLOWANCE)
    assert smaller_evaluation(asked(), evaluated, {}) == ["--per_device_eval_batch_size", "1"]
    assert smaller_evaluation(asked(), step, {}) == []
    stepping = step_of(4, 2, states=1, stepping=3 * GIB)  # the optimizer's own step, when activations are gone
    assert stepping.needed == pytest.approx(8 + ALLOWANCE)
    gpu = Gpu("", 8, "bf16", (100, 10))
    # Two batches a step, for 100 steps.
    assert step.hours(gpu, True) == pytest.approx(2e12 * 100 / (SHARE * 100e12) / 3600)
    assert step.hours(gpu, False, steps=10) == pytest.approx(step.hours(gpu, True))


def asked(**training) -> tuple:
    data = SimpleNamespace(min_pixels=200_704, max_pixels=1_003_520, questions_per_row=4)
    known = {"gradient_checkpointing": False, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    return data, SimpleNamespace(**known | training), SimpleNamespace(model_name_or_path=next(iter(SMALLER)))


def climbed(gib: float, saved: dict[str, tuple[float, float]], weights: float = 10, activations: float = 10):
    """The flags, where those `saved` each take so many GiB of weights and activations away; and what was tried."""
    tried = []

    def count(flags: list[str]):
        tried.append(flags)
        less = [saved.get(flag, (0, 0)) for flag in dict.fromkeys(flags[::2])]
        step = step_of(weights - sum(one for one, _ in less), activations - sum(one for _, one in less))
        return (asked(gradient_checkpointing="--gradient_checkpointing" in flags), step)

    return *climb(count, asked(), step_of(weights, activations), Gpu("", gib, "bf16", (1, 1)), SMALLER), tried


def test_the_first_change_that_makes_it_fit_is_said():
    flags, step, tried = climbed(12, {"--gradient_checkpointing": (0, 9)})
    assert flags == ["--gradient_checkpointing", "true"] and len(tried) == 1 and step.needed <= 12


def test_what_a_later_change_makes_needless_is_left_out():
    flags, _, tried = climbed(6, {"--load_in_4bit": (3, 0), "--model_name_or_path": (8, 8)})
    assert flags == ["--model_name_or_path", SMALLER[next(iter(SMALLER))]]


def test_changes_add_up_and_what_saves_nothing_is_left_out():
    saved = {"--gradient_checkpointing": (0, 3), "--max_pixels": (0, 4)}
    flags, step, tried = climbed(14, saved)
    assert flags == ["--gradient_checkpointing", "true", "--max_pixels", "501760"]
    assert [
        "--gradient_checkpointing",
        "true",
        "--per_device_train_batch_size",
        "1",
        "--gradient_accumulation_steps",
        "8",
    ] in tried


def test_where_weights_alone_are_too_much_they_are_made_smaller_first():
    flags, step, tried = climbed(9, {"--load_in_4bit": (6, 0), "--gradient_checkpointing": (0, 8)})
    assert tried[0] == ["--load_in_4bit", "true"]
    assert flags == ["--load_in_4bit", "true", "--gradient_checkpointing", "true"]


def test_where_nothing_makes_it_fit_nothing_is_advised():
    assert climbed(5, {"--load_in_4bit": (1, 0)})[:2] == ([], None)


@pytest.mark.slow
def test_an_adapter_that_trains_on_is_planned_as_one_that_begins(tmp_path, capsys):
    planned("kvasir_vqa", "a100_40gb")
    begun = capsys.readouterr().out
    arguments = world("kvasir_vqa")
    name = arguments[arguments.index("--model_name_or_path") + 1]
    network = AutoModelForImageTextToText.from_pretrained(name)
    model = kvasir_vqa.Model(model_name_or_path=name, dtype="float32")
    get_peft_model(network, lora_on(model, ("language",), network)).save_pretrained(tmp_path)
    AutoProcessor.from_pretrained(name).save_pretrained(tmp_path)
    planned("kvasir_vqa", "a100_40gb", "--model_name_or_path", str(tmp_path))
    line = begun.index("A100, 40 GB")  # others may say something first
    assert capsys.readouterr().out == begun[line:]


@pytest.mark.slow
def test_a_plan_of_a_model_of_seven_billion_takes_less_than_a_minute_and_four_gigabytes(tmp_path):
    from benchmarks.full_size_worlds import nutrition_tables

    arguments = [str(ROOT / "recipes" / "nutrition_tables.py"), *nutrition_tables(tmp_path / "world", toy=False)]
    arguments += ["--plan", "a100_40gb", "--output_dir", str(tmp_path / "out")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", PLANNED, *arguments], capture_output=True, text=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert "fits" in done.stdout and int(done.stdout.split("kB ")[1]) < 4e6
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 60
