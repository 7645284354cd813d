import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image
from scipy import ndimage

from demo.worlds.endoscopy import picture as endoscopy_picture
from demo.worlds.endoscopy.dataset import draw_endoscopy
from demo.worlds.endoscopy.picture import render
from demo.worlds.endoscopy.questions import DOUBLED, PATTERNS, QUESTIONS, answers, ask, misspell
from demo.worlds.endoscopy.scene import COLOURS, Polyp, Scene, Spot, draw_scene
from tests.support.paths import SHARED_DATA

REAL = SHARED_DATA / "kvasir_vqa" / "rows.jsonl"
needs_real_rows = pytest.mark.skipif(not REAL.is_file(), reason="the real samples are not on this machine")
SEED = 5
SCENES = [draw_scene(np.random.default_rng([SEED, index])) for index in range(300)]
ASKED = [list(ask(scene, np.random.default_rng([SEED, 1, index]))) for index, scene in enumerate(SCENES)]
# One channel or two at full strength for each colour, for measuring on black mucosa.
CHANNELS = {
    "pink": (1, 0, 0),
    "red": (0, 1, 0),
    "white": (0, 0, 1),
    "yellow": (1, 1, 0),
    "blue": (1, 0, 1),
    "flesh": (0, 1, 1),
}
HEIGHTS, SIDES = ("upper", "center", "lower"), ("left", "center", "right")


@pytest.fixture(scope="module")
def endoscopy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "endoscopy"
    draw_endoscopy(folder, images=30, seed=SEED)
    return folder


