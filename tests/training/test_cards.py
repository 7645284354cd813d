"""One process computes on one card, in a number format that the card has, or ends in one line before it reads a thing.

No machine of these tests has several GPUs: PyTorch is made to say so, and all above it is as it is.
"""

import json
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from transformers.utils import is_torch_cuda_available
from transformers.utils.import_utils import is_torch_bf16_gpu_available

from demo.worlds.small import SIZES
from recipes.kvasir_vqa import Data, Model, Training
from tests.support.running import fails
from vlm_recipes.training.launch import RecipeParser

GIB = 2**30
FREE = [3, 20, 71, 0]  # GiB of 79, of the cards 0 to 3


@pytest.fixture
def gpus(monkeypatch):
    """Make PyTorch show so many GPUs, of an architecture: 7 is a V100's and a T4's, 8 an A100's."""

    def show(count: int, major: int = 8) -> None:
        def memory(card: int) -> tuple[int, int]:
            if not FREE[card]:
                raise torch.AcceleratorError("CUDA error: out of memory")
            return FREE[card] * GIB, 79 * GIB

        shown = {
            "is_available": lambda: True,
            "device_count": lambda: count,
            "current_device": lambda: 0,
            "set_device": lambda device: None,
            "mem_get_info": memory,
            "get_device_properties": lambda device: SimpleNamespace(major=major),
            "get_device_name": lambda device=None: "Tesla T4" if major < 8 else "NVIDIA A100",
            "_check_bf16_tensor_supported": lambda device: True,  # by emulation, as on a T4
        }
        for name, function in shown.items():
            monkeypatch.setattr(torch.cuda, name, function)
        forget()

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("ACCELERATE_USE_CPU", "ACCELERATE_MIXED_PRECISION", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    yield show
    monkeypatch.undo()
    forget()


def forget() -> None:
    """The libraries keep what they once found."""
    for found in (is_torch_cuda_available, is_torch_bf16_gpu_available):
        found.cache_clear()
    AcceleratorState._reset_state(reset_partial_state=True)


def parsed(*arguments: str) -> tuple:
    """The training and the model of a recipe that is launched with these arguments."""
    _, training, model = RecipeParser((Data, Training, Model)).parse_args_and_config(arguments)
    return training, model


SEVERAL = (
    "error: 4 GPUs are visible to one process: CUDA_VISIBLE_DEVICES=2 accelerate launch … (card 2 has 71 of 79 GiB "
    "free), or all of them with accelerate_configs/ddp.yaml --num_processes 4"
)


@pytest.mark.parametrize("more", [[], ["--do_train", "false"], ["--max_steps", "0"]], ids=" ".join)
@pytest.mark.parametrize("recipe", SIZES)
def test_several_gpus_for_one_process_are_one_line_with_the_freest_card(recipe, more, gpus, tmp_path, monkeypatch):
    """There is neither such a dataset nor such a model: nothing has been read."""
    gpus(4)
    nowhere = ["--dataset_name", "no/such/dataset", "--model_name_or_path", "no/such/model"]
    line = fails(recipe, *nowhere, "--output_dir", str(tmp_path), *more, monkeypatch=monkeypatch)
    assert line == SEVERAL


@pytest.mark.parametrize(
    ("visible", "named"), [("7,5, 3,1", "3"), ("GPU-6a5b,GPU-71c2,GPU-9d0e,GPU-1f3a", "GPU-9d0e")], ids=["index", "id"]
)
def test_the_card_is_named_as_those_that_are_visible_already_are(visible, named, gpus, monkeypatch):
    gpus(4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(
        ValueError, match=f"CUDA_VISIBLE_DEVICES={named} accelerate launch … .card {named} has 71 of 79"
    ):
        Training()


def test_one_visible_gpu_is_computed_on(gpus):
    gpus(1)
    assert Training().device == torch.device("cuda:0")


def test_the_cpu_is_taken_beside_several_gpus_where_it_is_asked_for(gpus, monkeypatch):
    gpus(4)
    assert Training(use_cpu=True).device == torch.device("cpu")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")  # what `use_cpu: true` of a launch config becomes
    training = Training()
    assert training.device == PartialState().device == torch.device("cpu")


def test_each_process_of_several_has_a_gpu_of_its_own(gpus, monkeypatch, tmp_path):
    gpus(4)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    for name, value in {"RANK": "0", "LOCAL_RANK": "2", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    try:
        training = Training()
    finally:
        torch.distributed.destroy_process_group()
    assert (training.device, training.n_gpu) == (torch.device("cuda:2"), 1)


# --- Number formats


def test_a_card_without_bfloat16_is_one_line_where_the_launch_asks_for_it(gpus, monkeypatch):
    gpus(1, major=7)
    assert torch.cuda.is_bf16_supported()  # PyTorch's answer, for it would emulate it
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    line = fails("kvasir_vqa", monkeypatch=monkeypatch)
    assert line == (
        "error: Tesla T4 has no bfloat16: --bf16 false --fp16 true computes in float16, as "
        "accelerate_configs/t4_16gb.yaml does, and --bf16 false alone in float32"
    )
    assert Training(bf16=False, fp16=True).mixed_precision == "fp16"
    assert Training(bf16=False).mixed_precision == "no"


@pytest.mark.parametrize(("major", "expected"), [(7, "no"), (8, "bf16")])
def test_without_a_launcher_a_card_computes_in_bfloat16_if_it_has_it(major, expected, gpus):
    gpus(1, major)
    assert Training().mixed_precision == expected
    assert Model().dtype == {"no": "float32", "bf16": "bfloat16"}[expected]


def test_float16_on_a_cpu_is_one_line(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    line = fails("kvasir_vqa", "--use_cpu", "true", monkeypatch=monkeypatch)
    assert line == (
        "error: float16 needs a GPU: launch with accelerate_configs/cpu.yaml, or with --fp16 false, for float32"
    )


# What the command line says -> of the training, and of the model.
GIVEN = {
    "": ("bf16", "bfloat16"),
    "--fp16 true": ("fp16", "float16"),
    "--bf16 false": ("no", "float32"),
    "--bf16 false --fp16 true": ("fp16", "float16"),
    "--fp16 true --dtype float32": ("fp16", "float32"),
    "--dtype float16": ("bf16", "float16"),
    "--config {settings}": ("fp16", "float16"),
    "--config {settings} --dtype bfloat16": ("fp16", "bfloat16"),
}


@pytest.mark.parametrize("given", GIVEN)
def test_the_model_s_format_follows_the_training_s_unless_it_is_given(given, gpus, tmp_path, monkeypatch, capsys):
    gpus(1)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    (tmp_path / "settings.yaml").write_text("fp16: true\n")
    training, model = parsed(*given.format(settings=tmp_path / "settings.yaml").split())
    assert (training.mixed_precision, model.dtype) == GIVEN[given]
    said = "number format: {}, as bf16 and fp16 were given; the launch alone says bfloat16\n"
    changed = "dtype" not in given and model.dtype != "bfloat16"
    assert capsys.readouterr().out == (said.format(model.dtype) if changed else "")
    parsed(*given.format(settings=tmp_path / "settings.yaml").split(), "--plan", "t4_16gb")
    assert capsys.readouterr().out == ""  # a plan launches nothing


def test_a_run_again_from_its_run_json_has_its_formats_and_moves_the_model_s_with_the_training_s(
    gpus, tmp_path, monkeypatch
):
    gpus(1)
    training, model = parsed("--fp16", "true")
    arguments = {"data": {}, "training": training.to_dict(), "model": asdict(model)}
    (tmp_path / "run.json").write_text(json.dumps({"arguments": arguments}))
    again = ["--config", str(tmp_path / "run.json")]
    for launched in ("bf16", "no"):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
        for more, expected in ([], ("fp16", "float16")), (["--fp16", "false"], ("no", "float32")):
            training, model = parsed(*again, *more)
            assert (training.mixed_precision, model.dtype) == expected
    arguments["model"]["dtype"] = "float32"  # as it was given
    (tmp_path / "run.json").write_text(json.dumps({"arguments": arguments}))
    assert parsed(*again)[1].dtype == parsed(*again, "--fp16", "false", "--bf16", "true")[1].dtype == "float32"
