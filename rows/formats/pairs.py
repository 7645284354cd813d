"""Pictures, and a picture of the same name for each of their masks -> rows of masks.

A layout of ours, as no tool's is known by all: `images/<name>.jpg` and `masks/<text>/<name>.png`, where `_` in the
text is a space; or both in a folder of a split, `train/images/` and `train/masks/`.
"""

from collections import defaultdict
from pathlib import Path

import datasets

from ..conventions import PROBLEM, Row
from ..errors import BadRow, DataError
from .files import files_under, split_in, storable
from .read import PICTURE, SUFFIXES, TEXT, Read, dataset_of, picture_at, so_many

TITLE = "pairs of pictures and masks"
LOSSY = (".jpg", ".jpeg", ".webp")  # their black is not 0 everywhere
COLUMNS = {
    "image": PICTURE,
    "text": datasets.List(TEXT),
    "mask": datasets.Image(),
    "kind": TEXT,
    "is_sentence": datasets.Value("bool"),
}


def recognises(place: Path) -> bool:
    """Whether a folder, or one in it, has `images/` and, in `masks/`, folders with pictures."""
    return any(True for folder in _parts(place) for _ in _masks(place, folder))


def read_masks(place: Path) -> Read:
    """A row for each mask, with its picture and its folder's name as the `text`; `DataError` without any.

    A mask is 0 where there is nothing, or 0, 1 and 255, see `vlm_recipes.rows.formats.reasonseg.picture_mask`. One
    without a picture, without a text, or of a type that loses pixels is there, too, refused; pictures without a mask
    are counted.
    """
    splits: dict[str, list[Row]] = {}
    unasked, seen = 0, set()
    for folder in _parts(place):
        pictures = defaultdict(list)
        for path in files_under(place, f"{folder}/images", SUFFIXES):
            pictures[_name(path, f"{folder}/images")].append(path)
        rows = [_row(place, folder, mask, pictures) for mask in files_under(place, f"{folder}/masks", SUFFIXES)]
        splits.setdefault(split_in(folder) or "all", []).extend(rows)
        asked = {row["image_id"] for row in rows}
        seen |= {storable(path) for paths in pictures.values() for path in paths} | asked
        unasked += sum(storable(paths[0]) not in asked for paths in pictures.values())
    splits = {split: rows for split, rows in splits.items() if rows}
    if not splits:
        raise DataError(f"{str(place)!r} has no masks, like masks/red_cup/photo.png for images/photo.jpg")
    texts = {row["kind"] for rows in splits.values() for row in rows if "kind" in row}
    counts = so_many(len(texts), len(seen)) + (f", {unasked} of them without any" if unasked else "")
    return Read({split: dataset_of(rows, COLUMNS) for split, rows in splits.items()}, counts)


def _parts(place: Path) -> list[str]:
    """The folders that have `images/` and `masks/`."""
    found = sorted(place.glob("*/masks")) + ([place / "masks"] if (place / "masks").is_dir() else [])
    return [str(masks.parent.relative_to(place)) for masks in found if (masks.parent / "images").is_dir()]


def _masks(place: Path, folder: str) -> list[str]:
    paths = files_under(place, f"{folder}/masks", SUFFIXES)
    return [path for path in paths if "/" in Path(path).relative_to(folder, "masks").as_posix()]


def _name(path: str, folder: str) -> str:
    return Path(path).relative_to(folder).with_suffix("").as_posix()


def _row(place: Path, folder: str, mask: str, pictures: dict[str, list[str]]) -> Row:
    text, _, name = _name(mask, f"{folder}/masks").partition("/")
    found = pictures.get(name, [f"{folder}/images/{name}{SUFFIXES[0]}"])
    about = Path(found[0]).as_posix()
    row: Row = {"id": storable(mask), "image_id": storable(about)}
    try:
        if (row["id"], row["image_id"]) != (mask, about):
            raise BadRow("the name of its file is not in UTF-8: rename it")
        if not name:
            raise BadRow("its folder is named after nothing that it shows: masks/<text>/<name>.png is due")
        if Path(mask).suffix.lower() in LOSSY:
            raise BadRow(f"a mask as {Path(mask).suffix} is not what was drawn: PNG is due")
        if len(found) > 1:
            raise BadRow(f"{len(found)} pictures have its name but for its end: keep one")
        phrase = text.replace("_", " ").strip()
        if not phrase:
            raise BadRow("its folder's name is no text")
        row |= {"image": picture_at(place, about), "mask": picture_at(place, mask)}
        if row["mask"] is None:
            raise BadRow("its mask is a link that leaves the dataset's folder")
        row |= {"text": [phrase], "kind": phrase, "is_sentence": False}
    except BadRow as error:
        row[PROBLEM] = str(error)
    return row
