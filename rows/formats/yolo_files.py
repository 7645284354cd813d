"""Which pictures, labels and names of classes a folder in YOLO's format has."""

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import DataError
from ..paths import inside
from .files import files_under, head_of, split_in, split_of
from .read import SUFFIXES, shown

YAML = (".yaml", ".yml")
LIST_OF_CLASSES = ("classes.txt", "obj.names")
LARGEST_YAML = 10**6  # bytes
LINE = re.compile(rb"\s*\d+(\s+[-+.\deE]+){4,}\s*(\n|$)")


@dataclass
class Layout:
    """Pictures of each split, and label files without one, by their paths in the folder `root`."""

    root: Path
    names: dict[int, Any]  # of classes, as they are in the file
    keypoints: int = 0  # numbers after each box
    splits: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)  # what the YAML names and is not there


def layout_of(place: Path) -> Layout:
    """What `place`, a folder or its YAML, has; `DataError` where no class has a name, or no picture is there."""
    if os.path.isfile(place):
        return _of_yaml(place)
    files = yaml_files(place)
    usual = [file for file in files if file.stem in ("data", "dataset")][:1]  # broken or not
    files = usual or [file for file in files if content_of(file)]
    if len(files) > 1:
        raise DataError(f"{str(place)!r} has {' and '.join(file.name for file in files)}: name one as the dataset")
    return _of_yaml(files[0]) if files else _by_folders(place, _listed_names(place))


def label_of(picture: str) -> str:
    """The path of a picture's label file: what is last in it as a folder `images` is `labels` there."""
    folders = list(Path(picture).parent.parts)
    if "images" in folders:
        folders[len(folders) - 1 - folders[::-1].index("images")] = "labels"
    return Path(*folders, f"{Path(picture).stem}.txt").as_posix()


def _of_yaml(file: Path) -> Layout:
    content, root = _yaml(file), file.parent
    layout = Layout(root, _named(content.get("names"), file), _keypoints(content))
    for split, entries in content.items():
        if split_in(split) != split or not entries:
            continue
        entries = entries if isinstance(entries, list) else [entries]
        if not all(isinstance(entry, str) for entry in entries):
            raise DataError(f"{file}: {split!r} is {shown(entries)}: the name of a folder or a list of them is due")
        pictures, labels = [], []
        for entry in entries:
            found = _find(root, content.get("path"), entry)
            if found is None:
                layout.missing.append(f"{entry} for {split!r}")
            elif os.path.isfile(root / found):
                pictures += _listed(root, found)
            else:
                pictures += files_under(root, found, SUFFIXES)
                labels += files_under(root, os.path.dirname(label_of(f"{found}/x")), (".txt",))
        layout.splits[split] = _paired(root, pictures, labels)
    if not layout.splits and not layout.missing:  # it names classes alone
        return _by_folders(root, layout.names, layout.keypoints)
    layout.splits = {split: found for split, found in layout.splits.items() if any(found)}
    if not layout.splits:
        raise DataError(f"{file} names no picture that is in its folder: {', '.join(layout.missing)}")
    return layout


def _listed_names(place: Path) -> dict[int, Any]:
    """The names of classes that text files list, all the same."""
    lists = [path for path in files_under(place, ".", LIST_OF_CLASSES) if Path(path).name in LIST_OF_CLASSES]
    texts = {_text(place, path) for path in lists}
    if len(texts) != 1:
        told = f"{' and '.join(lists)} differ" if lists else "it has neither a YAML with 'names' nor classes.txt"
        raise DataError(f"the classes of {str(place)!r} have no names: {told}, a name a line")
    return _named([name.strip() for name in texts.pop().strip().split("\n")], place / lists[0])


def _by_folders(place: Path, names: dict[int, Any], keypoints: int = 0) -> Layout:
    """All that is in a folder, a split for each word that a folder has for one."""
    layout, found = Layout(place, names, keypoints), {}
    for kind, suffixes in enumerate((SUFFIXES, (".txt",))):
        for path in files_under(place, ".", suffixes):
            found.setdefault(split_of(path), ([], []))[kind].append(path)
    paired = {split: _paired(place, *found[split]) for split in sorted(found)}
    layout.splits = {split: pair for split, pair in paired.items() if any(pair)}
    if not layout.splits:
        raise DataError(f"{str(place)!r} has no pictures, like images/train/a.jpg")
    return layout


