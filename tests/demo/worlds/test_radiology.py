import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from transformers import AutoModelForImageTextToText, AutoProcessor, Blip2ForConditionalGeneration, Blip2Processor

from demo.checkpoints.blip2 import write_blip2
from demo.worlds.radiology.dataset import JSON_NAME, draw_radiology
from demo.worlds.radiology.questions import finding_facts, lesion_facts
from demo.worlds.radiology.scan import render
from demo.worlds.radiology.scene import VIEWS, Scene, draw_scene

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
PROMPT = "Instructions: You are a helpful medical assistant.\nGiven <img>. Q: Is the lesion large or small?\nA:"
TEXTS = [PROMPT, "Yes", "no", "Hyperdense", "Right upper lobe", "5.6cm focal, predominantly hypodense", "X-ray"]


@pytest.fixture(scope="module")
def radiology(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "radiology"
    draw_radiology(folder, images=80, seed=SEED)
    return folder


@pytest.fixture(scope="module")
def rows(radiology) -> list[dict]:
    return json.loads((radiology / JSON_NAME).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("blip2")
    write_blip2(folder, TEXTS, image_size=32, width=32, layers=1, queries=4)
    return folder


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


def test_the_quirks_of_the_original_are_there(rows):
    assert Counter(type(row["qid"]) for row in rows) == {int: len(rows) - 1, str: 1}
    assert [int(row["qid"]) for row in rows] == list(range(len(rows)))
    assert {type(row["answer"]) for row in rows} == {int, str}
    assert Counter(row["answer_type"] for row in rows)["CLOSED "] == 2
    assert {row["answer_type"] for row in rows} == {"CLOSED", "CLOSED ", "OPEN"}
    assert {row["phrase_type"] for row in rows} == {"freeform", "para", "test_freeform", "test_para"}
    assert {row["image_organ"] for row in rows} == {"HEAD", "CHEST", "ABD"}
    assert {"Yes", "yes", "No", "no"} <= {row["answer"] for row in rows}
    assert Counter(row["question_type"] for row in rows)["PRSE"] == 1
    assert sum(row["question"].endswith(" ") for row in rows) == 1
    assert sum(str(row["answer"]).startswith(" ") for row in rows) == 1


def test_no_test_image_is_asked_about_in_training(rows):
    tested, trained = ({row["image_name"] for row in rows if is_test(row) is wanted} for wanted in (True, False))
    assert len(tested) == 10 and len(trained) == 72  # and the missing and the truncated image
    assert not tested & trained


def test_an_image_has_one_to_twelve_questions_and_mostly_seven(rows):
    counts = Counter(row["image_name"] for row in rows[:-4])
    assert np.median(list(counts.values())) == 7
    assert min(counts.values()) >= 1 and max(counts.values()) <= 12


def test_paraphrases_are_linked_and_agree(rows):
    linked = {}
    for row in rows[:-4]:
        linked.setdefault(row["qid_linked_id"], []).append(row)
    pairs = [group for group in linked.values() if len(group) == 2]
    assert len(pairs) > 50
    for first, second in pairs:
        assert str(first["answer"]).strip().lower() == str(second["answer"]).strip().lower()
        assert first.get("question_rephrase", second["question"]).strip() == second["question"].strip()


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


@pytest.mark.parametrize("organ, modality, plane", VIEWS)
def test_each_finding_that_is_asked_about_shows_in_the_picture(organ, modality, plane):
    plain = Scene(organ, modality, plane, seed=1)
    findings = {"HEAD": {"enlarged": True, "shift": "left"}, "CHEST": {"enlarged": True, "effusion": "right"}}
    findings["ABD"] = {"enlarged": True, "gas": True, "missing_kidney": "left"}
    if (organ, modality) == ("ABD", "CT"):
        findings["ABD"]["contrast"] = True
    normal = {wordings[0]: answer for _, answer, wordings in finding_facts(plain)}
    for name, value in findings[organ].items():
        scene = replace(plain, **{name: value})
        changed = abs(grey(scene) - grey(plain)) > 12
        assert changed.mean() > 0.002, name
        if value in ("left", "right") and name != "shift":
            middle = np.nonzero(changed)[1].mean() / changed.shape[1]
            assert (middle < 0.5) == (value == "left"), name
        answers = {wordings[0]: answer for _, answer, wordings in finding_facts(scene)}
        assert answers != normal, name


def test_wordings_in_lower_case_have_answers_in_lower_case(rows):
    spelled = [row for row in rows[:-4] if isinstance(row["answer"], str)]
    for row in spelled:
        assert row["answer"].strip()[0].islower() == row["question"][0].islower(), row
    assert 0.2 < np.mean([row["question"][0].islower() for row in spelled]) < 0.8


def test_texts_survive_the_processor_and_cost_one_token_a_word(checkpoint):
    processor = AutoProcessor.from_pretrained(checkpoint)
    assert type(processor) is Blip2Processor
    tokenizer = processor.tokenizer
    for text in [*TEXTS, "Not seen before: T2-weighted/FLAIR (12 %), µ ≥ 3–4 {x}", "YES", "yes.", "Né"]:
        ids = tokenizer(text).input_ids
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == " ".join(text.split())
    assert len(tokenizer(PROMPT).input_ids) == len(PROMPT.split()) + 1  # and the end of the text
    assert tokenizer.convert_tokens_to_ids("<image>") == len(tokenizer) - 1


def test_the_model_loads_offline_and_sees_the_image(checkpoint, tmp_path):
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint).eval()
    assert type(model) is Blip2ForConditionalGeneration
    assert model.config.image_token_index == processor.tokenizer.convert_tokens_to_ids("<image>")
    labels = processor.tokenizer("Yes", return_tensors="pt").input_ids
    left, right = (
        Scene("CHEST", "X-ray", "PA", seed=1, effusion=side) for side in ("left", "right")
    )  # the same but for one finding
    with torch.no_grad():
        batches = [processor(images=render(scene), text=PROMPT, return_tensors="pt") for scene in (left, right)]
        assert (batches[0].input_ids == model.config.image_token_index).sum() == 4
        logits = [model(**batch, labels=labels).logits for batch in batches]
        assert (logits[0] - logits[1]).abs().max() > 1e-3
        assert model.generate(**batches[0], max_new_tokens=3).shape[0] == 1
        model.save_pretrained(tmp_path)
        again = Blip2ForConditionalGeneration.from_pretrained(tmp_path).eval()
        assert torch.allclose(again(**batches[0], labels=labels).logits, logits[0], atol=1e-6)


def test_queries_differ_and_the_seed_decides_the_weights(checkpoint, tmp_path):
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    for name, seed in (("same", 0), ("other", 1)):
        write_blip2(tmp_path / name, TEXTS, image_size=32, width=32, layers=1, queries=4, seed=seed)
    assert torch.equal(torch.rand(1), expected)  # the caller's random state is untouched
    weights = {path: (path / "model.safetensors").read_bytes() for path in (checkpoint, *tmp_path.iterdir())}
    assert weights[checkpoint] == weights[tmp_path / "same"] != weights[tmp_path / "other"]
    queries = AutoModelForImageTextToText.from_pretrained(checkpoint).query_tokens[0]
    assert torch.pdist(queries).min() > 0.01
