"""Drawn scans are rows like VQA-RAD's, and their lesions can be read off the pixels."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from demo.worlds.radiology.dataset import JSON_NAME, draw_radiology
from demo.worlds.radiology.questions import lesion_facts
from demo.worlds.radiology.scan import render
from demo.worlds.radiology.scene import Scene, draw_scene

KEYS = {
    "qid",
    "phrase_type",
    "qid_linked_id",
    "image_case_url",
    "image_name",
    "image_organ",
    "evaluation",
    "question",
    "question_rephrase",
    "question_relation",
    "question_frame",
    "question_type",
    "answer",
    "answer_type",
}
SEED = 5
SCENES = [draw_scene(np.random.default_rng([SEED, index])) for index in range(80)]


@pytest.fixture(scope="module")
def radiology(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "radiology"
    draw_radiology(folder, images=80, seed=SEED)
    return folder


@pytest.fixture(scope="module")
def rows(radiology) -> list[dict]:
    return json.loads((radiology / JSON_NAME).read_text(encoding="utf-8"))


def is_test(row: dict) -> bool:
    return row["phrase_type"].startswith("test_")


def grey(scene: Scene) -> np.ndarray:
    return np.asarray(render(scene).convert("L"), dtype=float)


def spots(scene: Scene) -> list[tuple[float, float, float, bool]]:
    """(x, y, radius, bright) of each lesion in pixels, found as what vanishes when the scan is drawn without any."""
    change = grey(scene) - grey(replace(scene, lesions=()))
    regions, count = ndimage.label(ndimage.binary_closing(abs(change) > 12, iterations=2))
    found = []
    for number in range(1, count + 1):
        down, across = np.nonzero(regions == number)
        bright = change[regions == number].sum() > 0
        found.append((across.mean(), down.mean(), np.sqrt(len(down) / np.pi), bool(bright)))
    return found


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    for name, seed in (("first", 3), ("second", 3), ("other", 4)):
        draw_radiology(tmp_path / name, images=12, seed=seed)
    first, second, other = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("first", "second", "other")
    )
    assert len(first) == 12 + 2  # and the JSON, and half an image
    assert first == second
    assert first.keys() != other.keys()


def test_rows_have_the_keys_of_the_original(rows):
    assert Counter(frozenset(KEYS - row.keys()) for row in rows)[frozenset({"question_rephrase"})] == 2
    assert all(row.keys() | {"question_rephrase"} == KEYS for row in rows)


def test_no_test_image_is_asked_about_in_training(rows):
    tested, trained = ({row["image_name"] for row in rows if is_test(row) is wanted} for wanted in (True, False))
    assert len(tested) == 10 and len(trained) == 72  # and the missing and the truncated image
    assert not tested & trained


def test_four_rows_are_broken_and_no_other(radiology, rows):
    *good, missing, truncated, mute, unanswered = rows
    assert not (radiology / "images" / missing["image_name"]).exists()
    with Image.open(radiology / "images" / truncated["image_name"]) as image, pytest.raises(OSError):
        image.load()
    assert mute["question"] == "" and mute["answer"] != ""
    assert unanswered["answer"] == "" and unanswered["question"] != ""
    assert 4 < 0.01 * len(rows)
    assert not any(is_test(row) for row in rows[-4:])
    assert all(str(row["question"]).strip() and str(row["answer"]).strip() for row in good)
    for name in {row["image_name"] for row in good}:
        with Image.open(radiology / "images" / name) as image:
            image.load()
            assert image.format == "JPEG" and image.mode == "RGB"


def test_image_files_show_their_scenes(radiology, rows):
    names = list(dict.fromkeys(row["image_name"] for row in rows))
    for name, scene in zip(names[:20], SCENES, strict=False):
        with Image.open(radiology / "images" / name) as image:
            assert abs(np.asarray(image.convert("L"), dtype=float) - grey(scene)).mean() < 5


def test_lesion_answers_can_be_read_off_the_pixels():
    """Number, side, height, size and brightness, measured in the picture, against what the questions get."""
    checked = Counter()
    for scene in SCENES:
        found, (width, height) = spots(scene), render(scene).size
        answers = {wordings[0]: answer for _, answer, wordings in lesion_facts(scene)}
        assert answers["How many lesions are in this image?"] == ("None", "One", "Two", "Three")[len(found)]
        for side, seen in (
            ("left", [x < width / 2 for x, *_ in found]),
            ("right", [x > width / 2 for x, *_ in found]),
        ):
            expected = "Yes" if any(seen) else "No"
            assert answers[f"Is there a lesion on the {side} side of the image?"] == expected
        for word, seen in (("bright", [spot[3] for spot in found]), ("dark", [not spot[3] for spot in found])):
            assert answers[f"Is there a {word} lesion?"] == ("Yes" if any(seen) else "No")
        if len(found) == 1:
            x, y, radius, bright = found[0]
            assert answers["Which side of the image is the lesion on?"] == ("Left" if x < width / 2 else "Right")
            size = answers["Is the lesion large or small?"]
            assert size == ("Large" if radius > 0.17 * 0.46 * min(width, height) else "Small")
            assert any(answer == ("Hyper" if bright else "Hypo") + kind for answer in answers.values()
                       for kind in ("dense", "intense"))  # fmt: skip
            place = answers.get("Where in the image is the lesion located?")
            assert place is None or place.split()[0] == ("Upper" if y < height / 2 else "Lower")
            checked.update([size, place])
    assert min(checked[key] for key in ("Large", "Small", "Upper left", "Lower right")) >= 1
