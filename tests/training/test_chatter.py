"""What libraries say that nobody can act on is not said; all else is."""

import importlib.util
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch import nn

from tests.support.paths import ROOT
from tests.support.worlds import world
from vlm_recipes.training import chatter

SAID = {  # logger -> what it says, and the words that its source has for it
    "bitsandbytes.backends.cpu.ops": (
        "Failed to load CPU gemm_4bit_forward from kernels-community: No module named 'kernels'. Please make sure",
        "Failed to load CPU gemm_4bit_forward from kernels-community: %s.",
    ),
    "bitsandbytes.autograd._functions": (
        "MatMul8bitLt: inputs will be cast from torch.bfloat16 to float16 during quantization",
        "MatMul8bitLt: inputs will be cast from",
    ),
    "DeepSpeed": (
        "Setting accelerator to CPU. If you have GPU or other accelerator, we were unable to detect it.",
        "Setting accelerator to CPU.",
    ),
    "transformers.trainer_utils": (
        "mtime may not be reliable on this filesystem, falling back to numerical ordering",
        "mtime may not be reliable on this filesystem",
    ),
    "transformers.utils.generic": (
        "`use_cache=True` is incompatible with gradient checkpointing. Setting `use_cache=False`.",
        "`use_cache=True` is incompatible with gradient checkpointing.",
    ),
}
MISSING = "There were missing keys in the checkpoint model loaded: {}."


@contextmanager
def heard(logger: str) -> Iterator[list[str]]:
    """What a handler of this logger is given."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger(logger).addHandler(handler)
    try:
        yield messages
    finally:
        logging.getLogger(logger).removeHandler(handler)


@pytest.mark.parametrize("logger", chatter.LOGGED)
def test_what_a_library_logs_in_these_words_is_not_said_and_anything_else_is(logger):
    said, _ = SAID[logger]
    with heard(logger) as messages:
        logging.getLogger(logger).warning(said)
        logging.getLogger(logger).warning("out of memory, and %s", said)
        logging.getLogger(f"{logger}.another").warning(said)
    assert messages == [f"out of memory, and {said}", said]


@pytest.mark.parametrize("logger", SAID)
def test_the_library_still_says_so(logger):
    """Where it no longer does, its line in `chatter.py` has had its time."""
    module = "deepspeed.accelerator.real_accelerator" if logger == "DeepSpeed" else logger
    source = Path(importlib.util.find_spec(module).origin).read_text(encoding="utf-8")
    assert SAID[logger][1] in source and SAID.keys() == chatter.LOGGED.keys()


def test_deprecations_of_settings_that_recipes_choose_are_not_said_and_other_warnings_are():
    chosen = ["gradient_checkpointing", "gradient_checkpointing_kwargs", "is_gradient_checkpointing"]
    end = "is deprecated and will be removed in v6. Use `activation_checkpointing` instead."
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for category, beginning in chatter.WARNED:
            warnings.filterwarnings("ignore", message=beginning, category=category)
        for name in chosen:
            warnings.warn(f"`{name}` {end}", FutureWarning, stacklevel=1)
            warnings.warn(f"`{name}` {end}", UserWarning, stacklevel=1)
        warnings.warn(f"`torch_dtype` {end}", FutureWarning, stacklevel=1)
        warnings.warn("the chat template alone writes an answer in another way", UserWarning, stacklevel=1)
    assert [(one.category, str(one.message).split()[0]) for one in seen] == [
        *((UserWarning, f"`{name}`") for name in chosen),
        (FutureWarning, "`torch_dtype`"),
        (UserWarning, "the"),
    ]


def test_a_shared_weight_s_second_name_is_no_missing_weight_and_a_weight_that_is_nowhere_is():
    network = nn.ModuleDict(
        {"embedding": nn.Linear(2, 3, bias=False), "head": nn.Linear(2, 3), "own": nn.Linear(2, 2)}
    )
    network["head"].weight = network["embedding"].weight
    names = [["head.weight"], ["embedding.weight"], ["head.weight", "embedding.weight"], ["head.weight", "own.bias"]]
    names += [["own.bias"], ["unheard.of"]]
    with heard("transformers.trainer") as messages:
        with chatter.shared_weights_are_no_news(network):
            for missing in names:
                logging.getLogger("transformers.trainer").warning(MISSING.format(missing))
        logging.getLogger("transformers.trainer").warning(MISSING.format(["head.weight"]))
    assert messages == [MISSING.format(missing) for missing in [*names[2:], ["head.weight"]]]
    source = Path(importlib.util.find_spec("transformers.trainer").origin).read_text(encoding="utf-8")
    assert MISSING.partition("{")[0] in source


@pytest.mark.slow
def test_a_run_says_one_line_a_log_and_nothing_into_stderr(tmp_path):
    """The whole of it in a process of its own, with LoRA and checkpointing, as it is launched."""
    given = (
        "--max_steps 2 --eval_strategy steps --eval_steps 1 --logging_steps 1 --gradient_checkpointing true".split()
    )
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/cpu.yaml"]
    command += ["recipes/nutrition_tables.py", *world("nutrition_tables"), *given, "--output_dir", str(tmp_path)]
    threads = {**os.environ, "OMP_NUM_THREADS": "1"}  # or accelerate's launcher says how many it takes
    done = subprocess.run(command, cwd=ROOT, env=threads, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert not [line for line in lines if line.startswith(("{", "[")) or "WARNING" in line]
    told = [line.partition(":")[0] for line in lines if line.startswith("step ")]
    assert told == ["step 1/2", "step 1", "step 2/2", "step 2", "step 2/2"]
    assert [line for line in lines if line.startswith("| test ")] and f"report: {tmp_path}/report.html" in lines
