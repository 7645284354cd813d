"""A run goes on only as it was begun: what decides its rows, steps and rates is compared with the checkpoint's own."""

import json
import os
import re
import shutil
import subprocess
import time
from importlib import import_module
from pathlib import Path

import pytest
from datasets import Dataset, Image

from demo.worlds.small import SIZES, build
from tests.support.paths import ROOT
from tests.support.processes.launch import in_two_processes
from tests.support.processes.recipe_run import RecipeRun
from tests.support.running import fails
from tests.support.session import once
from tests.support.worlds import world
from tests.training.test_folder import OTHER_PARTS, claim, refused, start
from vlm_recipes.training import description
from vlm_recipes.training.checkpoints import ResumeError
from vlm_recipes.training.description import describe_run
from vlm_recipes.training.launch import RecipeParser
from vlm_recipes.training.resuming import TrainedAs, contents, what_decides
from vlm_recipes.training.runs import kept_in

pytestmark = pytest.mark.usefixtures("figures_are_blank", "preflight_is_left_out")
SHORT = "--max_steps 2 --logging_steps 1 --eval_strategy no --load_best_model_at_end false --save_strategy steps "
SHORT += "--save_steps 1 --use_cpu true --dataloader_num_workers 0 --disable_tqdm true --max_train_rows 12 "
SHORT += "--max_validation_rows 1 --max_test_rows 1 --max_new_tokens 2 --do_predict false --learning_rate 1e-3 "
SHORT += "--per_device_train_batch_size 4 --gradient_accumulation_steps 2 --warmup_steps 1"
RESUME = ["--resume_from_checkpoint", "true"]
ADVICE = ": launch it as before, or begin anew in another --output_dir"

AT_ONCE = ("nutrition_tables", "reasonseg", "vqa_rad")  # a Trainer of each kind; all in `make test-slow`
RECIPES = [pytest.param(name, marks=[] if name in AT_ONCE else pytest.mark.slow) for name in SIZES]


def finished(recipe: str) -> tuple[Path, list[str]]:
    """The folder of a run that has ended, and how it was started."""

    def write(folder: Path) -> None:
        arguments = [*world(recipe, folder), *SHORT.split(), "--output_dir", str(folder / "out")]
        (folder / "arguments.json").write_text(json.dumps(arguments))
        with pytest.MonkeyPatch.context() as patch:
            start(recipe, *arguments, monkeypatch=patch)

    folder = once(f"finished_{recipe}", write)
    return folder / "out", json.loads((folder / "arguments.json").read_text())


