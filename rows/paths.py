"""Paths in a dataset, which may not leave its folder."""

from pathlib import Path

import datasets
import pyarrow.compute as pc


def inside(root: str | Path, name: str) -> str | None:
    """The path of the file `name` in the folder `root`; None if it would lie outside."""
    try:
        path = Path(root, name).resolve()
    except (ValueError, RuntimeError, OSError):  # a null byte, a loop of symbolic links
        return None
    return str(path) if path.is_relative_to(Path(root).resolve()) else None


def picture_columns(dataset: datasets.Dataset) -> dict[str, bool]:
    """The columns of pictures, and whether a row has a list of them there."""
    several = {name: hasattr(feature, "feature") for name, feature in dataset.features.items()}
    kinds = {name: getattr(feature, "feature", feature) for name, feature in dataset.features.items()}
    return {name: several[name] for name, kind in kinds.items() if isinstance(kind, datasets.Image)}


def files_of(dataset: datasets.Dataset, column: str) -> list[str]:
    """The files that a column of pictures, or of lists of pictures, names where it has not their bytes; sorted."""
    images = dataset.data.column(column)
    if picture_columns(dataset)[column]:
        images = pc.list_flatten(images)
    paths = pc.if_else(pc.is_valid(pc.struct_field(images, "bytes")), None, pc.struct_field(images, "path"))
    return sorted(filter(None, pc.unique(paths).to_pylist()))  # "" is none, see `vlm_recipes.rows.loading`
