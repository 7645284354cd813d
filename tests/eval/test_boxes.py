"""Rows with boxes: `box_metrics` of what the codec reads, beside the same of one box for every image."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

from vlm_recipes.eval import boxes
from vlm_recipes.eval.boxes import box_evaluation, codec_of
from vlm_recipes.eval.drawing import PREDICTED_COLOR, TRUE_COLOR
from vlm_recipes.eval.metrics.baselines import ConstantBox
from vlm_recipes.eval.metrics.box_codecs import FAMILIES, Qwen2VLBoxes, Qwen3VLBoxes, Qwen25VLBoxes
from vlm_recipes.eval.metrics.boxes import box_metrics
from vlm_recipes.eval.metrics.detection import detection_metrics
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
    counted = flat(detection_metrics(read, TRUE, groups, baseline=(constant, None)))
    assert {name: metrics[name] for name in counted} == counted and "baseline_precision_50" in counted
    compared = {name: value for name, value in metrics.items() if name.startswith("baseline_") and name not in counted}
    assert compared == {f"baseline_{name}": pytest.approx(blind[name]) for name in (*names, "iou_first")}


def test_one_row_has_its_baseline_and_no_interval_and_rows_need_no_image_id():
    rows = [{key: row[key] for key in ("boxes", "image_size")} for row in ROWS]
    one = box_evaluation(None, CODEC, 9, [0, 0, 1, 1]).metric(ANSWERS[:1], rows[:1])
    assert one.n == 1 and one["iou_mean"].value == pytest.approx(0.8) and one["iou_mean"].low is None
    assert one["iou_mean"].baseline == pytest.approx(50 * 35 / 5000) and one["detection_rate"].baseline is None
    read = [CODEC.decode(answer, size) for answer, size in zip(ANSWERS, SIZES, strict=True)]
    metrics = box_evaluation(None, CODEC, 9).metric(ANSWERS, rows)
    assert metrics == box_metrics(read, TRUE) | detection_metrics(read, TRUE)
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


def test_people_read_an_answer_s_boxes_in_pixels_and_one_that_holds_none_as_it_is():
    shown = box_evaluation(None, CODEC, 9).shown
    assert shown(ROWS[0], CODEC.encode([[10, 5, 60, 40]], SIZES[0], ["a\ntable"])) == (
        "a table (10, 5) to (60, 40)\nin pixels of 100×50"
    )
    two = CODEC.encode(TRUE[1], SIZES[1], ["", "lamp"])
    assert shown(ROWS[1], two) == "(30, 60) to (240, 300)\nlamp (0, 0) to (30, 60)\nin pixels of 300×600"
    many = shown(ROWS[0], CODEC.encode(TRUE[0] * 9, SIZES[0], ["x"] * 9)).split("\n")
    assert many == [*["x (10, 5) to (60, 40)"] * 6, "and 3 more", "in pixels of 100×50"]
    for said in ("none", "", "<|object_ref_start|>x<|object_ref_end|><|box_start|>(1,2),(3", two.replace("(", "[")):
        assert shown(ROWS[1], said) == said


# --- boxes with names

NAMES = [["table"], ["Stop sign", "table"], ["lamp"]]
NAMED = [row | {"categories": names, "id": str(i)} for i, (row, names) in enumerate(zip(ROWS, NAMES, strict=True))]
CONSTANT = ConstantBox([0.1, 0.1, 0.8, 0.5], ["table", "stop sign", "lamp"])
SAID = [
    CODEC.encode(TRUE[0], SIZES[0], ["Table"]),
    CODEC.encode([*TRUE[1], [200, 400, 250, 500]], SIZES[1], ["table", "table", "banana"]),
    "nothing",
]


def test_names_count_where_there_are_several_categories():
    evaluation = box_evaluation(None, CODEC, 9, CONSTANT)
    metrics = evaluation.metric(SAID, NAMED)
    read = [CODEC.decode(answer, size) for answer, size in zip(SAID, SIZES, strict=True)]
    said = [["Table"], ["table", "table", "banana"], []]
    assert metrics["iou_mean"] == replace(
        box_metrics(read, TRUE, list("aba"), said, NAMES)["iou_mean"], baseline=metrics["iou_mean"].baseline
    )
    assert metrics["iou_mean"].value == pytest.approx((1 + 1 / 4 + 0) / 3, abs=0.01)
    assert metrics["iou_first"].value == pytest.approx(2 / 3, abs=0.01), "the reference's number knows no names"
    assert evaluation.score(SAID, NAMED) == pytest.approx([1, 1 / 4, 0], abs=0.02)
    precision = metrics["precision_50"]
    assert (precision.value, precision.n) == (0.5, 4) and list(precision.groups) == CONSTANT.categories
    assert [own.n for own in precision.groups.values()] == [3, 0, 0]
    assert [own.value for own in precision.groups.values()] == [pytest.approx(2 / 3), None, None]
    constant = [[[0.1 * w, 0.1 * h, 0.8 * w, 0.5 * h]] for w, h in SIZES]
    blind = detection_metrics(constant, TRUE, None, [["table"]] * 3, NAMES)
    for name in ("precision_50", "recall_50", "f1_50", "ap_50", "ap_50_95"):
        assert metrics[name].baseline == pytest.approx(blind[name].value)
    blind = box_metrics(constant, TRUE, None, [["table"]] * 3, NAMES)
    assert metrics["iou_mean"].baseline == pytest.approx(blind["iou_mean"].value)


def test_with_one_category_whatever_an_answer_calls_its_boxes_they_count_as_ever():
    said = [answer.replace("banana", "lamp") for answer in SAID]
    plain = box_evaluation(None, CODEC, 9, CONSTANT.box).metric(said, ROWS)
    told = box_evaluation(None, CODEC, 9, ConstantBox(CONSTANT.box, ["x"]))
    assert told.metric(said, NAMED) == plain and told.score(said, NAMED) == pytest.approx([1, 2 / 3, 0], abs=0.01)
    assert told.class_pairs is None and "categories" not in told.keep
    assert set(told.read(NAMED[0], said[0])) == {"predicted_boxes"}
    assert CODEC.decode_labelled(told.reference(NAMED[1]), SIZES[1])[0].label == ""
    spellings = box_evaluation(None, CODEC, 9, CONSTANT.box, categories=["Stop sign", "stop-sign"])
    assert spellings.metric(said, NAMED) == plain
    assert box_evaluation(None, CODEC, 9, CONSTANT.box).metric(said, NAMED) != plain, "nobody said that there is one"


def test_categories_that_are_told_are_shown_in_their_order_and_the_baseline_is_called_as_the_first():
    metrics = box_evaluation(None, CODEC, 9, CONSTANT, categories=["lamp", "table", "stop sign"]).metric(SAID, NAMED)
    assert list(metrics["f1_50"].groups) == ["lamp", "table", "stop sign"]
    assert metrics["precision_50"].groups["table"].baseline is None
    assert metrics["precision_50"].groups["lamp"].baseline is not None


@pytest.mark.parametrize("codec", dict.fromkeys(own for own in FAMILIES.values() if own is not Qwen25VLBoxes))
def test_the_reference_of_every_family_has_the_names_and_is_right(codec):
    evaluation = box_evaluation(None, codec(), 9, CONSTANT)
    references = [evaluation.reference(row) for row in NAMED]
    metrics = evaluation.metric(references, NAMED)
    assert metrics["iou_mean"].value > 0.93
    assert {
        number.value for name in ("precision_50", "recall_50", "ap_50") for number in metrics[name].groups.values()
    } == {1}


def test_a_file_of_answers_gives_the_same_numbers_with_names_as_without_reading_them_again():
    evaluation = box_evaluation(None, CODEC, 9, CONSTANT)
    assert evaluation.read(NAMED[1], SAID[1])["predicted_categories"] == ["table", "table", "banana"]
    kept = [
        {"id": row["id"], "prediction": said, "reference": evaluation.reference(row)}
        | evaluation.read(row, said)
        | {key: row[key] for key in evaluation.keep}
        for row, said in zip(NAMED, SAID, strict=True)
    ]
    expected = evaluation.metric(SAID, NAMED)
    own_boxes = [{key: line[key] for key in line if key not in ("prediction", "reference")} for line in kept]
    texts = [{key: line[key] for key in ("prediction", "reference", "image_size", "image_id")} for line in kept]
    for lines, rounding in ((kept, 0), (own_boxes, 0), (texts, 0.02)):
        lines = json.loads(json.dumps(lines))
        again = [evaluation.restore(line) for line in lines]
        rows = [line | columns for line, (columns, _) in zip(lines, again, strict=True)]
        assert rows[1]["categories"] == ["Stop sign", "table"]
        metrics = flat(evaluation.metric([answer for _, answer in again], rows))
        assert metrics == pytest.approx(flat(expected), abs=rounding)


def test_a_line_of_answers_without_the_names_that_count_is_refused():
    evaluation = box_evaluation(None, CODEC, 9, CONSTANT)
    line = NAMED[1] | {"predicted_boxes": TRUE[1]}
    with pytest.raises(KeyError, match="predicted_categories"):
        evaluation.restore(line)
    with pytest.raises(ValueError, match="predicted_categories: 1 names for 2 boxes"):
        evaluation.restore(line | {"predicted_categories": ["table"]})
    assert box_evaluation(None, CODEC, 9, [0, 0, 1, 1]).restore(ROWS[1] | {"predicted_boxes": TRUE[1]})[0] == {
        "boxes": TRUE[1]
    }


def test_names_are_drawn_unless_there_is_one_category():
    row, image = {"boxes": [], "image_size": [400, 400], "categories": []}, Image.new("RGB", (400, 400))
    said = CODEC.encode([[100, 100, 200, 200]], [400, 400], ["lamp"])
    pictures = [
        box_evaluation(None, CODEC, 9, categories=own).draw(image, row, said) for own in (["a"], ["a", "b"], ())
    ]
    assert [drawn.getpixel((101, 203)) == PREDICTED_COLOR for drawn in pictures] == [False, True, True]
    row |= {"boxes": [[100, 100, 200, 200]], "categories": ["table"]}
    assert box_evaluation(None, CODEC, 9).draw(image, row, said).getpixel((101, 97)) == TRUE_COLOR
    del row["categories"]
    assert box_evaluation(None, CODEC, 9).draw(image, row, said).getpixel((101, 97)) == (0, 0, 0)


def test_classes_that_are_confused_missed_and_invented_have_their_names():
    pairs = [box_evaluation(None, CODEC, 9, CONSTANT).class_pairs(*one) for one in zip(NAMED, SAID, strict=True)]
    assert pairs[0] == [("table", "table")] and pairs[2] == [("lamp", None)]
    assert sorted(pairs[1], key=str) == [("stop sign", "table"), ("table", "table"), (None, "banana")]
    assert box_evaluation(None, CODEC, 9).class_pairs(ROWS[0], SAID[0]) == []


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


@pytest.mark.parametrize("image_ids", [[None, "a", None], [1, "1", None], [None] * 3])
def test_rows_whose_image_has_no_name_are_images_of_their_own(image_ids):
    """As with a made-up name for each of them; free answers and their difference, too."""
    evaluation, free = box_evaluation(None, CODEC, 9, [0, 0, 1, 1]), ANSWERS[::-1]
    numbers = []
    made_up = [f"~{i}" if name is None else f"{type(name).__name__} {name}" for i, name in enumerate(image_ids)]
    for ids in (image_ids, made_up):
        rows = [row | {"image_id": name} for row, name in zip(ROWS, ids, strict=True)]
        evaluation.require_columns(rows)
        numbers.append(flat(evaluation.scored(rows, ANSWERS, free)[0]))
    assert numbers[0] == numbers[1] and "iou_mean_low" in numbers[0] and "constrained_gain_low" in numbers[0]


def test_free_answers_are_compared_where_rows_have_no_image_id():
    rows = [{key: row[key] for key in ("boxes", "image_size")} for row in ROWS]
    unnamed = [row | {"image_id": None} for row in rows]
    found, expected = (box_evaluation(None, CODEC, 9).scored(own, ANSWERS, ANSWERS)[0] for own in (rows, unnamed))
    assert found == expected and found["iou_mean"].gain.value == 0


def test_a_list_is_refused_where_any_of_its_rows_lacks_a_column():
    """Rows of one's own may come from several sources: the late ones were found at the first evaluation."""
    evaluation = box_evaluation(None, CODEC, 9)
    rows = [*ROWS, {key: value for key, value in ROWS[0].items() if key != "image_size"}]
    with pytest.raises(ValueError, match="no column 'image_size'"):
        evaluation.require_columns(rows)
    evaluation.require_columns(ROWS)


