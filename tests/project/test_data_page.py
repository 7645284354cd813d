"""docs/data.md: its examples are as they are drawn, and each of its commands trains and reports on its example."""

import runpy
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.mask import decode
from torchvision.ops import box_convert

from demo.checkpoints.blip2 import write_blip2
from demo.checkpoints.llava import write_llava
from demo.checkpoints.qwen2_vl import write_qwen2_vl
from demo.checkpoints.sam import write_sam
from recipes import reasonseg, vqa_rad
from tests.support.data_page import PAGE, TABLE, command, sections, written
from tests.support.data_worlds import ALL, COLOURS, FIGURES, QUERIES, SIZE, WORLDS, draw, mask_of, questions
from tests.support.paths import ROOT
from tests.support.running import QUIET, read
from tests.support.session import once
from vlm_recipes.rows.boxes import ORDERS, UNITS, BoxFormat
from vlm_recipes.rows.reading import FORMATS

PAGE_TEXT = PAGE.read_text(encoding="utf-8")
SECTIONS = sections(PAGE_TEXT)
IN_MAKE_TEST = ("COCO", "CSV", "TSV", "ShareGPT and LLaVA", "Pairs of pictures")  # one of each recipe
ASKED = [text for row in questions(ALL).itertuples() for text in (row.question, row.answer)]

pytestmark = pytest.mark.usefixtures("figures_are_blank")


def test_the_page_is_as_it_would_be_written_and_has_every_format():
    assert written(PAGE_TEXT) == PAGE_TEXT
    assert list(SECTIONS) == list(WORLDS)
    titles = {reader.TITLE for readers in FORMATS.values() for reader in readers}
    assert {world.read_as for world in WORLDS.values() if world.read_as} | {"VQA-RAD's original JSON"} == titles


def test_the_table_of_conventions_shows_one_box_in_all_of_them():
    table = TABLE.search(PAGE_TEXT)[0].split("| --- |\n")[1]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    assert [row[0].split("`")[1] for row in rows] == list(ORDERS)
    for order, cells in zip(ORDERS, (row[1:] for row in rows), strict=True):
        for unit, cell in zip(UNITS, cells, strict=True):
            found = BoxFormat(order, unit).in_pixels([float(number) for number in cell.split(", ")], SIZE)
            assert found == pytest.approx([4, 6, 24, 36], abs=0.01)


def model(recipe: str) -> list[str]:
    """What makes a recipe small: a random checkpoint of its kind, and pictures of a few tokens."""
    if recipe == "vqa_rad":
        texts = [*ASKED, *(vqa_rad.prompt(text) for text in ASKED)]
        sizes = {"image_size": 32, "width": 64, "layers": 1, "queries": 4}
        folder = once("data_page_blip2", lambda folder: write_blip2(folder, texts, **sizes))
        return ["--model_name_or_path", str(folder), "--load_in_8bit", "false"]
    if recipe == "reasonseg":
        texts = [*COLOURS, *reasonseg.ANSWERS, "USER: ASSISTANT:", "Please output segmentation mask."]
        texts = [text.replace("[SEG]", "") for text in texts] * 20
        sizes = {"hidden_size": 64, "layers": 1, "image_size": 32}
        folder = once("data_page_llava", lambda folder: write_llava(folder, texts, patch_size=16, **sizes))
        sam = once("data_page_sam", lambda folder: write_sam(folder, **sizes))
        return ["--model_name_or_path", str(folder), "--sam_name_or_path", str(sam)]
    folder = once("data_page_qwen2_vl", lambda folder: write_qwen2_vl(folder, ASKED * 20, hidden_size=64, layers=1))
    pixels = ["--min_pixels", "3136", "--max_pixels", "3136", "--gradient_checkpointing", "false"]
    return ["--model_name_or_path", str(folder), *pixels]


def marked(heading: str):
    return heading if heading in IN_MAKE_TEST else pytest.param(heading, marks=pytest.mark.slow)


