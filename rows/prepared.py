"""What is made of rows once: found on disk by the next start, and by every other process.

It is named by all that decides it: the data, what was asked, and the code that makes it. `datasets` names what a
function of a module makes by the function's name alone, and gives the old rows after its code has changed.
"""

import hashlib
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets.fingerprint import Hasher
from filelock import FileLock
from joblib import cpu_count

from .errors import DataError, one_line

# What of this project can decide what a row becomes.
MAKERS = tuple(Path(__file__).resolve().parents[1] / part for part in ("collators", "eval/metrics", "models", "rows"))
LIBRARIES = ("datasets", "imagehash", "pillow", "tokenizers", "transformers")
ROWS_A_PROCESS = 1000  # at least: to begin a process takes as long as a few hundred rows


def prepared(what: Any, make: Callable[[Path], datasets.Dataset]) -> datasets.Dataset:
    """The rows that `make` makes of `what`, from the disk where they have been made before; others wait meanwhile.

    Args:
        what: all that decides the rows beside the code: anything that `datasets` can hash, functions included.
        make: gets a folder for what it writes on its way.

    Raises `DataError` where nothing can be written. They lie in the folder `vlm_recipes` of `datasets`' own cache,
    which may be deleted at any time between two runs.
    """
    key = Hasher.hash([what, code_in(MAKERS), *other_code(), *map(version, LIBRARIES)])
    folder = Path(datasets.config.HF_DATASETS_CACHE, "vlm_recipes")
    file = folder / f"{key}.arrow"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            if not file.is_file():
                _write(make, file)
    except OSError as error:
        place = f"in {str(folder)!r} (HF_DATASETS_CACHE names another one)"
        raise DataError(f"cannot prepare rows {place}: {one_line(str(error))}") from error
    return datasets.Dataset.from_file(str(file))


def _write(make: Callable[[Path], datasets.Dataset], file: Path) -> None:
    scratch = file.with_suffix(".unfinished")
    shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
    scratch.mkdir()
    made = make(scratch)
    table, schema = made.data.table, made.features.arrow_schema
    # pyarrow 26 makes a broken table of one of lists with something that is None in all of them, if it casts it.
    table = table.replace_schema_metadata(schema.metadata) if table.schema.equals(schema) else table.cast(schema)
    with pa.OSFile(str(scratch / file.name), "wb") as sink, pa.ipc.new_stream(sink, schema) as stream:
        stream.write_table(table, max_chunksize=ROWS_A_PROCESS)
    os.replace(scratch / file.name, file)
    shutil.rmtree(scratch)


def state_of(paths: Iterable[str | Path]) -> str:
    """A name for these files, and all in these folders, as they are now: where, how long, when changed.

    Where is told from the root, links followed: a copy of a folder is another one, by whatever path both are named.
    """
    real = map(os.path.realpath, paths)
    return state_of_files(file for path in real for file in (_files_in(path) if os.path.isdir(path) else [path]))


def state_of_files(paths: Iterable[str | Path]) -> str:
    """The same of what should be files: one that is a folder is not looked into, however much is in it."""
    found = hashlib.sha256()
    for path in paths:
        found.update(_state(os.fspath(path)))
    return found.hexdigest()


def _files_in(folder: str | Path) -> Iterator[str]:
    for place, subfolders, names in os.walk(folder):
        subfolders.sort()
        yield from (os.path.join(place, name) for name in sorted(names))


def _state(path: str) -> bytes:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a null byte
        return repr((path, None)).encode()
    return repr((path, status.st_size, status.st_mtime_ns)).encode()


@cache
def code_in(folders: tuple[Path, ...]) -> str:
    """A name for the Python code in these folders."""
    found = hashlib.sha256()
    for file in sorted(file for folder in folders for file in folder.rglob("*.py")):
        found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()


def other_code() -> list[str]:
    """A name for the code of what else is loaded and no library: the recipe, and modules that its author wrote."""
    libraries = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))
    files = set()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        ours = name.partition(".")[0] == "vlm_recipes"  # whose other code decides nothing of a row
        installed = file.startswith(libraries) or {"site-packages", "dist-packages"} & set(Path(file).parts)
        if file.endswith(".py") and os.path.isfile(file) and not ours and not installed:
            files.add(os.path.realpath(file))
    return sorted(f"{Path(file).name} {hashlib.sha256(Path(file).read_bytes()).hexdigest()}" for file in files)


def processes_for(rows: int, asked: int | None = None) -> int | None:
    """How many processes make so many rows, as `datasets` is told: those `asked` for, or one a core; None for one."""
    processes = asked or min(cpu_count(), rows // ROWS_A_PROCESS)
    return processes if processes > 1 else None
