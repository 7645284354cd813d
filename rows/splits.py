"""Which rows are trained on, validated on and tested on: by a drawn share of groups, or by video."""

import random
import re
from collections.abc import Sequence
from pathlib import Path

import datasets
import yaml

from .conventions import PROBLEM
from .errors import DataError


def hold_out(dataset: datasets.Dataset, fraction: float, by: str, seed: int) -> tuple[datasets.Dataset, ...]:
    """Split off about `fraction` of the groups that share a value in the column `by`, at least one if `fraction` > 0.

    Where `by` has lists, rows that share a member are in one group, directly or through others; one with none is by
    itself. Returns `(rest, held out)`; no group is in both. The draw depends on the groups' names and the seed alone.
    """
    keys = _groups(dataset, by)
    groups = sorted(set(keys), key=lambda key: (key is not None, key))  # rows without one are a group
    random.Random(seed).shuffle(groups)
    held = set(groups[: max(1, round(fraction * len(groups)))] if fraction > 0 else [])
    return tuple(
        dataset.select([i for i, key in enumerate(keys) if (key in held) is wanted]) for wanted in (False, True)
    )


def with_validation(
    parts: Sequence[datasets.Dataset], fraction: float, by: str, seed: int
) -> tuple[datasets.Dataset, ...]:
    """Training, validation and test part; of two, `hold_out` takes a `fraction` of the first to validate on."""
    return (*hold_out(parts[0], fraction, by, seed), parts[1]) if len(parts) == 2 else tuple(parts)


def _groups(dataset: datasets.Dataset, by: str) -> list[str | None]:
    """The name of each row's group."""
    keys = dataset[by][:]
    return _together(keys) if isinstance(dataset.features[by], datasets.List) else keys


def _together(members: list[list[str]]) -> list[str]:
    """The name of each row's group: the first, by the alphabet, of all its members."""
    leaders: dict[str, str] = {}

    def first(name: str) -> str:
        while leaders.setdefault(name, name) != name:
            name = leaders[name]
        return name

    for own in members:
        for other in own[1:]:
            leader, led = sorted((first(own[0]), first(other)))
            leaders[led] = leader
    return [first(own[0]) if own else f"row {i}" for i, own in enumerate(members)]


def hold_out_two(
    dataset: datasets.Dataset, validation: float, test: float, by: str, seed: int
) -> dict[str, datasets.Dataset]:
    """`train`, `validation` and `test`, of which the last two have these shares of all groups, see `hold_out`.

    Raises `DataError` where one of the three would have none.
    """
    if validation + test >= 1:
        raise DataError("validation_fraction and test_fraction leave no image to train on: their sum must be below 1")
    rest, held_out = hold_out(dataset, test, by, seed)
    train, validated = hold_out(rest, validation / (1 - test), by, seed)
    parts = {"train": train, "validation": validated, "test": held_out}
    for part, rows in parts.items():
        if not len(rows):
            images = len(set(_groups(dataset, by)))
            asked = f"validation_fraction {validation:g} and test_fraction {test:g} of {images:,} images"
            raise DataError(f"no row would be left for the {part} part: {asked}")
    return parts


TEST_VIDEOS = ("VID02", "VID22", "VID43", "VID60", "VID74")
SPLITS = ("train", "validation", "test")


def read_videos(file: Path) -> dict[str, list[str]]:
    """The videos of each split, from YAML `{train: [VID01, …], validation: […], test: […]}`.

    Raises `DataError` if a split is missing or a video in two of them, and if one of SSG-VQA's test videos is listed
    for anything else: its questions are what published numbers are about.
    """
    try:
        splits = yaml.safe_load(file.read_bytes())
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: the 45th of May
        raise DataError(f"cannot read {str(file)!r} as YAML: {' '.join(str(error).split())}") from error
    seen: dict[str, str] = {}
    for split in SPLITS:
        if not isinstance(splits, dict) or not isinstance(splits.get(split), list) or not splits[split]:
            raise DataError(f"{str(file)!r} needs a list of videos for {split!r}, like {split}: [VID01, VID04]")
        for video in splits[split]:
            if not isinstance(video, str) or not re.fullmatch(r"\w[\w-]*", video):
                raise DataError(f"{str(file)!r} lists {video!r} for {split!r}, which is no name of a video like VID01")
            if video in seen:
                raise DataError(f"{str(file)!r} lists {video} for {seen[video]!r} and again for {split!r}: keep one")
            if video in TEST_VIDEOS and split != "test":
                raise DataError(f"{str(file)!r} lists {video} for {split!r}, one of SSG-VQA's test videos: move it")
            seen[video] = split
    return {split: splits[split] for split in SPLITS}


def by_video(rows: datasets.Dataset, splits: dict[str, list[str]]) -> dict[str, datasets.Dataset]:
    """Each split's rows by their `video`; those whose line could not be read (`PROBLEM`) are refused in training.

    Raises `DataError` for a video that no split names, and a split without rows.
    """
    of_video = {video: split for split, videos in splits.items() for video in videos}
    places: dict[str, list[int]] = {split: [] for split in splits}
    for i, (video, problem) in enumerate(zip(rows["video"][:], rows[PROBLEM][:], strict=True)):
        if not problem and video not in of_video:
            raise DataError(f"the video {video!r} is in no split: name it for {', '.join(splits)}, or drop its rows")
        places["train" if problem else of_video[video]].append(i)
    for split, chosen in places.items():
        if not chosen:
            raise DataError(f"no row is about {', '.join(splits[split])}, the videos of {split!r}")
    return {split: rows.select(chosen) for split, chosen in places.items()}
