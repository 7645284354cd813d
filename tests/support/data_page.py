"""The examples in docs/data.md, of the datasets that `data_worlds` draws: `python -m tests.support.data_page`.

A section is about one format: what is said of it stands in the page alone, the block with its files and the beginning
of one of them is written from what is drawn, and its command is what `tests/project/test_data_page.py` runs.
"""

import json
import re
import shlex
import tempfile
from pathlib import Path
from typing import Any

import pandas
import torch
from torchvision.ops import box_convert

from tests.support.data_worlds import SIZE, WORLDS
from tests.support.paths import ROOT
from vlm_recipes.rows.boxes import ORDERS

PAGE = ROOT / "docs" / "data.md"
WIDTH = 116  # of a line
LINES = 3  # of a file
SHOWN = "images annotations categories shapes imagePath imageHeight text is_sentence".split()  # keys of JSON
HIDDEN = "license date_captured area iscrowd supercategory group_id description flags".split()  # keys in there
SECTION = re.compile(r"^### (.+?)\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
TABLE = re.compile(r"^(\| \| `relative`.*\n\| --- .*\n)(?:\| `.*\n)*", re.MULTILINE)
EXAMPLE = re.compile(r"^```text\n(.*?)```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(
    r"^```bash\naccelerate launch --config_file \S+ recipes/(\w+)\.py (.*?)```$", re.MULTILINE | re.DOTALL
)


def sections(page: str) -> dict[str, str]:
    """The text of each section, by its heading."""
    return dict(SECTION.findall(page))


def command(section: str) -> tuple[str, list[str]]:
    """The recipe of a section's one command, and what it is told."""
    [(recipe, told)] = COMMAND.findall(section)
    return recipe, shlex.split(told.replace("\\\n", " "))


def written(page: str) -> str:
    """The page with each section's example as it is drawn today."""

    def section(found: re.Match) -> str:
        example = f"```text\n{_example(found[1])}```"
        return f"### {found[1]}\n" + EXAMPLE.sub(lambda _: example, found[2])

    return SECTION.sub(section, TABLE.sub(lambda found: found[1] + _boxes(), page))


def _boxes() -> str:
    """The rows of the table: a box as each order and unit has it, by torchvision."""
    box = torch.tensor([[4, 6, 20, 30]], dtype=float)
    corners = box_convert(box, "xywh", "xyxy")
    orders = {
        "yxyx": corners[:, [1, 0, 3, 2]],
        "xyxy": corners,
        "xywh": box,
        "cxcywh": box_convert(box, "xywh", "cxcywh"),
    }
    lines = []
    for order, numbers in orders.items():
        sides = torch.tensor(SIZE[::-1] * 2 if order == "yxyx" else SIZE * 2)
        cells = [(numbers / sides * whole)[0].tolist() for whole in (1, 1000)] + [numbers[0].tolist()]
        shown = (", ".join(f"{number:.4g}" for number in cell) for cell in cells)
        lines.append(f"| `{order}`: {ORDERS[order][1:-1]} | {' | '.join(shown)} |\n")
    return "".join(lines)


def _example(heading: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        world, place = WORLDS[heading], Path(folder)
        world.write(place)
        shown = [f"{world.file}:", *_beginning(place / world.file)] if world.file else []
        return "\n".join([*_tree(place), *shown]) + "\n"


def _tree(place: Path) -> list[str]:
    """A line for each folder with files in it: their names, of many alike the first two and the last."""
    lines = []
    for folder in (place, *sorted(path for path in place.rglob("*") if path.is_dir())):
        kinds: dict[str, list[str]] = {}
        for file in sorted(path for path in folder.iterdir() if path.is_file()):
            kinds.setdefault(file.suffix, []).append(file.name)
        few = (names if len(names) < 4 else [*names[:2], "…", names[-1]] for names in kinds.values())
        if kinds:
            path = "/".join(("FOLDER", *folder.relative_to(place).parts))
            lines.append(f"{path}/  {'  '.join(name for names in few for name in names)}")
    return lines


def _beginning(file: Path) -> list[str]:
    """The first three lines; of JSON in one object some of its keys, of XML of its elements, of Parquet its rows."""
    if file.suffix == ".parquet":
        lines = [str(row) for row in pandas.read_parquet(file).to_dict("records")[:LINES]]
        lines = [re.sub(r"b'.*?[^\\]'|b\".*?\"", "…", line) for line in lines]
    else:
        text = file.read_text(encoding="utf-8")
        lines = text.splitlines()
    if file.suffix == ".xml":
        text = "".join(map(str.strip, lines))
        lines = [found[0] for found in re.finditer(r"<(filename|size|object)>.*?</\1>", text)]
    if file.suffix == ".json" and text.startswith("{"):
        lines = [f'"{key}": {_shortened(value)}' for key, value in json.loads(text).items() if key in SHOWN]
    return [line if len(line) <= WIDTH else line[: WIDTH - 1] + "…" for line in lines[:LINES]]


def _shortened(value: Any) -> str:
    """JSON, of a list of objects the first, without what is in `HIDDEN`."""
    if not isinstance(value, list) or not isinstance(value[0], dict):
        return json.dumps(value)
    first = json.dumps({key: own for key, own in value[0].items() if key not in HIDDEN})
    return f"[{first}{', …' * (len(value) > 1)}]"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