@pytest.mark.parametrize("heading", [*map(marked, WORLDS)])
def test_a_section_s_command_trains_and_reports_on_the_dataset_that_it_shows(heading, tmp_path, monkeypatch, capsys):
    WORLDS[heading].write(tmp_path / "data")
    recipe, told = command(SECTIONS[heading])
    told = [str(tmp_path / "data") if word == "FOLDER" else word for word in told]
    told[told.index("--output_dir") + 1] = str(tmp_path / "out")
    quiet = [word for name, value in QUIET.items() for word in (f"--{name}", str(value))]
    short = ["--max_steps", "2", "--max_new_tokens", "8", "--dtype", "float32", "--max_rejected", "0"]
    monkeypatch.setattr(sys, "argv", [recipe, *told, *model(recipe), *quiet, *short])
    runpy.run_path(str(ROOT / "recipes" / f"{recipe}.py"), run_name="__main__")

    world, left = WORLDS[heading], read(tmp_path / "out")
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("read as ")]
    assert [line.partition(":")[0] for line in said] == ([f"read as {world.read_as}"] if world.read_as else [])
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
    assert len([line for line in left["log"] if "loss" in line]) == 2
    assert (tmp_path / "out" / "rejected.jsonl").read_text() == ""
    lines: dict[str, list[dict]] = {}
    for line in left["predictions"]:
        if line["split"] == "test":
            lines.setdefault(picture_of(line, tmp_path / "data"), []).append(line)
    assert world.tested in (sorted(lines), len(lines))
    for name, own in lines.items():
        EXPECTED[recipe](name, own)


def picture_of(line: dict, folder: Path) -> str:
    """The name of a line's picture, which the run knows by its path or by its bytes."""
    hashes = {sha256(file.read_bytes()).hexdigest(): file.name for file in folder.rglob("*.png")}
    draw(folder / "drawn", ALL)  # Parquet has no files
    hashes |= {sha256((folder / "drawn" / name).read_bytes()).hexdigest(): name for name in ALL}
    return hashes.get(line["image_id"]) or Path(line["image_id"]).name


def expect_boxes(name: str, lines: list[dict]) -> None:
    """From the top to the bottom, converted by torchvision from what was drawn."""
    [line] = lines
    drawn = sorted(FIGURES[name], key=lambda figure: (figure[1][1], figure[1][0]))
    boxes = box_convert(torch.tensor([box for _, box in drawn], dtype=float).reshape(-1, 4), "xywh", "xyxy")
    assert line["categories"] == [what for what, _ in drawn] and line["image_size"] == list(SIZE)
    assert line["boxes"] == [pytest.approx(box, abs=0.01) for box in boxes.tolist()]


def expect_answers(name: str, lines: list[dict]) -> None:
    drawn = questions([name])[["question", "answer"]].itertuples(index=False, name=None)
    assert sorted((line["question"], line["reference"]) for line in lines) == sorted(drawn)


def expect_chat(name: str, lines: list[dict]) -> None:
    [(_, _), (question, answer)] = questions([name])[["question", "answer"]].to_numpy().tolist()[:2]
    assert [(line["question"], line["reference"]) for line in lines] == [(question, answer)]


def expect_masks(name: str, lines: list[dict]) -> None:
    """Each query of ReasonSeg's, or each kind of thing there, and its pixels but for half of an outline."""
    kinds = {what: [mask_of(box) for other, box in FIGURES[name] if other == what] for what, _ in FIGURES[name]}
    first = FIGURES[name][0][0]
    wordings = [
        {query.format(COLOURS[first]): first for query in QUERIES},
        {what: what for what in kinds},
        {f"the {COLOURS[what]} {what}": what for what in kinds},
    ]
    [asked] = [wording for wording in wordings if sorted(wording) == sorted(line["question"] for line in lines)]
    for line in lines:
        drawn, found = (
            np.any(kinds[asked[line["question"]]], axis=0),
            decode(line["reference"]["masks"][0]).astype(bool),
        )
        assert (drawn & found).sum() > 0.85 * (drawn | found).sum()


EXPECTED = {
    "nutrition_tables": expect_boxes,
    "vqa_rad": expect_answers,
    "kvasir_vqa": expect_answers,
    "visual_chat": expect_chat,
    "reasonseg": expect_masks,
}
