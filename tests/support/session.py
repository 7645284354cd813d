"""Files for all tests of a session, whichever of pytest-xdist's workers runs them, written by the first that asks."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

if "TEST_SESSION_FOLDER" not in os.environ:  # else this process was started by the one that made the folder
    _folder = tempfile.TemporaryDirectory(prefix="vlm-recipes-tests-")
    os.environ["TEST_SESSION_FOLDER"] = _folder.name
FOLDER = Path(os.environ["TEST_SESSION_FOLDER"])


def once(name: str, write: Callable[[Path], object]) -> Path:
    """The session's folder `name`, which `write` writes if no process has yet; nobody may change what is in it."""
    folder, written = FOLDER / name, FOLDER / f"{name}.written"
    with FileLock(FOLDER / f"{name}.lock"):
        if not written.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of somebody who failed
            folder.mkdir()
            write(folder)
            written.touch()
    return folder
