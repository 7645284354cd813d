"""What cannot work ends in one line before rows are checked; an error of this project's own keeps its traceback."""

import errno
import json
import runpy
import shutil
import signal
import sys
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors
import torch
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.integrations import integration_utils
from trl import ScriptArguments

from demo.worlds.small import SIZES, build
from tests.support import tiny
from tests.support.paths import ROOT
from tests.support.running import fails
from tests.support.worlds import world
from vlm_recipes.callbacks import InterruptCallback
from vlm_recipes.models.weights import without_weights
from vlm_recipes.training.launch import RecipeParser, launch

QUICK = "--use_cpu true --bf16 false --dataloader_num_workers 0 --disable_tqdm true --max_steps 2".split()
TRAINED = [*QUICK, *"--eval_strategy no --save_strategy no --load_best_model_at_end false".split()]
HOLDING_OUT = [name for name in SIZES if name not in ("reasonseg", "ssg_vqa")]
NOWHERE = ["--dataset_name", "no/such/dataset"]  # so the line comes before a dataset is looked for

pytestmark = pytest.mark.usefixtures("figures_are_blank")


def refused(name: str, output: Path, monkeypatch, *more: str) -> str:
    """The line that the recipe ends with on its small world, before it has checked a row."""
    line = fails(name, *world(name), "--output_dir", str(output), *QUICK, *more, monkeypatch=monkeypatch)
    assert not (output / "rejected.jsonl").exists()
    return line


# --- trackers and the Hub


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("tracker", ["junk", "wandb", "tensorboard"])
def test_a_tracker_that_is_not_to_be_had_is_one_line(name, tracker, tmp_path, monkeypatch):
    if tracker != "junk":
        monkeypatch.setattr(integration_utils, f"is_{tracker}_available", lambda: False)
    line = refused(name, tmp_path / "out", monkeypatch, *NOWHERE, "--report_to", tracker)
    assert line.startswith(f"error: --report_to {tracker}: ")
    assert ("is not supported" if tracker == "junk" else "to be installed") in line


@pytest.mark.parametrize("name", SIZES)
def test_a_hub_that_is_not_to_be_had_is_one_line(name, tmp_path, monkeypatch):
    line = refused(name, tmp_path / "out", monkeypatch, *NOWHERE, "--push_to_hub", "true", "--hub_token", "hf_none")
    assert line.startswith("error: --push_to_hub: the Hub is not to be had (")
    assert line.endswith("): `hf auth login` first, or push the folder later")


# --- arguments


@pytest.mark.parametrize("name", SIZES)
def test_a_misspelt_choice_and_a_word_for_a_number_are_one_line_without_the_usage(name, monkeypatch, capsys):
    for setting, value, why in (("dataset_format", "cococo", "invalid choice: 'cococo'"), ("seed", "one", "'one'")):
        monkeypatch.setattr("sys.argv", [name, f"--{setting}", value])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "recipes" / f"{name}.py"), run_name="__main__")
        [line] = capsys.readouterr().err.splitlines()
        assert ended.value.code == 2 and line.startswith(f"error: argument --{setting}") and why in line


# --- models


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("targets", [["junk"], ["junk", "other"], ["["]], ids=str)
def test_lora_that_matches_no_layer_is_one_line(name, targets, tmp_path, monkeypatch):
    line = refused(name, tmp_path / "out", monkeypatch, *NOWHERE, "--lora_target_modules", *targets)
    if targets == ["["]:
        assert line.startswith("error: --lora_target_modules '[' is no regular expression: ")
    else:
        assert line.startswith("error: LoRA has nothing to train, for no layer of this ")
        assert " ".join(targets) in line.replace("'", "")


@pytest.mark.parametrize("name", SIZES)
def test_lora_on_a_layer_that_has_no_lora_is_one_line(name, tmp_path, monkeypatch):
    arguments = [*world(name), "--output_dir", str(tmp_path / "out"), *QUICK, "--lora_target_modules", ".*norm.*"]
    assert "is not supported" in fails(name, *arguments, monkeypatch=monkeypatch)


@pytest.mark.parametrize("name", SIZES)
def test_to_look_at_a_model_reads_no_weight_draws_nothing_and_refuses_no_good_one(name, tmp_path, monkeypatch):
    recipe = import_module(f"recipes.{name}")
    arguments = [*world(name), "--output_dir", str(tmp_path), *QUICK]
    data, training, model = RecipeParser((recipe.Data, recipe.Training, recipe.Model)).parse_args_and_config(arguments)
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", None)
    monkeypatch.setattr(safetensors, "safe_open", None)
    before = torch.get_rng_state()
    with without_weights():
        for output_dir in (training.output_dir, None):
            network, _ = recipe.load(data, model, output_dir)
            made = {name: weight.device.type for name, weight in network.named_parameters() if "lora_" not in name}
            assert set(made.values()) == {"meta"}
    assert torch.equal(torch.get_rng_state(), before)