def test_names_count_where_any_row_has_some_whatever_row_is_the_first():
    """Of a file of answers, the first picture of which shows nothing, wrong names were once right."""
    rows = [{"boxes": [], "image_size": [100, 100], "image_id": "none", "categories": []}, NAMED[1]]
    evaluation = box_evaluation(None, CODEC, 9)
    said = [evaluation.reference(row) for row in rows]
    wrong = [said[0], evaluation.reference(NAMED[1] | {"categories": NAMED[1]["categories"][::-1]})]
    for order in (1, -1):
        assert evaluation.metric(said[::order], rows[::order])["f1_50"].value == 1
        assert evaluation.metric(wrong[::order], rows[::order])["f1_50"].value < 1
        unnamed = [{key: value for key, value in rows[0].items() if key != "categories"}, rows[1]][::order]
        with pytest.raises(KeyError, match="categories"):
            evaluation.metric(said[::order], unnamed)


def test_a_callback_s_rows_some_of_which_have_names_are_refused_as_they_will_be_scored():
    rows = [NAMED[1], {key: value for key, value in NAMED[1].items() if key != "categories"}]
    with pytest.raises(ValueError, match="no column 'categories'"):
        box_evaluation(None, CODEC, 9).require_columns(rows)


def test_a_constant_box_without_a_name_is_called_as_most_boxes_are():
    box, cup = [0.1, 0.1, 0.6, 0.8], {"image_id": "a", "categories": ["cup"]}
    named = [cup | {"boxes": [[0.1 * w, 0.1 * h, 0.6 * w, 0.8 * h]], "image_size": [w, h]} for w, h in SIZES[:2]]
    metrics = box_evaluation(None, CODEC, 9, box).metric(["none"] * 2, named)
    assert metrics["iou_mean"].baseline == pytest.approx(1) and metrics["recall_50"].baseline == 1
