"""Every fault of `support.faults`: a row is refused by name or used as stated, and no other row is lost or changed."""

import json
import resource
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.support import tiny
from tests.support.fault_formats import FORMATS, Row
from tests.support.fault_pictures import png_header
from tests.support.faults import (
    CHAT,
    COLON,
    FILES,
    KVASIR,
    LINES,
    MASKS,
    NUTRITION,
    RAD,
    RAD_HUB,
    REASONSEG,
    SSG,
    faults_of,
)
from tests.support.running import fails
from vlm_recipes.collators.images import open_image
from vlm_recipes.rows.errors import BadRow, DataError
from vlm_recipes.rows.pictures import inspect_picture
from vlm_recipes.rows.usable import usable_rows

CASES = [(format, fault) for format in FORMATS for fault in faults_of(format)]
GOOD = ["first", *(f"good{n}" for n in range(20)), "val", "test"]


def identifier(fault: str) -> str:
    return "".join(sign if sign.isalnum() else "_" for sign in fault)


def rows_of(format: str) -> dict[str, Row]:
    """Good rows, among them one for each fault."""
    faults = [identifier(fault) for fault in faults_of(format)]
    names = [GOOD[0], *faults, *GOOD[1:]]
    return {name: FORMATS[format].row(name, number) for number, name in enumerate(names)}


def first_picture(row: dict) -> dict:
    """A row's picture and its size, of several the first."""
    if "images" not in row:
        return {"image": open_image(row["image"])}
    return {"image": open_image(row["images"][0]), "image_size": row["image_sizes"][0]}


