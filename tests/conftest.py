"""Offline, a cache of datasets that ends with the run, and one tiny checkpoint of each family."""

import gc
import io
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path

import pytest
from hypothesis import settings
from PIL import Image

from tests.support.session import once

# The same examples on each run, so that a change is judged by itself; HYPOTHESIS_PROFILE=default draws new ones.
settings.register_profile("same", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# The libraries read these when they are imported: set here, before any test file, and not in a fixture.
_datasets_cache = tempfile.TemporaryDirectory(prefix="datasets-cache-")
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", HF_DATASETS_CACHE=_datasets_cache.name)


_modules = 0  # that were imported when the garbage collector was last told to leave them alone


@pytest.hookimpl(trylast=True)
def pytest_runtest_logfinish(nodeid, location):
    """Each Trainer collects garbage; to search all that is imported by now took longer than most tests' training."""
    global _modules
    if len(sys.modules) > _modules + 50:
        _modules = len(sys.modules)
        gc.collect()
        gc.freeze()


def pytest_collection_finish(session):
    """Before the first test, too. And the code that names prepared rows, here hundreds of files, is read but once.

    transformers writes every configuration that it reads out for a log line that nobody sees: a thirtieth of all time.
    """
    gc.freeze()
    if transformers := sys.modules.get("transformers"):
        transformers.PreTrainedConfig.__repr__ = object.__repr__
    if prepared := sys.modules.get("vlm_recipes.rows.prepared"):
        prepared.other_code = cache(prepared.other_code)


TEXTS = [
    "You are a helpful assistant.",
    "What is shown in this picture? Answer with yes or no.",
    "Describe both pictures.\n\nWhere is the nutrition table?\n\n\n",  # "\n\n" becomes one token, as in Qwen's
    "USER: ASSISTANT: a bowl of muesli\n",
]


@pytest.fixture
def figures_are_blank(monkeypatch) -> None:
    """Rendering a run's figures takes longer than all the rest of it; those of `tests/eval/report` are looked at."""
    blank = io.BytesIO()
    Image.new("RGB", (8, 8), "white").save(blank, "png")
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig", lambda self, file, **settings: file.write(blank.getvalue())
    )


@pytest.fixture
def preflight_is_left_out(monkeypatch) -> None:
    """It takes a third of a short training; the preflight's own tests run each recipe's."""
    from tests.support.left import INSPECT

    monkeypatch.setattr(INSPECT, lambda *event, **more: None)


@dataclass
class Checkpoint:
    folder: Path

    @cached_property
    def processor(self):
        return self.new_processor()

    def new_processor(self):
        """A processor that the test may change."""
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(self.folder)

    def new_model(self):
        from transformers import AutoModelForImageTextToText

        return AutoModelForImageTextToText.from_pretrained(self.folder)


def _qwen(family: str) -> Checkpoint:
    from demo.checkpoints.qwen2_vl import write_qwen2_vl

    sizes = {"hidden_size": 32, "layers": 1, "min_pixels": 4 * 28 * 28, "max_pixels": 36 * 28 * 28}
    write = partial(write_qwen2_vl, texts=TEXTS, family=family, **sizes)
    return Checkpoint(once(f"untrained_{family}", write))


@pytest.fixture(scope="session")
def qwen2_vl() -> Checkpoint:
    return _qwen("qwen2_vl")


@pytest.fixture(scope="session")
def qwen2_5_vl() -> Checkpoint:
    return _qwen("qwen2_5_vl")


@pytest.fixture(scope="session")
def llava() -> Checkpoint:
    from demo.checkpoints.llava import write_llava

    return Checkpoint(once("untrained_llava", lambda folder: write_llava(folder, TEXTS)))


@pytest.fixture(scope="session")
def blip2() -> Checkpoint:
    from demo.checkpoints.blip2 import write_blip2

    sizes = {"image_size": 32, "width": 32, "layers": 1, "queries": 4}
    return Checkpoint(once("untrained_blip2", lambda folder: write_blip2(folder, TEXTS, **sizes)))


@pytest.fixture(scope="session")
def drawn_vqa_rad(tmp_path_factory) -> Path:
    """VQA-RAD's own JSON beside a drawn picture, alike to no other, under each of its 315 names."""
    import json

    import numpy as np
    from PIL import Image

    from tests.support.paths import VQA_RAD

    folder = tmp_path_factory.mktemp("vqa_rad")
    (folder / "images").mkdir()
    (folder / VQA_RAD.name).write_bytes(VQA_RAD.read_bytes())
    names = sorted({row["image_name"] for row in json.loads(VQA_RAD.read_text(encoding="utf-8"))})
    for seed, name in enumerate(names):
        blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((64, 48), Image.Resampling.NEAREST).save(folder / "images" / name)
    return folder


@pytest.fixture
def disk(tmp_path):
    """Make a disk of so many kilobytes, which may be one that can only be read."""
    mounted = []

    def make(kilobytes: int, options: str = "rw") -> Path:
        (tmp_path / "disk").mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,{options}", "tmpfs", str(tmp_path / "disk")]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
        mounted.append(tmp_path / "disk")
        return tmp_path / "disk"

    yield make
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