def _paired(root: Path, pictures: list[str], labels: list[str]) -> tuple[list[str], list[str]]:
    """Pictures, each once, and the label files that are none's; a text file beside pictures may be anything else."""
    known = set(map(label_of, pictures))
    alone = [label for label in labels if label not in known and Path(label).name not in LIST_OF_CLASSES]
    alone = [label for label in alone if "labels" in Path(label).parts[:-1] or is_label(root, label)]
    return list(dict.fromkeys(pictures)), alone


def _find(root: Path, base: Any, entry: str) -> str | None:
    """The path in `root` of what a YAML names, relative to its `path` or, where that is elsewhere, to itself.

    Leading `../`, of Roboflow's, are left out, as Ultralytics does.
    """
    within = [base] if isinstance(base, str) and base and inside(root, base) else []
    for folder in [*within, "."]:
        for name in (entry, re.sub(r"^(\.\./)+", "", entry)):
            path = os.path.join(folder, name)
            if inside(root, path) and os.path.exists(root / path):
                return os.path.relpath(root / path, root)
    return None


def _listed(root: Path, file: str) -> list[str]:
    """The pictures that a text file lists, relative to its own folder or, if there is no such file, to `root`."""
    listed = []
    for line in filter(None, map(str.strip, _text(root, file).split("\n"))):
        paths = [os.path.normpath(os.path.join(folder, line)) for folder in (os.path.dirname(file), "")]
        listed.append(next((path for path in paths if os.path.isfile(root / path)), paths[0]))
    return listed


def _text(root: Path, path: str) -> str:
    try:
        if not inside(root, path):
            raise OSError("it is a link that leaves the folder")
        return (root / path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{root / path} cannot be read: {error}") from error


def _named(names: Any, file: Path) -> dict[int, Any]:
    """The names of classes by number; `DataError` for other things, and two of one name."""
    if isinstance(names, list):
        names = dict(enumerate(names))
    try:
        named = {int(number): name for number, name in names.items()}
    except (AttributeError, ValueError):
        named = {}
    if not named:
        raise DataError(f"{file}: 'names' is {shown(names)}: a list, or a name for each number, is due")
    uses = Counter(name for name in named.values() if isinstance(name, str))
    if twice := [name for name, count in uses.items() if count > 1]:
        raise DataError(f"{file}: two classes have the name {shown(twice[0])}: rename one")
    return named


def _yaml(file: Path) -> dict[str, Any]:
    """YAML whose values are all texts: to others `no` is a number, and so is 1_0."""
    try:
        content = yaml.load(file.read_bytes(), Loader=yaml.BaseLoader)
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise DataError(f"{file} is {shown(content)}: 'names' and 'train' are due")
    return content


def yaml_files(place: Path) -> list[Path]:
    return sorted(file for suffix in YAML for file in place.glob(f"*{suffix}") if inside(place, file.name))


def content_of(file: Path) -> dict[str, Any] | None:
    """What a YAML with names of classes has; None for another file."""
    try:
        fits = file.suffix in YAML and os.path.isfile(file) and file.stat().st_size < LARGEST_YAML
        content = _yaml(file) if fits else {}
    except DataError:
        return None
    return content if isinstance(content.get("names"), list | dict) else None


def _keypoints(content: dict[str, Any]) -> int:
    """How many numbers of points follow a box: `kpt_shape` says how many points, and how many numbers each has."""
    shape = content.get("kpt_shape", ["0", "0"])
    if not (isinstance(shape, list) and len(shape) == 2 and all(str(side).isdecimal() for side in shape)):
        raise DataError(f"'kpt_shape' in the YAML is {shown(shape)}: [points, numbers of each] is due")
    return int(shape[0]) * int(shape[1])


def is_label(root: Path, path: str) -> bool:
    """Whether a file in `root` begins as a label does."""
    return bool(LINE.match(head_of(root, path)))