def outcome(format: str, rows: dict[str, Row], folder: Path) -> tuple[dict[str, dict], dict[str, str], dict[str, str]]:
    """Write the rows and read them as the recipe does: the usable ones by name, and by id why the others are not.

    And by the id, too, the part that each of these is in; that of a usable row is in it.
    """
    FORMATS[format].write(folder, list(rows.values()))
    raw, adapt = FORMATS[format].read(folder)
    splits, refused = usable_rows(raw, adapt, str(folder / "output"), max_rejected=1.0)
    written = (folder / "output" / "rejected.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    assert [json.loads(line) for line in written] == refused
    reasons = {row["id"]: row["reason"] for row in refused}
    assert len(reasons) == len(refused)
    usable = {
        FORMATS[format].name(row): {**row, **first_picture(row), "part": part}
        for part, rows_of_part in zip(raw, splits, strict=True)
        for row in rows_of_part
    }
    assert len(usable) == sum(map(len, splits)) and sum(map(len, raw.values())) == len(rows)
    return usable, reasons, {row["id"]: row["split"] for row in refused}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Of each format: all rows when they are good, the usable ones when they are spoilt, why and where the others."""

    @cache
    def both(format: str):
        good, reasons, _ = outcome(format, rows_of(format), tmp_path_factory.mktemp("good"))
        assert not reasons
        spoilt = rows_of(format)
        for name, fault in faults_of(format).items():
            fault.change(spoilt[identifier(name)])
        return good, *outcome(format, spoilt, tmp_path_factory.mktemp("spoilt")), spoilt

    return both


FILE = ("image", "images", "frames")  # a path in the folder that the test has drawn
OF_THE_PICTURE = (*FILE, "image_id", "image_size", "image_hash", "boxes", "masks")
OF_THE_PICTURE += ("image_ids", "image_sizes", "image_hashes")


def content(row: dict, word: str = "lesion", without: tuple[str, ...] = FILE) -> dict:
    """What a row says, its word replaced."""
    text = json.dumps({key: value for key, value in row.items() if key not in without})
    return json.loads(
        text.replace("lesion", json.dumps(word)[1:-1]),
        object_hook=lambda pairs: {key: value for key, value in pairs.items() if key not in without},
    )


@pytest.mark.parametrize(("format", "fault"), CASES)
def test_a_fault_is_refused_by_name_or_the_row_is_used_as_stated(outcomes, format, fault):
    good, usable, reasons, parts, rows = outcomes(format)
    name, fault = identifier(fault), faults_of(format)[fault]
    row = rows[name]
    ids = {FORMATS[format].refused_id(row), f"rows.jsonl#{row.number + 1}", f"row {row.number}"}
    if fault.refused:
        assert name not in usable and [fault.refused in reasons[id] for id in ids if id in reasons] == [True]
        assert all(text.isprintable() for text in reasons.values())
        if row.line is None and row.elsewhere is None:  # else nothing may be known of it, and it is to be trained on
            assert [parts[id] for id in ids if id in parts] == [good[name]["part"]]
        return
    assert not ids & set(reasons)
    hashed = ("id",) if format == RAD_HUB else ()  # the picture is what names its rows
    without = OF_THE_PICTURE + hashed if row.picture != FORMATS[format].row(name, row.number).picture else FILE
    assert content(usable[name], without=without) == content(good[name], fault.word, without)
    image = usable[name]["image"]
    assert image.mode == "RGB" and image.size == tuple(usable[name]["image_size"]) == fault.size
    assert np.abs(np.subtract(image.getpixel(fault.place), fault.colour)).max() < 60  # a JPEG's


@pytest.mark.parametrize("format", FORMATS)
def test_no_other_row_is_lost_or_changed(outcomes, format):
    good, usable, reasons, _, _ = outcomes(format)
    refused = [identifier(name) for name, fault in faults_of(format).items() if fault.refused]
    assert len(reasons) == len(refused) and set(usable) == set(good) - set(refused)
    for name in set(GOOD) & set(good):  # which part it is in included
        assert content(usable[name]) == content(good[name])
        assert np.array_equal(usable[name]["image"], good[name]["image"])


def good_rows(format: str) -> dict[str, Row]:
    return {name: FORMATS[format].row(name, number) for number, name in enumerate(GOOD)}


@pytest.mark.parametrize("lacking", [None, ""])
def test_a_row_of_kvasir_vqa_without_img_id_is_named_by_its_picture_and_used(lacking, tmp_path):
    """By itself: whatever the split is drawn from, another part may get another row for it."""
    rows = good_rows(KVASIR)
    rows["good3"].data["img_id"] = lacking
    usable, reasons, _ = outcome(KVASIR, rows, tmp_path)
    assert set(usable) == {*GOOD, "raw/good3.jpg"} - {"good3"} and not reasons


def test_a_number_among_texts_is_used_as_json_writes_it(tmp_path):
    rows = good_rows(KVASIR)
    rows["good3"].data |= {"img_id": 7, "question": 8, "answer": 1.5}
    usable, reasons, _ = outcome(KVASIR, rows, tmp_path)
    assert set(usable) == {*GOOD, "7"} - {"good3"} and not reasons
    assert (usable["7"]["question"], usable["7"]["answer"]) == ("8", "1.5")


@pytest.mark.parametrize("fault", LINES)
@pytest.mark.parametrize(("format", "file"), [(KVASIR, "raw/metadata.jsonl"), (CHAT, "train/metadata.jsonl")])
def test_a_line_that_says_nothing_is_refused_by_its_place_and_all_others_are_used(format, file, fault, tmp_path):
    rows = good_rows(format)
    rows["good3"].line, due = LINES[fault]
    usable, reasons, _ = outcome(format, rows, tmp_path)
    assert set(usable) == set(GOOD) - {"good3"}
    [(place, reason)] = reasons.items()
    assert place == f"{file}, line 5" and due in reason and reason.isprintable()


@pytest.mark.parametrize("fault", FILES)
def test_a_fault_of_the_file_that_holds_all_rows_ends_in_one_line_that_names_it(fault, tmp_path):
    format, spoil, reason = FILES[fault]
    FORMATS[format].write(tmp_path, [FORMATS[format].row(name, i) for i, name in enumerate(GOOD)])
    spoil(tmp_path)
    with pytest.raises(DataError) as error:
        FORMATS[format].read(tmp_path)
    assert reason in str(error.value) and len(str(error.value)) < 700 and str(error.value).isprintable()


def test_a_bomb_is_refused_without_memory_for_its_pixels():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for side in (10_000, 50_000):
        with pytest.raises(BadRow):
            inspect_picture({"bytes": png_header(side, side), "path": None})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes; 10,000² takes 300,000


RECIPES = {
    NUTRITION: ("nutrition_tables", tiny.qwen2_vl),
    KVASIR: ("kvasir_vqa", tiny.qwen2_vl),
    RAD: ("vqa_rad", tiny.blip2),
    RAD_HUB: ("vqa_rad", tiny.blip2),
    REASONSEG: ("reasonseg", tiny.lisa),
    MASKS: ("reasonseg", tiny.lisa),
    SSG: ("ssg_vqa", tiny.surgvivqa),
    COLON: ("ssg_vqa", tiny.surgvivqa),
    CHAT: ("visual_chat", tiny.qwen2_vl),
}


@pytest.mark.parametrize("format", FORMATS)
def test_past_max_rejected_the_run_ends_in_one_line_before_it_starts(format, tmp_path, monkeypatch):
    rows = [FORMATS[format].row(name, i) for i, name in enumerate(GOOD)]
    rows[1].picture = b""
    FORMATS[format].write(tmp_path, rows)
    recipe, checkpoint = RECIPES[format]
    model = checkpoint()
    paths = {"dataset_name": tmp_path / "rows.jsonl" if format == COLON else tmp_path, "output_dir": tmp_path / "out"}
    paths |= {"model_name_or_path": model} if isinstance(model, Path) else {"model_name_or_path": model[0]}
    paths |= {} if isinstance(model, Path) else {"sam_name_or_path": model[1]}
    paths |= {"videos": tmp_path / "videos.yaml"} if recipe == "ssg_vqa" else {}
    paths |= {"dataset_format": "real_colon"} if format == COLON else {}
    paths |= {"load_in_8bit": "false"} if recipe == "vqa_rad" else {}
    arguments = [text for name, value in paths.items() for text in (f"--{name}", str(value))]
    line = fails(recipe, *arguments, "--use_cpu", "true", "--max_rejected", "0", monkeypatch=monkeypatch)
    refused = FORMATS[format].refused_id(rows[1])
    assert line.startswith(f"error: 1 of {len(rows)} rows were refused, more than max_rejected=0 allows; see ")
    assert repr(refused) in line and line.isprintable()
    [written] = (tmp_path / "out" / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(written)["id"] == refused
    assert not (tmp_path / "out" / "trainer_state.json").exists()
