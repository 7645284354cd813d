"""The last evaluation: killed, interrupted and launched again, it asks the rest; it needs no optimizer."""

import json
import os
import re
import shutil
import signal
import weakref
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from demo.worlds.small import build
from recipes import kvasir_vqa
from tests.support import tiny
from tests.support.processes.recipe_run import LaunchedRun, RecipeRun
from vlm_recipes.training import run as run_module
from vlm_recipes.training.answering import PARTIAL, weights_key
from vlm_recipes.training.folder import LEFT
from vlm_recipes.training.launch import RecipeParser

pytestmark = pytest.mark.usefixtures("figures_are_blank", "preflight_is_left_out")
SETTINGS = """--use_cpu true --bf16 false --test_fraction 0.3 --questions_per_row 1 --per_device_eval_batch_size 2
    --eval_rows 8 --max_new_tokens 4 --dataloader_num_workers 1 --dataloader_pin_memory false""".split()
LEARNING = """--max_steps 4 --logging_steps 1 --eval_strategy steps --eval_steps 2 --per_device_train_batch_size 2
    --gradient_accumulation_steps 1 --max_validation_rows 4""".split()


@pytest.fixture(scope="module")
def polyps(tmp_path_factory) -> list[str]:
    return [*build("kvasir_vqa", tmp_path_factory.mktemp("polyps"), images=8), *SETTINGS]


def kept(output: Path, name: str = "test") -> int:
    """How many answers of a pass are on disk."""
    files = [*(output / PARTIAL).glob(f"{name}.0.jsonl")]
    return max(0, files[0].read_bytes().count(b"\n") - 1) if files else 0


def left(output: Path) -> tuple[str, str]:
    assert not (output / PARTIAL).exists()
    return (output / "results.json").read_text(), (output / "predictions.jsonl").read_text()


def before(run: RecipeRun) -> dict[str, int]:
    found = re.findall(r"^(.+): ([\d,]+) rows were answered before", run.text, re.MULTILINE)
    return {name: int(n) for name, n in found}


def test_an_evaluation_killed_in_its_middle_goes_on_and_leaves_what_an_uninterrupted_one_does(polyps, tmp_path):
    arguments = [*polyps, "--do_train", "false"]
    whole = RecipeRun("kvasir_vqa", tmp_path / "whole", *arguments)
    assert whole.end() == 0, whole.text
    expected, n = left(tmp_path / "whole"), json.loads(left(tmp_path / "whole")[0])["test"]["n"]
    output = tmp_path / "run"
    for name, pause in (("test", 8), ("test-free", 1)):  # in the first pass, then in the second
        run = RecipeRun("kvasir_vqa", output, *arguments)
        run.wait_until(lambda name=name, pause=pause: kept(output, name) >= pause)
        run.signal(signal.SIGKILL)
        assert run.end() == -signal.SIGKILL
    assert 8 <= before(run)["test"] < n and kept(output) <= n  # what one possible answer has is not asked
    asked, free = kept(output), kept(output, "test-free")
    assert 0 < free < 8

    stopped = RecipeRun("kvasir_vqa", output, *arguments)
    stopped.wait_until(lambda: kept(output, "test-blank-images") >= 1 or kept(output, "test-free") > free)
    stopped.signal(signal.SIGTERM)
    assert stopped.end() in (0, 128 + signal.SIGTERM), stopped.text
    assert before(stopped) == {"test": asked, "test, free": free}
    if stopped.end():
        line = rf"interrupted when \d of 8 rows of 'test, .+' are answered, and kept in {output}/{PARTIAL}: "
        assert re.search(line + "launch it again as it was", stopped.text), stopped.text
        resumed = RecipeRun("kvasir_vqa", output, *arguments)
        assert resumed.end() == 0 and before(resumed)["test"] == asked, resumed.text
    assert left(output) == expected


def test_a_training_that_ended_answers_the_rest_after_it_is_resumed_and_takes_no_step(polyps, tmp_path):
    arguments = [*polyps, *LEARNING, "--learning_rate", "0"]  # the first evaluation is the best, and kept alone
    whole = RecipeRun("kvasir_vqa", tmp_path / "whole", *arguments)
    assert whole.end() == 0, whole.text
    run = RecipeRun("kvasir_vqa", tmp_path / "run", *arguments)
    run.wait_until(lambda: kept(tmp_path / "run") >= 4)
    run.signal(signal.SIGINT)
    assert run.end() == 128 + signal.SIGINT
    assert re.search(r"interrupted when \d+ of \d+ rows of 'test.*--resume_from_checkpoint true", run.text), run.text
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-2"]
    resumed = RecipeRun("kvasir_vqa", tmp_path / "run", *arguments, "--resume_from_checkpoint", "true")
    assert resumed.end() == 0, resumed.text
    assert before(resumed)["test"] >= 4 and ": loss " not in resumed.text
    assert left(tmp_path / "run") == left(tmp_path / "whole")
    assert resumed.log == whole.log and resumed.weights == whole.weights