@pytest.fixture(scope="module")
def rows(endoscopy) -> list[dict]:
    return [json.loads(line) for line in (endoscopy / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def raw(endoscopy, tmp_path_factory):
    return load_dataset(str(endoscopy), cache_dir=str(tmp_path_factory.mktemp("cache")))["raw"]


def pixels(scene: Scene) -> np.ndarray:
    return np.asarray(render(scene), dtype=int)


def findings_alone(scene: Scene) -> Scene:
    return replace(scene, text=False, box=False, scar=None, landmark=None, instruments=())


def measured_colours(scene: Scene, monkeypatch) -> np.ndarray:
    """bool [colours, height, width]: where each of CHANNELS is, when findings are painted pure and all else black."""
    paint = {name: tuple(255 * bit for bit in bits) for name, bits in CHANNELS.items()}
    for name, value in (("PAINT", paint), ("MUCOSA", dict.fromkeys(("colonoscopy", "gastroscopy"), (0, 0, 0)))):
        monkeypatch.setattr(endoscopy_picture, name, value)
    for name in ("OUTLINE", "DARK", "SHINE"):
        monkeypatch.setattr(endoscopy_picture, name, (0, 0, 0))
    bright = pixels(findings_alone(scene)) > 70
    return np.stack([(bright == np.array(bits, dtype=bool)).all(axis=-1) for bits in CHANNELS.values()])


def blobs(scene: Scene, monkeypatch) -> list[tuple[float, float, float, float]]:
    """(x, y, radius of a disc of the same area, width / height) of each polyp, measured in pixels of the picture."""
    seen = measured_colours(replace(scene, patch=None), monkeypatch).any(axis=0)
    regions, count = ndimage.label(ndimage.binary_closing(seen, iterations=2))
    found = []
    for number in range(1, count + 1):
        down, across = np.nonzero(ndimage.binary_fill_holes(regions == number))
        if len(down) > 40:  # less is noise at the edge of two colours
            aspect = (np.ptp(across) + 1) / (np.ptp(down) + 1)
            found.append((across.mean(), down.mean(), np.sqrt(len(down) / np.pi), aspect))
    return found


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    for name, seed in (("first", 3), ("second", 3), ("other", 4)):
        draw_endoscopy(tmp_path / name, images=5, seed=seed)
    first, second, other = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("first", "second", "other")
    )
    assert len(first) == 5 + 3  # and the card, the rows and half an image
    assert first == second
    assert first.keys() != other.keys()


def test_load_dataset_reads_the_hubs_split_and_columns(raw, rows):
    assert (raw.split, raw.column_names) == ("raw", ["image", "source", "question", "answer", "img_id"])
    for index in (0, 1, len(rows) // 2, len(rows) - 5):
        row = raw[index]
        image = row.pop("image")
        assert row | {"file_name": f"images/{row['img_id']}.jpg"} == rows[index]
        assert image.size == (280, 224) and image.mode == "RGB"
    assert len(raw) == len(rows)
    assert {row["source"] for row in rows} == {"HyperKvasir", "Kvasir-Instrument"}
    assert all(len(row["img_id"]) == 25 and row["img_id"].startswith("cl8k2") for row in rows)


def test_a_picture_is_stored_once_and_the_folder_can_be_moved_and_drawn_again(tmp_path):
    draw_endoscopy(tmp_path / "here", images=4, broken=0)
    assert len(list((tmp_path / "here" / "images").iterdir())) == 4
    shutil.move(tmp_path / "here", tmp_path / "there")
    cache, ids = str(tmp_path / "cache"), []
    for seed in (0, 1):
        if seed:
            shutil.rmtree(tmp_path / "there")
            draw_endoscopy(tmp_path / "there", images=4, broken=0, seed=seed)
        loaded = load_dataset(str(tmp_path / "there"), cache_dir=cache)["raw"]
        assert Path(loaded[0]["image"].filename).parents[1].name == "there"
        ids.append(set(loaded["img_id"]))
    assert len(ids[0]) == len(ids[1]) == 4 and not ids[0] & ids[1]


def test_as_many_rows_are_broken_as_were_asked_for(endoscopy, raw, rows, tmp_path):
    *good, missing, truncated, mute, unanswered = rows
    assert not (endoscopy / missing["file_name"]).exists()
    for index, error in ((-4, FileNotFoundError), (-3, OSError)):
        with pytest.raises(error):
            raw[len(raw) + index]["image"].load()
    assert (endoscopy / truncated["file_name"]).stat().st_size > 0
    assert mute["question"] == "" and mute["answer"] != ""
    assert unanswered["answer"] == "" and unanswered["question"] != ""
    assert all(row["question"] and row["answer"] for row in good)
    for name in {row["file_name"] for row in good}:
        with Image.open(endoscopy / name) as image:
            image.load()
    with pytest.raises(ValueError, match="broken=4"):
        draw_endoscopy(tmp_path / "few", images=3)


def test_one_image_in_800_ends_with_a_placeholder(tmp_path, monkeypatch):
    monkeypatch.setattr("demo.worlds.endoscopy.dataset.PLACEHOLDER", 3)
    draw_endoscopy(tmp_path / "drawn", images=5, broken=0)
    rows = [json.loads(line) for line in (tmp_path / "drawn" / "metadata.jsonl").read_text().splitlines()]
    (where,) = (index for index, row in enumerate(rows) if row["question"] == "none")
    assert rows[where]["answer"] == "nan"
    assert rows[where - 1]["img_id"] == rows[where]["img_id"] != rows[where + 1]["img_id"]


@needs_real_rows
def test_questions_come_in_the_real_wordings_and_patterns():
    images, words = {}, {}
    for row in map(json.loads, REAL.read_text(encoding="utf-8").splitlines()):
        images.setdefault(row["img_id"], []).append(row["question"])
        words.setdefault(row["question"], set()).update(row["answer"].replace(" ", "").split(";"))
    assert set(words) == {*QUESTIONS.values(), "none"}
    real = Counter(tuple(sorted(asked)) for asked in images.values())
    drawn = {tuple(sorted(QUESTIONS[name] for name in names)): n for names, n in (PATTERNS | DOUBLED).items()}
    assert real - Counter(drawn) == {("none",): 2}
    assert sum(drawn.values()) == len(images) - 2
    for name in ("kind", "size", "abnormality", "procedure", "colour", "instrument", "landmark"):
        told = {answers(scene)[name].replace(" ", "") for scene in SCENES}
        assert {word for answer in told for word in answer.split(";")} <= words[QUESTIONS[name]], name


def test_an_image_has_1_to_17_questions_and_mostly_12_to_14_or_17():
    counts = Counter(map(len, ASKED))
    assert {1, 2, 12, 13, 14, 15, 17} <= set(counts) <= {1, 2, *range(11, 18)}
    assert 0.8 < sum(counts[number] for number in (12, 13, 14, 17)) / len(ASKED) < 0.95


def test_a_question_that_comes_twice_is_answered_for_each_of_two_polyps():
    both = Counter()
    for scene, pairs in zip(SCENES, ASKED, strict=True):
        for name in ("kind", "size"):
            given = [answer.replace(">20mm", ">20") for question, answer in pairs if question == QUESTIONS[name]]
            if len(given) == 2:
                told = {"kind": [polyp.kind for polyp in scene.polyps], "size": [polyp.size for polyp in scene.polyps]}
                assert sorted(given) == sorted(answer.replace(">20mm", ">20") for answer in told[name])
                both[name, given[0] == given[1]] += 1
    assert len(both) == 4  # the kind and the size, the same and not


@pytest.mark.parametrize("name", [name for name in QUESTIONS if "place" not in name])
def test_no_answer_is_right_for_more_than_65_percent(name):
    given = Counter(answer for pairs in ASKED for question, answer in pairs if question == QUESTIONS[name])
    assert max(given.values()) < 0.65 * given.total(), given
    if set(given) == {"yes", "no"}:
        assert min(given.values()) > 0.4 * given.total(), given


def test_upstreams_slips_are_rare():
    rng = np.random.default_rng(0)
    slips = Counter(misspell(answer, rng) for answer in ("center; lower-right", ">20mm", "11-20mm") * 1000)
    assert set(slips) == {"center; lower-right", "center; lower-rigth", ">20mm", ">20", "11-20mm"}
    assert 5 < slips["center; lower-rigth"] < 40 and 60 < slips[">20"] < 140


def test_number_size_kind_and_place_of_polyps_can_be_read_off_the_pixels(monkeypatch):
    checked = Counter()
    for scene in SCENES[:90]:
        found, told = blobs(scene, monkeypatch), answers(scene)
        assert told["polyps"] == str(len(found)), scene
        sizes = {
            ("<5mm", "5-10mm", "11-20mm", ">20mm")[np.searchsorted((7.6, 11.4, 15.6), radius / 2)]
            for _, _, radius, _ in found
        }
        assert told["size"] == (";".join(sorted(sizes)) or "none"), scene
        flat = [aspect > 1.45 for *_, aspect in found]
        assert ("paris iia" in told["kind"], told["kind"] == "paris iia") == (any(flat), bool(flat) and all(flat))
        cells = {f"{HEIGHTS[int(y * 3 / 224)]}-{SIDES[int(x * 3 / 280)]}" for x, y, *_ in found}
        cells = {"center" if name == "center-center" else name for name in cells}
        assert answers(replace(scene, patch=None))["place"] == ("; ".join(sorted(cells)) or "none"), scene
        checked.update([told["polyps"], *sizes, *cells])
    assert min(checked[key] for key in ("0", "1", "2", "3", "4", "<5mm", ">20mm", "center", "upper-left")) > 1


def test_colours_are_named_in_the_order_of_their_area(monkeypatch):
    numbers = Counter()
    for scene in SCENES[60:120]:
        areas = dict(zip(CHANNELS, measured_colours(scene, monkeypatch).sum(axis=(1, 2)), strict=True))
        named = answers(scene)["colour"].split("; ")
        largest = sorted(areas, key=areas.get, reverse=True)
        assert named == largest[: len(named)], (areas, scene)
        numbers[len(named)] += 1
    assert set(numbers) == {1, 2, 3}


def test_instruments_can_be_counted():
    """Their rods, as what vanishes when the frame is drawn without them."""
    for scene in SCENES[:40]:
        changed = abs(pixels(scene) - pixels(replace(scene, instruments=()))).max(axis=-1) > 30
        regions, count = ndimage.label(ndimage.binary_closing(changed, iterations=3))
        large = (np.bincount(regions.flatten())[1:] > 300).sum() if count else 0
        assert answers(scene)["instruments"] == str(large), scene


@pytest.mark.parametrize("procedure", ["colonoscopy", "gastroscopy"])
def test_each_cue_shows_in_the_picture_where_it_is_and_changes_its_answer(procedure):
    polyp = Polyp(70, 30, "11-20mm", "paris is")
    plain = Scene(procedure, easy=True, text=False, box=False, seed=3, polyps=(polyp,), polyp_colours=("white",))
    cues = {
        "text": (True, "text", (14, 10)),
        "box": (True, "box", (17, 95)),
        "easy": (False, "easy", (70, 30)),
        "scar": (Spot(45, 60), "removed", (45, 60)),
        "landmark": (Spot(95, 60), "landmark", (95, 60)),
        "patch": (Spot(70, 80), "abnormality", (70, 80)),
        "polyps": ((replace(polyp, kind="paris ip"),), "kind", (70, 50)),
    }
    for cue, (value, question, (x, y)) in cues.items():
        scene = replace(plain, **{cue: value})
        changed = abs(pixels(scene) - pixels(plain)).max(axis=-1) > 25
        down, across = np.nonzero(changed)
        assert changed.sum() > 150, cue
        assert np.hypot(across.mean() / 2 - x, down.mean() / 2 - y) < 8, cue
        assert answers(plain)[question] != answers(scene)[question], cue


def test_the_procedures_have_different_mucosa_and_every_colour_stands_out_from_it():
    plain = Scene("colonoscopy", easy=False, text=False, box=False, seed=3)
    mucosa = {kind: pixels(replace(plain, procedure=kind))[60:160, 80:200] for kind in endoscopy_picture.MUCOSA}
    reds, greens = ({kind: part[..., channel].mean() for kind, part in mucosa.items()} for channel in (0, 1))
    assert greens["gastroscopy"] / reds["gastroscopy"] > 1.2 * greens["colonoscopy"] / reds["colonoscopy"]
    for kind in mucosa:
        for colour in COLOURS:
            polyps = (Polyp(70, 56, "<5mm", "paris is"),)
            scene = replace(plain, procedure=kind, polyps=polyps, polyp_colours=(colour,))
            middle = pixels(scene)[106:119, 134:147].mean(axis=(0, 1))
            assert np.linalg.norm(middle - mucosa[kind].mean(axis=(0, 1))) > 40, (kind, colour)
