"""Offline, a cache of datasets that ends with the run, and one tiny checkpoint of each family."""

import os
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on each run, so that a change is judged by itself; HYPOTHESIS_PROFILE=default draws new ones.
settings.register_profile("same", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# The libraries read these when they are imported: set here, before any test file, and not in a fixture.
_datasets_cache = tempfile.TemporaryDirectory(prefix="datasets-cache-")
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", HF_DATASETS_CACHE=_datasets_cache.name)

TEXTS = [
    "You are a helpful assistant.",
    "What is shown in this picture? Answer with yes or no.",
    "Describe both pictures.\n\nWhere is the nutrition table?\n\n\n",  # "\n\n" becomes one token, as in Qwen's
    "USER: ASSISTANT: a bowl of muesli\n",
]


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


def _qwen(folder: Path, family: str) -> Checkpoint:
    from demo.checkpoints.qwen2_vl import write_qwen2_vl

    pixels = {"min_pixels": 4 * 28 * 28, "max_pixels": 36 * 28 * 28}
    write_qwen2_vl(folder, TEXTS, family=family, hidden_size=32, layers=1, **pixels)
    return Checkpoint(folder)


@pytest.fixture(scope="session")
def qwen2_vl(tmp_path_factory) -> Checkpoint:
    return _qwen(tmp_path_factory.mktemp("qwen2_vl"), "qwen2_vl")


@pytest.fixture(scope="session")
def qwen2_5_vl(tmp_path_factory) -> Checkpoint:
    return _qwen(tmp_path_factory.mktemp("qwen2_5_vl"), "qwen2_5_vl")


@pytest.fixture(scope="session")
def llava(tmp_path_factory) -> Checkpoint:
    from demo.checkpoints.llava import write_llava

    folder = tmp_path_factory.mktemp("llava")
    write_llava(folder, TEXTS)
    return Checkpoint(folder)


@pytest.fixture(scope="session")
def blip2(tmp_path_factory) -> Checkpoint:
    from demo.checkpoints.blip2 import write_blip2

    folder = tmp_path_factory.mktemp("blip2")
    write_blip2(folder, TEXTS, image_size=32, width=32, layers=1, queries=4)
    return Checkpoint(folder)