def test_answers_of_other_weights_are_not_used(polyps, tmp_path):
    """As where a folder's model has been trained on in the meantime."""
    shutil.copytree(polyps[3], tmp_path / "model")
    arguments = [*polyps, "--do_train", "false", "--model_name_or_path", str(tmp_path / "model")]
    run = RecipeRun("kvasir_vqa", tmp_path / "run", *arguments)
    run.wait_until(lambda: kept(tmp_path / "run") >= 4)
    run.signal(signal.SIGTERM)
    assert run.end() == 128 + signal.SIGTERM, run.text
    assert "finishing this batch of answers" in run.text and "Traceback" not in run.text
    assert re.search(r"interrupted when \d+ of \d+ rows of 'test.*: launch it again as it was", run.text)
    network = AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        next(weight for name, weight in network.named_parameters() if "q_proj.weight" in name)[0, 0] += 1
    network.save_pretrained(tmp_path / "model")
    other = RecipeRun("kvasir_vqa", tmp_path / "run", *arguments)
    assert other.end() == 0, other.text
    assert before(other) == {} and "are of other weights, rows or settings: dropped" in other.text
    alone = RecipeRun("kvasir_vqa", tmp_path / "alone", *arguments)
    assert alone.end() == 0 and left(tmp_path / "run") == left(tmp_path / "alone")


def test_partial_answers_are_the_run_s_own():
    assert LEFT.fullmatch(PARTIAL)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_named_by_all_their_bits(dtype):
    network, again = (AutoModelForImageTextToText.from_pretrained(tiny.qwen2_vl(), dtype=dtype) for _ in range(2))
    names = [weights_key(network)]
    assert names == [weights_key(again)]
    with torch.no_grad():
        for weight in network.parameters():
            bits = weight.view(torch.uint8).view(-1)
            bits[-2] ^= 1
            names.append(weights_key(network))
            bits[-2] ^= 1
    assert len(set(names)) == 1 + len([*network.parameters()]) > 20


def test_the_optimizer_its_state_and_the_gradients_are_gone_before_the_last_evaluation(polyps, tmp_path, monkeypatch):
    held, let_go, left_over = [], run_module.let_go_of_optimizer, []

    def noting(trainer):
        optimizer = trainer.optimizer.optimizer
        moments = [value for state in optimizer.state.values() for value in state.values() if value.dim()]
        assert len(moments) > 20
        held.extend(map(weakref.ref, (optimizer, trainer.lr_scheduler, *moments)))
        del optimizer, moments
        let_go(trainer)

    def conclude(run, network):
        left_over.extend(one for one in held if one() is not None)
        left_over.extend(weight.grad for weight in network.parameters() if weight.grad is not None)

    monkeypatch.setattr(run_module, "let_go_of_optimizer", noting)
    monkeypatch.setattr(run_module.Run, "conclude", conclude)
    arguments = [*polyps, *LEARNING, "--dataloader_num_workers", "0", "--output_dir", str(tmp_path / "out")]
    parser = RecipeParser((kvasir_vqa.Data, kvasir_vqa.Training, kvasir_vqa.Model))
    kvasir_vqa.main(*parser.parse_args_and_config(arguments))
    assert len(held) > 20 and not left_over


@pytest.mark.slow
def test_two_launched_processes_stop_together_and_go_on_to_what_an_uninterrupted_launch_leaves(polyps, tmp_path):
    arguments = ["ddp", *polyps, "--do_train", "false"]
    whole = LaunchedRun("kvasir_vqa", tmp_path / "whole", *arguments)
    assert whole.end() == 0, whole.text
    run = LaunchedRun("kvasir_vqa", tmp_path / "run", *arguments)
    run.wait_until(lambda: kept(tmp_path / "run") >= 2)
    os.kill(run.rank(1), signal.SIGTERM)
    assert run.end() != 0
    assert re.search(r"interrupted when \d+ of \d+ rows of 'test.*: launch it again as it was", run.text), run.text
    resumed = LaunchedRun("kvasir_vqa", tmp_path / "run", *arguments)
    assert resumed.end() == 0 and before(resumed)["test"] >= 4, resumed.text
    assert left(tmp_path / "run") == left(tmp_path / "whole")
