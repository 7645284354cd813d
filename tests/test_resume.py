"""A run that was killed, interrupted or out of disk goes on as if it had never stopped."""

import random
import signal
import time

import pytest

from callbacks.resume import newest_whole
from tests.processes.recipe_run import RecipeRun
from tests.small_worlds import BUILDERS, build

STEPS = 6
LEARNING = f"""--use_cpu true --per_device_train_batch_size 4 --gradient_accumulation_steps 2 --max_steps {STEPS}
    --warmup_steps 2 --logging_steps 1 --eval_strategy steps --eval_steps 2 --save_strategy steps --save_steps 2
    --dataloader_num_workers 1 --dataloader_pin_memory false --lora_dropout 0.2 --disable_tqdm true --do_predict false
    --eval_rows 2 --max_new_tokens 2 --learning_rate 1e-3""".split()


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """recipe -> how to start it, and the run that nothing stopped."""
    made: dict[str, tuple[list[str], RecipeRun]] = {}

    def world(recipe: str) -> tuple[list[str], RecipeRun]:
        if recipe not in made:
            folder = tmp_path_factory.mktemp(recipe)
            arguments = [*build(recipe, folder), *LEARNING]
            whole = RecipeRun(recipe, folder / "whole", *arguments)
            assert whole.end() == 0, whole.text
            made[recipe] = arguments, whole
        return made[recipe]

    return world


def assert_goes_on(recipe: str, output_dir, arguments: list[str], whole: RecipeRun) -> RecipeRun:
    resumed = RecipeRun(recipe, output_dir, *arguments, "--resume_from_checkpoint", "true")
    assert resumed.end() == 0, resumed.text
    assert resumed.log == whole.log
    assert resumed.weights == whole.weights
    return resumed


def kill_at_a_random_moment(recipe: str, worlds, output_dir) -> None:
    arguments, whole = worlds(recipe)
    drawn = random.Random(recipe)
    killed = RecipeRun(recipe, output_dir, *arguments)
    killed.wait_for_step(drawn.randint(3, STEPS - 1))
    time.sleep(drawn.uniform(0, 0.2))
    killed.signal(signal.SIGKILL)
    assert killed.end() == -signal.SIGKILL
    resumed = assert_goes_on(recipe, output_dir, arguments, whole)
    assert f"going on from {output_dir}/checkpoint-" in resumed.text


def kill_while_a_checkpoint_is_written(recipe: str, worlds, output_dir) -> None:
    arguments, whole = worlds(recipe)
    killed = RecipeRun(recipe, output_dir, *arguments)
    killed.wait_until((output_dir / "checkpoint-4").exists)
    killed.signal(signal.SIGKILL)
    killed.end()
    kept, broken = newest_whole(output_dir)
    assert kept == output_dir / "checkpoint-2" and list(broken) == [output_dir / "checkpoint-4"]
    resumed = assert_goes_on(recipe, output_dir, arguments, whole)
    assert f"ignoring {output_dir}/checkpoint-4, which is broken (no " in resumed.text
    assert f"going on from {kept}\n" in resumed.text


def interrupt(recipe: str, worlds, output_dir, number: int) -> None:
    arguments, whole = worlds(recipe)
    stopped = RecipeRun(recipe, output_dir, *arguments)
    stopped.wait_for_step(3)
    stopped.signal(number)
    assert stopped.end() == 128 + number, stopped.text
    kept, broken = newest_whole(output_dir)
    assert kept.name in ("checkpoint-3", "checkpoint-4", "checkpoint-5") and not broken
    assert f"saved {kept}: --resume_from_checkpoint true" in stopped.text
    assert "Traceback" not in stopped.text and "report:" not in stopped.text
    assert '"finished": true' not in (output_dir / "run.json").read_text()
    assert_goes_on(recipe, output_dir, arguments, whole)


def test_a_recipe_killed_at_a_random_moment_goes_on_to_the_same_losses_and_weights(worlds, tmp_path):
    kill_at_a_random_moment("kvasir_vqa", worlds, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", BUILDERS)
class TestEveryRecipe:
    def test_killed_at_a_random_moment(self, recipe, worlds, tmp_path):
        kill_at_a_random_moment(recipe, worlds, tmp_path / "run")

    def test_killed_while_a_checkpoint_is_written(self, recipe, worlds, tmp_path):
        kill_while_a_checkpoint_is_written(recipe, worlds, tmp_path / "run")

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_interrupted(self, recipe, number, worlds, tmp_path):
        interrupt(recipe, worlds, tmp_path / "run", number)
