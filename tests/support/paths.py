"""Where the project and its data for tests lie, and the real samples beside it, where there are any."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
SHARED_DATA = ROOT.parent / "shared" / "data"
VQA_RAD = DATA / "vqa_rad" / "VQA_RAD Dataset Public.json"


def written_and_real(
    name: str, written: tuple = (), real: tuple = (), real_name: str = "", slow: bool = False
) -> list:
    """A test's parameters: a file of `DATA` with what is so in it, and the real one, which not every machine has.

    With `slow` the real one is left to `make test-slow`.
    """
    path = SHARED_DATA / (real_name or name)
    marks = [pytest.mark.skipif(not path.exists(), reason=f"no real {path.name} in ../shared/data")]
    marks += [pytest.mark.slow] if slow else []
    return [pytest.param(DATA / name, *written, id="written"), pytest.param(path, *real, id="real", marks=marks)]
