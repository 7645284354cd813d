"""Paths in a dataset, which may not leave its folder."""

from pathlib import Path


def inside(root: str | Path, name: str) -> str | None:
    """The path of the file `name` in the folder `root`; None if it would lie outside."""
    try:
        path = Path(root, name).resolve()
    except (ValueError, RuntimeError, OSError):  # a null byte, a loop of symbolic links
        return None
    return str(path) if path.is_relative_to(Path(root).resolve()) else None