@pytest.mark.parametrize("recipe", RECIPES)
class TestEveryRecipe:
    def test_another_rate_is_refused_also_where_no_step_is_left_and_the_record_stays(self, recipe, monkeypatch):
        out, arguments = finished(recipe)
        run = (out / "run.json").read_bytes()
        line = fails(recipe, *arguments, *RESUME, "--learning_rate", "2e-3", monkeypatch=monkeypatch)
        begun = f"error: cannot go on from {out}/checkpoint-2, which was trained with "
        assert line == f"{begun}learning_rate 0.001 and not 0.002{ADVICE}"
        assert (out / "run.json").read_bytes() == run

    def test_another_batch_and_other_rows_of_the_same_data_are_refused(self, recipe, monkeypatch):
        out, arguments = finished(recipe)
        more = [*RESUME, "--max_steps", "4"]
        four_times = ["--gradient_accumulation_steps", "8"]
        line = fails(recipe, *arguments, *more, *four_times, monkeypatch=monkeypatch)
        assert f"trained with questions a step 8 and not 32{ADVICE}" in line
        line = fails(recipe, *arguments, *more, "--max_train_rows", "11", monkeypatch=monkeypatch)
        data = re.escape(str(out.parent / "data"))
        assert re.search(rf"train 12 rows of {data} \(\w+\) and not 11 rows of {data} \(\w+\)", line)

    def test_another_dataset_is_refused_from_a_folder_of_its_own_too(self, recipe, tmp_path, monkeypatch):
        out, arguments = finished(recipe)
        build(recipe, tmp_path, seed=1)  # other pictures and answers, mostly under the same names
        arguments = [*arguments, "--dataset_name", str(tmp_path / "data"), "--output_dir", str(tmp_path / "out")]
        arguments += ["--resume_from_checkpoint", str(out / "checkpoint-2")]
        line = fails(recipe, *arguments, monkeypatch=monkeypatch)
        assert f" rows of {out.parent}/data (" in line and f" rows of {tmp_path}/data (" in line and ADVICE in line

    def test_the_same_batch_split_otherwise_more_steps_and_another_commit_go_on(
        self, recipe, tmp_path, monkeypatch, capsys
    ):
        source, arguments = finished(recipe)
        shutil.copytree(source.parent / "data", tmp_path / "data")  # moved to another disk
        out = Path(shutil.copytree(source, tmp_path / "out"))
        arguments = [*arguments, "--output_dir", str(out), *RESUME, "--max_steps", "3"]
        arguments += ["--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "1"]
        monkeypatch.setattr(description, "git_commit", lambda folder: "another")
        start(recipe, *arguments, monkeypatch=monkeypatch)
        assert f"going on from {out}/checkpoint-2" in capsys.readouterr().out
        state = json.loads((out / "trainer_state.json").read_text())
        assert state["global_step"] == 3
        first = json.loads((source / "run.json").read_text()) | {"processes": 1}
        assert json.loads((out / "run.json").read_text())["git_commit"] != first["git_commit"]


# --- each setting by itself


def asked(recipe: str, *arguments: str, part: Dataset | None = None) -> TrainedAs:
    """What would be kept of a launch, on these training rows."""
    module = import_module(f"recipes.{recipe}")
    parser = RecipeParser((module.Data, module.Training, module.Model))
    data, training, model = parser.parse_args_and_config(["--use_cpu", "true", "--bf16", "false", *arguments])
    part = part or Dataset.from_dict({"id": ["a", "b"], "answer": ["yes", "no"]})
    parts = {"train": part, "validation": part}
    return TrainedAs(**what_decides(describe_run(module.__file__, data, training, model, parts), parts, training))


def checkpoint(folder: Path, kept: TrainedAs) -> str:
    folder.mkdir(exist_ok=True)
    state = {"stateful_callbacks": {"TrainedAs": kept.state()}}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    return str(folder)


DECIDES = {
    "--seed": "7",
    "--data_seed": "7",
    "--learning_rate": "0.5",
    "--vision_learning_rate": "0.5",
    "--lr_scheduler_type": "constant",
    "--lr_scheduler_kwargs": '{"num_cycles": 2}',
    "--warmup_steps": "7",
    "--optim": "adamw_torch",
    "--weight_decay": "0.5",
    "--model_name_or_path": "another",
    "--model_revision": "another",
    "--metric_for_best_model": "eval_loss",
    "--lora_r": "7",
    "--lora_alpha": "7",
}


@pytest.mark.parametrize("recipe", SIZES)
def test_each_setting_that_decides_is_refused_with_both_values(recipe, tmp_path):
    before = checkpoint(tmp_path / "checkpoint-1", asked(recipe))
    own = dict([OTHER_PARTS[recipe].split()])
    if recipe != "nutrition_tables":
        own["--questions_per_row"] = "3"
    if recipe == "reasonseg":
        own["--sam_name_or_path"] = "another"
    for flag, value in (DECIDES | own).items():
        with pytest.raises(ResumeError, match=rf"trained with {flag.removeprefix('--')} .+ and not .+{ADVICE}"):
            asked(recipe, flag, value).refuse_another(before)


@pytest.mark.parametrize("recipe", SIZES)
def test_what_decides_neither_rows_nor_steps_nor_rates_may_change(recipe, tmp_path, capsys):
    before = checkpoint(tmp_path / "checkpoint-1", asked(recipe))
    training = "--max_steps 99 --num_train_epochs 9 --logging_steps 3 --save_steps 3 --do_predict false"
    training += " --eval_strategy steps --eval_steps 3 --dataloader_num_workers 2 --per_device_eval_batch_size 3"
    training += " --gradient_checkpointing false"
    others = "--max_new_tokens 7 --eval_rows 3 --max_rejected 0.5 --dtype float32 --attn_implementation sdpa"
    asked(recipe, *training.split(), *others.split(), "--dataset_name", "moved").refuse_another(before)
    assert capsys.readouterr().out == ""


def test_a_base_is_the_same_by_each_of_its_paths(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    before = checkpoint(tmp_path / "checkpoint-1", asked("vqa_rad", "--model_name_or_path", str(tmp_path / "model")))
    monkeypatch.chdir(tmp_path)
    asked("vqa_rad", "--model_name_or_path", "model").refuse_another(before)


def test_settings_that_a_later_version_adds_or_drops_are_not_compared(tmp_path):
    now = asked("vqa_rad")
    older = json.loads(json.dumps(now.decides))
    del older["settings"]["lora_r"]
    older["settings"]["dropped"] = 1
    now.refuse_another(checkpoint(tmp_path / "checkpoint-1", TrainedAs(**older)))


def test_where_a_batch_in_rows_does_not_come_out_even_it_goes_on_with_a_line(tmp_path, capsys):
    now = asked("vqa_rad")
    before = TrainedAs(**now.decides | {"rows a step": 9})
    now.refuse_another(checkpoint(tmp_path / "checkpoint-1", before))
    assert f"{tmp_path}/checkpoint-1 was trained with rows a step 9 and not 8: " in capsys.readouterr().out


def test_another_recipe_s_checkpoint_is_refused(tmp_path):
    before = checkpoint(tmp_path / "checkpoint-1", asked("vqa_rad"))
    with pytest.raises(ResumeError, match="trained with recipe vqa_rad and not kvasir_vqa: "):
        asked("kvasir_vqa").refuse_another(before)


def test_a_checkpoint_from_before_goes_on_with_a_line(tmp_path, monkeypatch, capsys):
    source, arguments = finished("vqa_rad")
    out = Path(shutil.copytree(source, tmp_path / "out"))
    state = out / "checkpoint-2" / "trainer_state.json"
    older = json.loads(state.read_text())
    del older["stateful_callbacks"]["TrainedAs"]
    state.write_text(json.dumps(older))
    start("vqa_rad", *arguments, *RESUME, "--output_dir", str(out), "--max_steps", "3", monkeypatch=monkeypatch)
    line = f"{out}/checkpoint-2 does not say what it was trained with: nothing was compared with this launch"
    assert line in capsys.readouterr().out.splitlines()
    assert kept_in(out / "checkpoint-3" / "trainer_state.json") is not None


def test_the_contents_of_rows_are_what_the_data_says_and_not_the_prompt():
    columns = {"id": ["a", "b", "c"], "question": ["?", "?", "?"], "answer": ["yes", "no", "no"]}
    rows = Dataset.from_dict(columns | {"prompt": ["Q: ?"] * 3, "image": ["/a.png"] * 3}).cast_column("image", Image())
    same = Dataset.from_dict({**columns, "prompt": ["Question: ?"] * 3})
    assert contents(rows) == contents(same) == contents(rows.select([2, 0, 1]).select([1, 2, 0]))
    assert contents(rows) != contents(rows.select([1, 0, 2])) != contents(rows.select([0, 1]))
    for name in columns:
        assert contents(same) != contents(Dataset.from_dict(columns | {name: ["x", "y", "z"]}))


def turns(*said: str, picture: bool = True) -> list[dict]:
    """A conversation, as the recipes have it, with these answers."""
    first = [{"type": "image", "text": None}] if picture else []
    asked = [{"role": "user", "content": [*first, {"type": "text", "text": "Where?"}]}, {"role": "assistant"}]
    return [turn | {"content": turn.get("content", [{"type": "text", "text": a}])} for a in said for turn in asked]


def test_each_answer_of_a_conversation_is_of_the_contents_and_prompts_and_what_is_said_once_are_not():
    columns = {"id": ["a", "b", "c"], "question": ["?"] * 3, "answer": ["yes", "no", "no"]}
    said = [turns("yes"), turns("left", "no"), turns("up", "down", "no")]
    rows = Dataset.from_dict(columns | {"messages": said})
    single = [turns(answer) for answer in columns["answer"]]
    assert contents(Dataset.from_dict(columns | {"messages": single})) == contents(Dataset.from_dict(columns))
    assert contents(rows) != contents(Dataset.from_dict(columns))
    assert contents(rows) == contents(rows.select([2, 0, 1]).select([1, 2, 0]))
    prompted = [[{"role": "system", "content": turns("Be brief.")[1]["content"]}, *turn] for turn in said]
    assert contents(rows) == contents(Dataset.from_dict(columns | {"messages": prompted}))
    others = [turns("right", "no"), turns("left ", "no"), turns("x", "left", "no")]
    for other in others:
        assert contents(rows) != contents(Dataset.from_dict(columns | {"messages": [said[0], other, said[2]]}))
    plain = [[{"role": turn["role"], "content": turn["content"][-1]["text"]} for turn in row] for row in said]
    assert contents(rows) == contents(Dataset.from_dict(columns | {"messages": plain}))
    assert contents(Dataset.from_dict({"id": ["a"], "messages": ["[]"]})) == contents(Dataset.from_dict({"id": ["a"]}))


def test_what_trains_beside_boxes_and_masks_is_of_the_contents_and_what_a_codec_wrote_is_not():
    boxes = {"id": ["a", "b"], "boxes": [[[1, 2, 3, 4]], []], "answer": ["one", "two"]}
    named = contents(Dataset.from_dict(boxes | {"categories": [["cup"], []]}))
    assert (
        named
        != contents(Dataset.from_dict(boxes | {"categories": [["jar"], []]}))
        != contents(Dataset.from_dict(boxes))
    )
    assert named == contents(Dataset.from_dict(boxes | {"categories": [["cup"], []], "answer": ["1", "2"]}))
    masks = {"id": ["a", "b"], "masks": [["m"], ["n"]]}
    assert contents(Dataset.from_dict(masks | {"ignore": [None, None]})) == contents(Dataset.from_dict(masks))
    assert contents(Dataset.from_dict(masks | {"ignore": [None, "i"]})) != contents(Dataset.from_dict(masks))


def test_the_contents_of_many_conversations_take_little_time():
    n, said = 20_000, [turns("left", "no"), turns("no")]
    rows = Dataset.from_dict({"id": range(n), "answer": ["no"] * n, "messages": [said[i % 2] for i in range(n)]})
    begun = time.monotonic()
    contents(rows)
    assert time.monotonic() - begun < 3  # .1 s where nobody else computes


# --- a folder is still one run's


def test_a_folder_keeps_its_owner_where_it_was_evaluated_or_killed_before_its_first_report(tmp_path):
    source, arguments = finished("vqa_rad")
    out = Path(shutil.copytree(source, tmp_path / "out"))
    again = [*arguments, "--output_dir", str(out)]
    run = json.loads((out / "run.json").read_text())
    run["arguments"]["training"]["do_train"] = False
    run["arguments"]["model"]["model_name_or_path"] = str(out)
    (out / "run.json").write_text(json.dumps(run))
    claim("vqa_rad", *again, *RESUME)
    (out / "run.json").unlink()
    (out / "trainer_state.json").unlink()
    claim("vqa_rad", *again, *RESUME)
    assert "(recipe vqa_rad and not kvasir_vqa)" in refused(
        "kvasir_vqa", "--use_cpu", "true", "--output_dir", str(out)
    )


# --- several processes


def gone_on(before: str, *arguments: str) -> str | None:
    try:
        asked("vqa_rad", *arguments).refuse_another(before)
    except ResumeError as error:
        return str(error)


def test_processes_share_a_batch_and_refuse_together(tmp_path):
    before = checkpoint(tmp_path / "checkpoint-1", asked("vqa_rad", "--gradient_accumulation_steps", "8"))
    assert in_two_processes(gone_on, before, "--gradient_accumulation_steps", "4") == [None, None]
    first, second = in_two_processes(gone_on, before, "--gradient_accumulation_steps", "8")
    assert first == second and "trained with questions a step 8 and not 16: " in first


# --- on a cluster


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_a_slot_with_another_rate_ends_with_the_line_and_is_not_queued_again(tmp_path):
    out, arguments = finished("vqa_rad")
    # The recipe runs in a process forked here, for imports take longer than all the rest.
    asked, said, status = tmp_path / "asked", tmp_path / "recipe.txt", tmp_path / "status"
    wait = f"until [ -s {status} ]; do sleep 0.1; done; cat {said} >&2; exit $(cat {status})"
    (tmp_path / "accelerate").write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" > {asked}.new\n')
    with (tmp_path / "accelerate").open("a") as script:
        script.write(f"mv {asked}.new {asked}\n{wait}\n")
    (tmp_path / "scontrol").write_text(f"#!/bin/bash\ntouch {tmp_path}/queued\n")
    for program in ("accelerate", "scontrol"):
        (tmp_path / program).chmod(0o755)
    place = arguments.index("--output_dir")
    own = [*arguments[:place], *arguments[place + 2 :], "--learning_rate", "2e-3"]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "4711"}
    environment |= {"RECIPE": "vqa_rad", "OUTPUT_DIR": str(out), "PYTHONPATH": str(ROOT)}
    job = subprocess.Popen(
        ["bash", str(ROOT / "slurm" / "train.sbatch"), *own],
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 60
    while not asked.exists():
        assert job.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    words = asked.read_text().splitlines()
    assert words[3:6] == ["recipes/vqa_rad.py", "--output_dir", str(out)]
    run = RecipeRun("vqa_rad", tmp_path / "recipe", *words[4:])
    status.write_text(f"{run.end()}\n")
    stderr = job.communicate(timeout=60)[1]
    assert job.returncode == 1 and not (tmp_path / "queued").exists()
    line = f"error: cannot go on from {out}/checkpoint-2, which was trained with learning_rate 0.001 and not 0.002"
    assert f"{line}{ADVICE}" in stderr.splitlines()
    assert "Traceback" not in stderr
