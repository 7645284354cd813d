"""Rows with boxes: `box_metrics` of what the codec reads, beside the same of one box for every image."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

from vlm_recipes.eval import boxes
from vlm_recipes.eval.boxes import box_evaluation, codec_of
from vlm_recipes.eval.drawing import PREDICTED_COLOR, TRUE_COLOR
from vlm_recipes.eval.metrics.box_codecs import Qwen2VLBoxes, Qwen3VLBoxes, Qwen25VLBoxes
from vlm_recipes.eval.metrics.boxes import box_metrics
from vlm_recipes.eval.metrics.number import flat

CODEC = Qwen2VLBoxes()
SIZES = [[100, 50], [300, 600], [80, 80]]
TRUE = [[[10, 5, 60, 40]], [[30, 60, 240, 300], [0, 0, 30, 60]], [[8, 8, 64, 64]]]
ROWS = [
    {"boxes": boxes, "image_size": size, "image_id": image}
    for boxes, size, image in zip(TRUE, SIZES, "aba", strict=True)
]
ANSWERS = [CODEC.encode([[20, 5, 60, 40]], SIZES[0], ["x"]), "nothing", CODEC.encode(TRUE[2], SIZES[2], ["x"])]


def test_answers_are_read_scored_and_compared_with_the_constant_box_in_every_image():
    baseline = [0.1, 0.1, 0.8, 0.5]
    metrics = flat(box_evaluation(None, CODEC, 9, baseline).metric(ANSWERS, ROWS))
    read = [CODEC.decode(answer, size) for answer, size in zip(ANSWERS, SIZES, strict=True)]
    constant = [[[0.1 * w, 0.1 * h, 0.8 * w, 0.5 * h]] for w, h in SIZES]
    groups = ["a", "b", "a"]
    expected, blind = flat(box_metrics(read, TRUE, groups)), flat(box_metrics(constant, TRUE, groups))
    assert {name: metrics[name] for name in expected} == expected and metrics["unparseable_rate"] == 1 / 3
    names = ("iou_mean", "iou_median", "giou_mean", "giou_median", "accuracy_50", "accuracy_70")
    compared = {name: value for name, value in metrics.items() if name.startswith("baseline_")}
    assert compared == {f"baseline_{name}": pytest.approx(blind[name]) for name in (*names, "iou_first")}


def test_one_row_has_its_baseline_and_no_interval_and_rows_need_no_image_id():
    rows = [{key: row[key] for key in ("boxes", "image_size")} for row in ROWS]
    one = box_evaluation(None, CODEC, 9, [0, 0, 1, 1]).metric(ANSWERS[:1], rows[:1])
    assert one.n == 1 and one["iou_mean"].value == pytest.approx(0.8) and one["iou_mean"].low is None
    assert one["iou_mean"].baseline == pytest.approx(50 * 35 / 5000) and one["detection_rate"].baseline is None
    assert box_evaluation(None, CODEC, 9).metric(ANSWERS, rows) == box_metrics(
        [CODEC.decode(answer, size) for answer, size in zip(ANSWERS, SIZES, strict=True)], TRUE
    )
    assert flat(box_evaluation(None, CODEC, 9, [0, 0, 1, 1]).metric([], [])) == {"n": 0}


def test_a_row_s_score_is_its_image_s_iou():
    evaluation = box_evaluation(None, CODEC, 9)
    alone = [evaluation.metric([said], [row])["iou_mean"].value for said, row in zip(ANSWERS, ROWS, strict=True)]
    assert evaluation.score(ANSWERS, ROWS) == alone and alone[1] == 0 and evaluation.score([], []) == []


def test_the_reference_is_the_boxes_and_the_answer_s_are_drawn_beside_them():
    evaluation = box_evaluation(None, CODEC, 9)
    np.testing.assert_allclose(CODEC.decode(evaluation.reference(ROWS[1]), SIZES[1]), TRUE[1])
    drawn = evaluation.draw(Image.new("RGB", (100, 50)), ROWS[0], ANSWERS[0])
    assert drawn.getpixel((10, 20)) == TRUE_COLOR and drawn.getpixel((20, 20)) == PREDICTED_COLOR
    assert box_evaluation(None, CODEC, 9, reference=lambda row: "as said").reference(ROWS[0]) == "as said"


# --- a codec in pixels


def collator(shortest: int, longest: int) -> SimpleNamespace:
    size = {"shortest_edge": shortest, "longest_edge": longest}
    return SimpleNamespace(processor=SimpleNamespace(image_processor=Qwen2VLImageProcessor(size=size)))


def test_pixels_are_those_of_the_collator_s_processor_whatever_budget_a_codec_was_made_with():
    used = collator(56 * 56, 1280 * 28 * 28)
    row = {"boxes": [[100, 100, 300, 300]], "image_size": [560, 560], "image_id": "a"}
    said = Qwen25VLBoxes.of(used.processor).encode(row["boxes"], row["image_size"], ["table"])
    other = Qwen25VLBoxes(min_pixels=28 * 28, max_pixels=16 * 28 * 28)
    assert other.decode(said, row["image_size"]) != row["boxes"], "with the other budget it is somewhere else"
    evaluation = box_evaluation(used, other, 9)
    assert evaluation.score([said], [row]) == [1] and evaluation.metric([said], [row])["iou_mean"].value == 1
    assert evaluation.reference(row) == said.replace("table", "")
    drawn = evaluation.draw(Image.new("RGB", (560, 560)), row | {"boxes": []}, said)
    assert drawn.getpixel((100, 200)) == PREDICTED_COLOR


def test_a_budget_set_after_the_evaluation_was_made_is_the_one_that_counts():
    used = collator(56 * 56, 1280 * 28 * 28)
    evaluation = box_evaluation(used, Qwen25VLBoxes.of(used.processor), 9)
    used.processor.image_processor.size = {"shortest_edge": 28 * 28, "longest_edge": 16 * 28 * 28}
    row = {"boxes": [[100, 100, 300, 300]], "image_size": [1120, 1120], "image_id": "a"}
    said = Qwen25VLBoxes.of(used.processor).encode(row["boxes"], row["image_size"], ["table"])
    assert evaluation.score([said], [row]) == [pytest.approx(1)]


# --- which codec


def of_kind(model_type: str) -> SimpleNamespace:
    return SimpleNamespace(config=SimpleNamespace(model_type=model_type))


def test_a_family_without_a_known_format_is_announced_once_and_by_the_main_process(capsys, monkeypatch):
    boxes._announce.cache_clear()
    assert codec_of(of_kind("qwen3_5_moe"), None) == Qwen3VLBoxes() and capsys.readouterr().out == ""
    assert codec_of(None, None) == Qwen2VLBoxes()
    for _ in range(2):
        assert codec_of(of_kind("smolvlm"), None) == Qwen3VLBoxes()
    said = "no box format of 'smolvlm' is known: boxes are JSON as Qwen3-VL's, in thousandths of the image\n"
    assert capsys.readouterr().out == said
    monkeypatch.setattr(boxes, "PartialState", lambda: SimpleNamespace(is_main_process=False))
    codec_of(of_kind("ovis2"), None)
    assert capsys.readouterr().out == ""