KINDS = {
    "text": {"model_type": "gpt2"},
    "lisa": {"model_type": "lisa"},
    "surgvivqa": {"model_type": "surgvivqa"},
    "llava": {"model_type": "llava"},
    "blip-2": {"model_type": "blip-2", "text_config": {"model_type": "opt"}},
    "blip-2 by default": {"model_type": "blip-2"},  # whose default is an OPT
    "qwen2_vl": {"model_type": "qwen2_vl"},
    "sam": {"model_type": "sam"},
    "clip": {"model_type": "clip"},
}
OF_ANOTHER_KIND = {
    "nutrition_tables": ["text", "lisa", "surgvivqa", "sam"],
    "kvasir_vqa": ["text", "lisa", "surgvivqa", "sam"],
    "visual_chat": ["text", "lisa", "surgvivqa", "sam"],
    "vqa_rad": ["text", "lisa", "surgvivqa", "llava", "qwen2_vl", "blip-2", "blip-2 by default"],
    "reasonseg": ["text", "surgvivqa", "qwen2_vl", "blip-2"],
    "ssg_vqa": ["lisa", "qwen2_vl", "blip-2"],
}


def of_kind(kind: str, folder: Path) -> Path:
    """A folder that says so, and has no weights that would have to be read to know."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(KINDS[kind]))
    return folder


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in OF_ANOTHER_KIND.items() for kind in kinds])
@pytest.mark.parametrize("adapter", ["whole", "adapter", "adapter beside its kind"])
def test_a_model_of_another_kind_is_one_line(name, kind, adapter, tmp_path, monkeypatch):
    folder = named = of_kind(kind, tmp_path / "model")
    if adapter != "whole":
        named = tmp_path / "adapter"
        named.mkdir()
        config = {"peft_type": "LORA", "base_model_name_or_path": str(folder)}
        (named / "adapter_config.json").write_text(json.dumps(config))
        (named / "adapter_model.safetensors").touch()
        if adapter == "adapter beside its kind":
            shutil.copy(folder / "config.json", named)
    line = refused(name, tmp_path / "out", monkeypatch, *NOWHERE, "--model_name_or_path", str(named))
    assert str(named) in line
    if name not in ("reasonseg", "ssg_vqa"):
        assert KINDS[kind]["model_type"] in line or "BLIP-2 with 'opt'" in line
        assert "this recipe is for " in line and "name another model" in line


@pytest.mark.parametrize("name", ["nutrition_tables", "kvasir_vqa", "visual_chat"])
def test_a_model_that_does_not_chat_is_one_line(name, tmp_path, monkeypatch):
    line = refused(name, tmp_path / "out", monkeypatch, *NOWHERE, "--model_name_or_path", str(tiny.blip2()))
    assert line == (
        f"error: {str(tiny.blip2())!r} has no chat template, and this recipe is for chat models: name another model"
    )


@pytest.mark.parametrize(
    ("name", "kind", "part", "wanted"),
    [
        ("reasonseg", "llava", "sam", "LISA's masks are a SAM's"),
        ("ssg_vqa", "text", "video", "SurgViVQA's video tower is a VideoMAE"),
        ("ssg_vqa", "text", "text", "SurgViVQA's text encoder is a BLIP's"),
    ],
)
def test_a_part_of_another_kind_is_one_line(name, kind, part, wanted, tmp_path, monkeypatch):
    model, other = of_kind(kind, tmp_path / "model"), of_kind("clip", tmp_path / "part")
    places = [*NOWHERE, "--model_name_or_path", str(model), f"--{part}_name_or_path", str(other)]
    line = refused(name, tmp_path / "out", monkeypatch, *places)
    assert line.endswith(f"{str(other)!r} is of the kind 'clip', and {wanted}: name another model")


# --- rows


@pytest.mark.parametrize("name", HOLDING_OUT)
@pytest.mark.parametrize("share", ["-0.1", "1.5", "nan"])
def test_a_share_that_is_none_is_one_line(name, share, tmp_path, monkeypatch):
    for setting in ("validation_fraction", "max_rejected"):
        line = refused(name, tmp_path / "out", monkeypatch, *NOWHERE, f"--{setting}", share)
        assert line == f"error: --{setting} {share}: a share is between 0 and 1"


@pytest.mark.parametrize("name", HOLDING_OUT)
def test_a_share_that_leaves_nothing_to_train_or_to_validate_on_is_one_line(name, tmp_path, monkeypatch):
    line = refused(name, tmp_path / "out", monkeypatch, *NOWHERE, "--validation_fraction", "1")
    assert line.startswith("error: no row would be left to train on (") and "--validation_fraction 1" in line
    line = refused(name, tmp_path / "out", monkeypatch, *NOWHERE, "--validation_fraction", "0")
    assert line.startswith("error: no row would be left to validate on (")
    assert line.endswith("--eval_strategy no --load_best_model_at_end false")


@pytest.mark.parametrize(("name", "single"), [("nutrition_tables", "train"), ("visual_chat", "train")])
def test_one_image_is_too_few_to_hold_one_out(name, single, tmp_path, monkeypatch):
    arguments = [*build(name, tmp_path, **{single: 1}), "--output_dir", str(tmp_path / "out"), *QUICK]
    line = fails(name, *arguments, monkeypatch=monkeypatch)
    assert line.startswith("error: no row would be left to train on (") and "--validation_fraction 0.1" in line


def test_too_few_images_for_three_parts_are_one_line(tmp_path, monkeypatch):
    arguments = [*build("kvasir_vqa", tmp_path, images=2), "--output_dir", str(tmp_path / "out"), *QUICK]
    line = fails("kvasir_vqa", *arguments, monkeypatch=monkeypatch)
    assert line == (
        "error: no row would be left for the train part: validation_fraction 0.05 and test_fraction 0.05 of 2 images"
    )


def test_one_image_of_radiology_is_too_few_however_it_is_split(tmp_path, monkeypatch):
    source, folder = Path(world("vqa_rad")[1]), tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    rows = json.loads(next(source.glob("*.json")).read_text())[:4]
    for number, row in enumerate(rows):
        row |= {"image_name": "one.png", "phrase_type": ["freeform", "test_freeform"][number % 2]}
    Image.new("RGB", (64, 64), "white").save(folder / "images" / "one.png")
    (folder / "rows.json").write_text(json.dumps(rows))
    for more in ([], ["--image_disjoint", "true"]):
        arguments = [*world("vqa_rad"), "--dataset_name", str(folder), "--output_dir", str(tmp_path / "out"), *QUICK]
        line = fails("vqa_rad", *arguments, *more, monkeypatch=monkeypatch)
        assert line.startswith("error: no row would be left to train on (")


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("setting", ["eval_rows", "questions_per_row"])
def test_a_number_of_rows_below_1_is_one_line(name, setting, tmp_path, monkeypatch):
    if (name, setting) != ("nutrition_tables", "questions_per_row"):
        line = refused(name, tmp_path / "out", monkeypatch, *NOWHERE, f"--{setting}", "0")
        assert line == f"error: --{setting} 0: it has to be 1 or more"


@pytest.mark.parametrize(
    ("name", "setting"),
    [(name, "test") for name in ("nutrition_tables", "vqa_rad", "visual_chat", "reasonseg")]
    + [("reasonseg", "validation")],
)
def test_a_split_to_judge_by_that_is_the_training_split_is_one_line(name, setting, tmp_path, monkeypatch):
    line = refused(name, tmp_path / "out", monkeypatch, f"--dataset_{setting}_split", "train")
    assert line == "error: the split 'train' is to be trained on and to be judged by: name another one for either"


def test_so_it_is_for_radiology_in_columns(tmp_path, monkeypatch):
    line = refused("vqa_rad", tmp_path / "out", monkeypatch, *NOWHERE, "--dataset_test_split", "train")
    assert line.startswith("error: the split 'train' is to be trained on")


UNREAD = [
    *((name, "dataset_streaming", "true") for name in SIZES),
    *((name, "ignore_bias_buffers", "true") for name in SIZES),
    *((name, "dataset_test_split", "train") for name in ("kvasir_vqa", "ssg_vqa")),
    ("ssg_vqa", "dataset_train_split", "raw_2"),
    *((name, "dataset_config", "other") for name in ("vqa_rad", "reasonseg", "ssg_vqa")),
    ("vqa_rad", "test_fraction", "0.5"),
]


@pytest.mark.parametrize(("name", "setting", "value"), UNREAD)
def test_a_setting_that_a_recipe_or_the_datasets_format_does_not_read_is_one_line(
    name, setting, value, tmp_path, monkeypatch
):
    line = refused(name, tmp_path / "out", monkeypatch, f"--{setting}", value)
    assert line.startswith(f"error: --{setting} {value.replace('true', 'True')} has no effect: ")


def test_so_is_one_that_clips_and_sentences_have_no_use_for(tmp_path, monkeypatch):
    for setting, value in (("clip_stride", "1"), ("score", "sum")):
        given = ["--dataset_format", "real_colon", f"--{setting}", value]
        line = refused("ssg_vqa", tmp_path / "out", monkeypatch, *given, "--videos", "")
        assert line.startswith(f"error: --{setting} {value} has no effect: ")


def test_every_setting_of_trl_is_read_by_a_recipe_or_refused():
    """One that a later version of TRL adds is neither."""
    known = {"dataset_name", *(setting for _, setting, _ in UNREAD)}
    assert {field.name for field in fields(ScriptArguments)} <= known


# --- what is an error of this project's own


@dataclass
class Arguments:
    number: int = 1


def launched(main, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["recipe.py"])
    launch(main, Arguments)


def of_ours(source: str) -> dict:
    """What the source defines, as a module of this project would."""
    defined = {"__name__": "vlm_recipes.somewhere"}
    exec(source, defined)
    return defined


def test_a_bug_of_ours_still_shows_its_traceback(tmp_path, monkeypatch):
    def bug(arguments):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="^a bug$"):
        launched(bug, monkeypatch)
    made = of_ours("def model_init():\n    raise ValueError('a bug')")["model_init"]
    args = TrainingArguments(tmp_path, report_to="none", use_cpu=True)
    with pytest.raises(ValueError, match="^a bug$"):  # also where a Trainer is made
        launched(lambda arguments: Trainer(args=args, model_init=made), monkeypatch)


def test_what_a_trainer_refuses_of_its_own_accord_is_one_line(tmp_path, monkeypatch):
    args = TrainingArguments(tmp_path, report_to="none", use_cpu=True, eval_strategy="steps", eval_steps=1)
    with pytest.raises(SystemExit, match="^error: You have set `args.eval_strategy` to .*eval_dataset.*$"):
        launched(
            lambda arguments: Trainer(torch.nn.Linear(1, 1), args),
            monkeypatch,
        )


def test_what_the_hub_refuses_is_one_line(monkeypatch):
    def refuse(arguments):
        response = SimpleNamespace(headers={}, request=None)
        raise HfHubHTTPError("403 Forbidden:\nno right to create a model of this name", response=response)

    with pytest.raises(SystemExit, match="^error: the Hub refused: 403 Forbidden: no right to create a model"):
        launched(refuse, monkeypatch)


@pytest.mark.parametrize("part", ["train", "test"])
def test_vqa_rad_names_no_part_of_what_it_divides_by_image(part, tmp_path, monkeypatch):
    more = ["--image_disjoint", "true", f"--dataset_{part}_split", "other"]
    line = refused("vqa_rad", tmp_path / "out", monkeypatch, *more)
    assert line == f"error: --dataset_{part}_split other has no effect: --image_disjoint true divides all images anew"


# --- at the end


def test_a_disk_that_fills_in_the_last_evaluation_is_one_line(tmp_path, monkeypatch):
    def full(*arguments, **settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("vlm_recipes.training.record.RunRecord.conclude", full)
    line = fails(
        "vqa_rad", *world("vqa_rad"), *TRAINED, "--output_dir", str(tmp_path / "out"), monkeypatch=monkeypatch
    )
    assert line.startswith("error: the disk is full ([Errno 28] No space left on device): make room")


def test_a_signal_that_another_process_got_as_training_ended_ends_this_one_too(tmp_path, monkeypatch, capfd):
    """Else that one waits for this one, and this one for its answers."""
    ended = []
    monkeypatch.setattr(InterruptCallback, "on_train_end", lambda self, *event, **named: ended.append(self.close()))
    monkeypatch.setattr(InterruptCallback, "received_by_any", lambda self: bool(ended))
    monkeypatch.setattr(sys, "argv", ["vqa_rad", *world("vqa_rad"), *TRAINED, "--output_dir", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "recipes" / "vqa_rad.py"), run_name="__main__")
    assert stopped.value.code == 128 + signal.SIGTERM
    assert f"interrupted when trained to the end, saved {tmp_path / 'out'}" in capfd.readouterr().err
