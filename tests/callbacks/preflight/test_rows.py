"""What is said of rows before training, against counts by hand, real data and pictures spoilt on purpose."""

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image, ImageEnhance

from recipes import vqa_rad
from tests.support.paths import SHARED_DATA
from vlm_recipes.callbacks.preflight.near_duplicates import near_duplicates
from vlm_recipes.callbacks.preflight.rows import (
    check_answers,
    check_baselines,
    check_constraints,
    check_coordinates,
    check_rows,
    check_shared_images,
    question_only,
)
from vlm_recipes.eval.boxes import box_evaluation
from vlm_recipes.eval.evaluation import Evaluation
from vlm_recipes.eval.metrics.box_codecs import Qwen2VLBoxes
from vlm_recipes.eval.metrics.masks import encode
from vlm_recipes.eval.metrics.number import Number, Scores
from vlm_recipes.eval.sampling import evenly_spread
from vlm_recipes.eval.text import text_evaluation, text_majority
from vlm_recipes.rows.pictures import inspect_picture
from vlm_recipes.rows.splits import hold_out
from vlm_recipes.rows.usable import usable_rows


def scene(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Patches, patches within them, and texture: detail at every scale, as a photograph has."""
    generator, pixels = np.random.default_rng(seed), np.zeros((size[1], size[0], 3))
    for patches in (2, 4, 8, 16, 32):
        coarse = generator.integers(0, 256, (3 * patches, 4 * patches, 3), dtype=np.uint8)
        pixels += np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)) / patches
    return Image.fromarray((pixels / pixels.max() * 255).astype(np.uint8))


def hashed(image: Image.Image, **settings) -> str:
    file = io.BytesIO()
    image.save(file, **{"format": "PNG", **settings})
    return inspect_picture({"bytes": file.getvalue(), "path": None})[1]


def rows(**columns) -> Dataset:
    n = len(next(iter(columns.values())))
    ids = {"id": [f"r{i}" for i in range(n)], "image_id": [f"i{i}" for i in range(n)]}
    return Dataset.from_dict(ids | columns)


# --- images


COPIES = {
    "the same": lambda image: hashed(image),
    "JPEG of low quality": lambda image: hashed(image, format="JPEG", quality=30),
    "half as large": lambda image: hashed(image.resize((160, 120))),
    "in WebP": lambda image: hashed(image, format="WEBP"),
    "a little brighter": lambda image: hashed(ImageEnhance.Brightness(image).enhance(1.04)),
    "with noise": lambda image: hashed(
        Image.fromarray(
            np.clip(
                np.asarray(image).astype(int) + np.random.default_rng(9).integers(-6, 7, (240, 320, 3)), 0, 255
            ).astype(np.uint8)
        )
    ),
}


@pytest.fixture(scope="module")
def others() -> list[str]:
    return [hashed(scene(seed)) for seed in range(20)]


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_a_copy_is_found_among_others(copy, others):
    assert near_duplicates([copy(scene(7)), hashed(scene(99))], others).tolist() == [7, -1]


def test_another_picture_is_no_copy_and_neither_is_one_of_another_colour():
    grey = scene(3).convert("L")
    tinted = [
        Image.merge("RGB", [grey.point(lambda value, f=f: value * f) for f in factors])
        for factors in ((1, 0.4, 0.4), (0.4, 0.4, 1))
    ]
    assert near_duplicates([hashed(tinted[0])], [hashed(tinted[1])]).tolist() == [-1]
    assert near_duplicates([], [hashed(grey.convert("RGB"))]).tolist() == []
    assert near_duplicates([hashed(tinted[0])], []).tolist() == [-1]


def test_as_many_near_duplicates_are_found_in_blocks_as_one_by_one():
    """Against all pairs by hand, over more rows than one block takes."""
    generator = np.random.default_rng(0)
    bits = generator.integers(0, 2, (30, 256), dtype=np.uint8)
    flips = (generator.random((600, 256)) < generator.choice([0.02, 0.08, 0.12, 0.5], (600, 1))).astype(np.uint8)
    own = bits[generator.integers(0, 30, 600)] ^ flips

    def text(bits: np.ndarray) -> str:
        import base64

        return base64.b64encode(np.packbits(bits).tobytes() + bytes(48)).decode()

    found = near_duplicates([text(row) for row in own], [text(row) for row in bits])
    for row, place in zip(own, found, strict=True):
        distances = (row != bits).sum(1)
        assert (place == -1) == (distances.min() > 24)
        assert place == -1 or distances[place] == distances.min()
    assert 0 < (found >= 0).sum() < 600


def test_images_in_training_and_evaluation_are_named():
    pictures = [hashed(scene(seed)) for seed in range(6)]
    train = rows(image_hash=pictures[:4])
    test = rows(image_hash=[hashed(scene(2), format="JPEG"), *pictures[4:]]).map(
        lambda row: {"image_id": "t" + row["id"]}
    )
    found = check_shared_images({"train": train, "test": test})
    assert found.status == "warn" and "1 of 3 images of test are in train, too ('tr0' like 'i2')" in found.found
    assert check_shared_images({"train": train, "test": test.select([1, 2])}).status == "pass"
    assert (
        check_shared_images({"train": train, "test": train.remove_columns("image_hash")}).numbers["test_shared"] == 4
    )


def test_rows_whose_image_has_no_name_are_compared_by_their_pictures_alone():
    pictures = [hashed(scene(seed)) for seed in range(5)]
    train, test = (
        Dataset.from_dict({"image_id": names, "image_hash": own})
        for names, own in (([None, "a", None], pictures[:3]), ([None, "b"], pictures[3:]))
    )
    assert check_shared_images({"train": train, "test": test}).found.startswith("no image")
    shown = check_shared_images({"train": train, "test": rows(image_hash=[pictures[2]])})
    assert "1 of 1 images of test are in train, too ('i0' like one without image_id)" in shown.found
    assert "test 2 on 2 images" in check_rows({"train": train, "test": test}).found


def test_of_rows_with_several_pictures_each_is_counted_and_compared():
    pictures = [hashed(scene(seed)) for seed in range(5)]
    train = rows(image_ids=[["a", "b"], ["b"], []], image_hashes=[pictures[:2], pictures[1:2], []])
    like_a = hashed(scene(0), format="JPEG")
    test = rows(image_ids=[["c", "d"], ["b", "e"]], image_hashes=[[like_a, pictures[2]], [pictures[1], pictures[3]]])
    assert check_rows({"train": train, "test": test}).found == "train 3 on 2 images, test 2 on 4 images; none refused"
    found = check_shared_images({"train": train, "test": test})
    assert "2 of 4 images of test are in train, too ('b', 'c' like 'a')" in found.found


@pytest.fixture(params=["drawn", "real"])
def radiology(request) -> Path:
    """VQA-RAD with pictures drawn under its names, and with its own where they are."""
    if request.param == "drawn":
        return request.getfixturevalue("drawn_vqa_rad")
    if not (SHARED_DATA / "vqa_rad").is_dir():
        pytest.skip("the real pictures are not on this machine")
    return SHARED_DATA / "vqa_rad"


def test_vqa_rad_s_official_split_shares_202_of_203_test_images(radiology, tmp_path):
    raw = vqa_rad.read(vqa_rad.Data(dataset_name=str(radiology)))
    (train, test), _ = usable_rows(raw, lambda row: vqa_rad.to_row(row, exemplar=False), str(tmp_path), 0.01)
    found = check_shared_images({"train": train, "test": test})
    assert found.status == "warn" and found.numbers == {"test_images": 203, "test_shared": 202}
    kept, validation = hold_out(train, 0.05, by="image_id", seed=42)  # as the recipe does
    found = check_shared_images({"train": kept, "validation": validation, "test": test})
    assert "202 of 203 images of test are in train or validation, too" in found.found
    assert found.numbers["validation_shared"] == 0
    unnamed = [
        part.map(lambda row, i, name=name: {"image_id": f"{name}{row['image_id']}"}, with_indices=True)
        for name, part in (("a", train), ("b", test))
    ]
    assert check_shared_images(dict(zip(("train", "test"), unnamed, strict=True))).numbers["test_shared"] == 202


# --- answers and baselines


def test_the_ceiling_is_the_share_of_answers_that_training_gives():
    train = rows(question=["?"] * 3, answer=["Yes", "no ", "two  polyps"])
    test = rows(question=["?"] * 4, answer=["yes", "No", "Two polyps", "three"])
    found = check_answers({"train": train, "test": test})
    assert found.status == "warn" and found.numbers == {"test_n": 4, "test_ceiling": 0.75}
    assert found.found == "75.0% of 4 in test (not 'three')"
    assert check_answers({"train": train, "test": test.select(range(3))}).status == "pass"
    assert check_answers({"train": rows(boxes=[[]]), "test": rows(boxes=[[]])}) is None


def test_baselines_are_those_counted_by_hand_on_vqa_rad(drawn_vqa_rad, tmp_path):
    raw = vqa_rad.read(vqa_rad.Data(dataset_name=str(drawn_vqa_rad)))
    (train, test), _ = usable_rows(raw, lambda row: vqa_rad.to_row(row, exemplar=False), str(tmp_path), 0.01)
    majority = text_majority(train["answer"], train["question_type"])
    evaluation = replace(text_evaluation(None, 1, majority), headline="exact_match")
    (found,) = check_baselines({"train": train, "test": test}, evaluation)
    assert found.numbers["n"] == 451 and found.numbers["right_answers"] == 1
    assert found.numbers["constant"] == pytest.approx(133 / 451)  # "no"
    answers, plain = train["answer"][:], [" ".join(question.lower().split()) for question in train["question"]]
    to_question = {asked: Counter() for asked in plain}
    for asked, answer in zip(plain, answers, strict=True):
        to_question[asked][answer] += 1
    most = {
        asked: min(
            answer for answer, n in counts.items() if n == max(counts.values())
        )  # of a tie the alphabet's first
        for asked, counts in to_question.items()
    }
    overall = Counter(train["answer"]).most_common(1)[0][0]
    right = sum(
        most.get(" ".join(row["question"].lower().split()), overall).lower() == row["answer"].lower()
        for row in test.select_columns(["question", "answer"])
    )
    assert found.numbers["question_only"] == pytest.approx(right / 451)


def test_an_answer_that_reads_as_one_of_training_is_known():
    train = Dataset.from_dict({"question": ["What?"] * 2, "answer": ["Café", "12"]})
    test = Dataset.from_dict({"question": ["What?"] * 4, "answer": ["cafe\u0301", "１２", "\ufeff12", "1²"]})
    found = check_answers({"train": train, "test": test})
    assert found.numbers["test_ceiling"] == 0.75 and "not '1²'" in found.found


def test_a_baseline_is_of_all_videos_though_rows_come_video_by_video():
    """The first 2,000 rows of SSG-VQA's test part, too, are of one video."""
    kinds = ["where", "how many", "what"] * 3000  # every frame is asked the same three
    frames = [f"{i // 3}" for i in range(9000)]
    test = rows(question=kinds, question_type=kinds, answer=["yes"] * 6000 + ["no"] * 3000, image_id=frames)
    train = rows(question=["?"], answer=["yes"])
    evaluation = replace(text_evaluation(None, 1, text_majority(["yes"], ["what"])), headline="exact_match")
    (found,) = check_baselines({"train": train, "test": test}, evaluation)
    assert found.found.endswith("(n = 2,000 of 9,000, evenly spread)") and found.numbers["n"] == 2000
    assert found.numbers["constant"] == pytest.approx(2 / 3, abs=0.001)
    (few,) = check_baselines({"train": train, "test": test.select(range(2000))}, evaluation)
    assert few.numbers["constant"] == 1 and few.found.endswith("(n = 2,000)")
    asked = Counter(test["question"][i] for i in evenly_spread(9000, 3000))  # one of each three: never always the same
    assert all(count > 900 for count in asked.values()) and len(asked) == 3


def test_where_pictures_show_nothing_it_is_said_what_no_box_scores():
    """A model that says nothing has that score, whatever the constant box has."""
    boxes, size = [[]] * 8 + [[[1, 1, 5, 5]]] * 2, [[10, 10]] * 10
    part = rows(boxes=boxes, image_size=size, image_id=list(map(str, range(10))))
    evaluation = box_evaluation(None, Qwen2VLBoxes(), 9, [0.1, 0.1, 0.5, 0.5])
    (found,) = check_baselines({"train": part, "test": part}, evaluation)
    assert found.found.startswith("iou_mean without looking: constant 0.200, no box 0.800; of the right answers 1.000")
    full = part.select([8, 9])
    (found,) = check_baselines({"train": full, "test": full}, evaluation)
    assert "no box" not in found.found


def test_an_unknown_question_gets_the_most_frequent_answer():
    guess = question_only(rows(question=["Why?", "Why?", "why? ", "Who?", "Who?"], answer=["a", "b", "a", "b", "b"]))
    assert [guess("WHY?"), guess("Who?"), guess("When?")] == ["a", "b", "b"]


def test_a_metric_that_does_not_know_the_right_answer_is_a_warning():
    evaluation = Evaluation(
        collator=lambda rows: {},
        metric=lambda answers, rows: Scores(len(rows), {"score": Number(0.5, len(rows))}),
        score=lambda answers, rows: [0.5] * len(rows),
        headline="score",
        max_new_tokens=1,
        reference=lambda row: row["answer"],
    )
    part = rows(question=["?"], answer=["a"])
    (found,) = check_baselines({"train": part, "test": part}, evaluation)
    assert found.status == "warn" and "of the right answers 0.500 (n = 1)" in found.found


# --- coordinates and rows


@pytest.mark.parametrize(
    ("boxes", "status"),
    [
        ([[0, 0, 100, 50], [10, 10, 20, 20]], "pass"),
        ([[0, 0, 101, 50]], "pass"),  # a rounding's width
        ([[0, 0, 150, 50]], "stop"),
        ([[-9, 0, 50, 50]], "stop"),
        ([[30, 0, 20, 50]], "stop"),
        ([[0, 30, 20, 30]], "stop"),
        ([[0, 0, float("nan"), 50]], "stop"),
    ],
)
def test_boxes_lie_inside_their_images(boxes, status):
    good = rows(image_size=[[100, 50]], boxes=[[[5.0, 5.0, 95.0, 45.0]]])
    spoilt = rows(image_size=[[100, 50]], boxes=[[[float(side) for side in box] for box in boxes]])
    assert check_coordinates({"train": good, "test": good}).status == "pass"
    assert check_coordinates({"train": good, "test": spoilt}).status == status


def test_masks_have_their_image_s_size():
    square = np.zeros((50, 100), bool)
    square[10:20, 10:30] = True
    good = rows(image_size=[[100, 50]] * 2, masks=[[encode(square)], [encode(square & False)]])
    found = check_coordinates({"train": good, "test": good})
    assert found.status == "pass" and found.numbers == {"masks": 4, "wrong": 0, "empty": 2}
    turned = rows(image_size=[[50, 100]], masks=[[encode(square)]])
    assert check_coordinates({"train": good, "test": turned}).status == "stop"
    assert check_coordinates({"train": rows(question=["?"]), "test": rows(question=["?"])}) is None


def test_rows_images_and_refusals_are_counted():
    part = rows(question=["a", "b"]).map(lambda row: {"image_id": "one"})
    refused = [{"id": "x", "reason": "no image"}, {"id": "y", "reason": "no box"}, {"id": "z", "reason": "no box"}]
    found = check_rows({"train": part, "test": part}, refused)
    assert found.found == "train 2 on 1 images, test 2 on 1 images; 3 refused, most often for: no box"


# --- constraints


def test_questions_with_a_closed_set_that_is_not_kept_to_are_counted_and_named():
    columns = {"choices": [["a", "b"], ["a", "b"], [], [], ["c", "d"]], "units": [[], [], ["mm"], [], []]}
    part = rows(question=["Which?", "Which?", "How long?", "Why?", "Who?"], **columns)
    evaluation = replace(
        text_evaluation(None, 1), constrain=lambda row: "kept" if row["question"] != "Which?" else None
    )
    found = check_constraints({"train": part, "test": part.select([0])}, evaluation)
    assert found.status == "warn" and found.numbers == {"closed": 3, "free": 1, "free_rows": 3}
    assert found.found == "1 of 3 questions with a closed set of answers are answered freely, in 3 rows: 'Which?'"
    kept = check_constraints({"train": part, "test": part}, replace(evaluation, constrain=lambda row: True))
    assert kept.status == "pass" and kept.found == "3 questions are kept to their answers"
    assert check_constraints({"train": part, "test": part}, replace(evaluation, constrain=None)) is None
