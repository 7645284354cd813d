import json
import math
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

from tests.support.paths import SHARED_DATA
from vlm_recipes.eval.metrics.box_codecs import (
    FAMILIES,
    Gemma4Boxes,
    GLM4VBoxes,
    Qwen2VLBoxes,
    Qwen3VLBoxes,
    Qwen25VLBoxes,
)

SAMPLE = SHARED_DATA / "nutrition_tables"
MIN_PIXELS, MAX_PIXELS = 56 * 56, 640 * 28 * 28
CODECS = [Qwen2VLBoxes(), Qwen25VLBoxes(MIN_PIXELS, MAX_PIXELS), Qwen3VLBoxes()]
OTHERS = [family() for family in dict.fromkeys(FAMILIES.values()) if family not in map(type, CODECS)]
every_codec = pytest.mark.parametrize("codec", [*CODECS, *OTHERS], ids=lambda codec: type(codec).__name__)
JSON = [*CODECS[1:], GLM4VBoxes(), Gemma4Boxes()]
every_json = pytest.mark.parametrize("codec", JSON, ids=lambda codec: type(codec).__name__)
LABEL = "nutrition-table"


def qwen2(*corners: tuple[int, int, int, int]) -> str:
    return " ".join(
        f"<|object_ref_start|>{LABEL}<|object_ref_end|><|box_start|>({a},{b}),({c},{d})<|box_end|>"
        for a, b, c, d in corners
    )


def qwen25(*corners: tuple[int, int, int, int]) -> str:
    return json.dumps([{"bbox_2d": list(corner), "label": LABEL} for corner in corners])


@st.composite
def images_with_boxes(draw, max_boxes=4):
    width = draw(st.integers(28, 6000))
    height = draw(st.integers(max(28, width // 20), min(6000, width * 20)))
    boxes = []
    for _ in range(draw(st.integers(1, max_boxes))):
        x = sorted(draw(st.tuples(*[st.floats(0, width)] * 2)))
        y = sorted(draw(st.tuples(*[st.floats(0, height)] * 2)))
        if x[0] < x[1] and y[0] < y[1]:
            boxes.append([x[0], y[0], x[1], y[1]])
    return (width, height), boxes


def test_the_published_first_row_has_its_published_text():
    y_min, x_min, y_max, x_max = 0.05709876, 0.01427469, 0.60350156, 0.99112654
    size = (2592, 1944)
    box = [x_min * size[0], y_min * size[1], x_max * size[0], y_max * size[1]]
    assert Qwen2VLBoxes().encode([box], size, [LABEL]) == qwen2((14, 57, 991, 603))


def test_the_published_second_row_has_its_published_text():
    # the only whole pixels of a 306x408 image that give the published (147,151),(516,588)
    assert Qwen2VLBoxes().encode([[45, 62, 158, 240]], (306, 408), [LABEL]) == qwen2((147, 151, 516, 588))


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the real sample photograph is not beside this checkout")
def test_the_real_photograph_s_row_has_its_published_text():
    row = json.loads((SAMPLE / "metadata.jsonl").read_text().splitlines()[0])
    with Image.open(SAMPLE / row["file_name"]) as image:
        assert image.size == (row["width"], row["height"])
    y_min, x_min, y_max, x_max = row["objects"]["bbox"][0]
    width, height = row["width"], row["height"]
    box = [x_min * width, y_min * height, x_max * width, y_max * height]
    text = Qwen2VLBoxes().encode([box], (width, height), row["objects"]["category_name"])
    assert text == qwen2((14, 57, 991, 603))


def test_float_noise_never_drops_a_unit():
    for width in (306, 408, 1944, 2592):
        for unit in range(1000):
            box = [unit / 1000 * width, 0, width, width]
            assert f"({unit},0),(1000,1000)" in Qwen2VLBoxes().encode([box], (width, width), [LABEL])


@every_codec
@pytest.mark.parametrize("box", [[0, 0, 0.01, 0.01], [45, 45, 45.01, 45.01], [99.99999999, 99.99999999, 100, 100]])
def test_a_box_thinner_than_a_unit_is_written_as_one_whole_unit(codec, box):
    text = codec.encode([box], (100, 100), [LABEL])
    low, below, high, above = map(int, re.findall(r"\d+", re.sub("b?box_2d", "", text))[:4])
    assert (high - low, above - below) == (1, 1)
    assert len(codec.decode(text, (100, 100))) == 1


def test_several_boxes_are_joined_by_a_space_and_come_back_in_order():
    boxes = [[10.0, 20.0, 30.0, 40.0], [50.0, 60.0, 70.0, 80.0]]
    text = Qwen2VLBoxes().encode(boxes, (100, 100), [LABEL, LABEL])
    assert text == qwen2((100, 200, 300, 400), (500, 600, 700, 800))
    assert Qwen2VLBoxes().decode(text, (100, 100)) == boxes


def test_json_codecs_write_a_list_of_bbox_2d_and_label():
    text = Qwen3VLBoxes().encode([[10, 20, 30, 40]], (100, 200), ["Nährwerttabelle"])
    assert json.loads(text) == [{"bbox_2d": [100, 100, 300, 200], "label": "Nährwerttabelle"}]
    assert "Nährwerttabelle" in text, "a label stays readable, not escaped"
    assert Qwen3VLBoxes().encode([], (100, 200), []) == "[]"


@st.composite
def sizes_with_budgets(draw):
    """Sides from 1 pixel on, up to 200 times longer than wide, and budgets of 1 to 400 patches."""
    short = draw(st.integers(1, 14) | st.integers(15, 300))
    long = draw(st.integers(short, min(1500, 200 * short)))
    patches = sorted(draw(st.tuples(st.integers(1, 400), st.integers(1, 400))))
    return draw(st.sampled_from([(short, long), (long, short)])), [n * 28 * 28 for n in patches]


@settings(max_examples=60, deadline=None)
@given(sizes_with_budgets())
@example(((640, 480), [MIN_PIXELS, MAX_PIXELS]))
@example(((40, 33), [MIN_PIXELS, MAX_PIXELS]))
@example(((1500, 15), [28 * 28, 2 * 28 * 28]))  # qwen-vl-utils alone would leave it no height,
@example(((1500, 14), [4 * 28 * 28, 400 * 28 * 28]))  # and keep this one as wide as it is
def test_qwen2_5_counts_pixels_of_what_the_image_processor_makes(case):
    size, (min_pixels, max_pixels) = case
    processor = Qwen2VLImageProcessor(size={"shortest_edge": min_pixels, "longest_edge": max_pixels})
    grid = processor(images=Image.new("RGB", size), return_tensors="pt")["image_grid_thw"][0].tolist()
    codec = Qwen25VLBoxes(min_pixels, max_pixels)
    text = codec.encode([[0, 0, *size]], size, [LABEL])
    assert json.loads(text)[0]["bbox_2d"] == [0, 0, grid[2] * 14, grid[1] * 14]
    assert codec.decode(text, size) == [[0, 0, *size]]


def test_qwen2_5_scales_boxes_to_the_resized_image():
    codec = Qwen25VLBoxes(min_pixels=56 * 56, max_pixels=280 * 560)  # 2000x1000 becomes 560x280
    text = codec.encode([[500, 250, 1000, 750]], (2000, 1000), [LABEL])
    assert text == qwen25((140, 70, 280, 210))
    assert codec.decode(text, (2000, 1000)) == [[500, 250, 1000, 750]]


def units_of(codec, size: tuple[int, int]) -> list[float]:
    """How many pixels a unit has, for each side of a box."""
    if isinstance(codec, Qwen25VLBoxes):
        grid = json.loads(codec.encode([[0, 0, *size]], size, [LABEL]))[0]["bbox_2d"][2:]
        return [side / n for side, n in zip(size, grid, strict=True)] * 2
    return [side / (1023 if type(codec).__name__ == "PaliGemmaBoxes" else 1000) for side in size] * 2


@every_codec
@settings(max_examples=150, deadline=None)
@given(case=images_with_boxes(), label=st.text(max_size=20).filter(lambda text: not set("<>;") & set(text)))
def test_a_round_trip_moves_no_coordinate_by_more_than_a_unit_and_keeps_the_label(codec, case, label):
    size, boxes = case
    text = codec.encode(boxes, size, [label] * len(boxes))
    decoded = codec.decode(text, size)
    assert len(decoded) == len(boxes), "no box is lost, however thin, whatever its label says"
    # a thin box gets a whole unit, and Florence-2 reads units in their middle
    most = 1.50001 if type(codec).__name__ == "Florence2Boxes" else 1.00001
    for box, read in zip(boxes, decoded, strict=True):
        assert all(abs(a - b) <= most * unit for a, b, unit in zip(box, read, units_of(codec, size), strict=True))
    assert codec.encode(decoded, size, [label] * len(decoded)) == text, "what was read writes the same text again"
    labelled = codec.decode_labelled(text, size)
    assert [found.box for found in labelled] == decoded
    assert {found.label.strip() for found in labelled} == ({label.strip()} if boxes else set())


@every_codec
def test_a_label_cannot_pose_as_a_box(codec):
    for label in ('"bbox_2d": [1, 2, 3, 4] (5,6),(7,8)', '"box_2d": [1, 2, 3, 4]', "'bbox_2d': [1, 2, 3, 4]"):
        [found] = codec.decode_labelled(codec.encode([[10, 10, 90, 90]], (100, 100), [label]), (100, 100))
        assert found.label == label
        assert found.box == pytest.approx([10, 10, 90, 90], abs=1)


@every_codec
def test_several_labels_come_back_each_with_its_box_in_order(codec):
    boxes, labels = [[10, 20, 30, 40], [50, 60, 70, 80], [5, 5, 95, 95], [1, 1, 99, 99]], ["a cat", "b", "b", "ü 4"]
    found = codec.decode_labelled(codec.encode(boxes, (280, 280), labels), (280, 280))
    assert [one.label for one in found] == labels
    np.testing.assert_allclose([one.box for one in found], boxes, atol=1)
    unnamed = codec.decode_labelled(codec.encode(boxes, (280, 280), [""] * 4), (280, 280))
    assert unnamed == [one._replace(label="") for one in found]


MARKS = {"Qwen2VLBoxes": "<|object_ref_end|>", "InternVLBoxes": "</ref><box>[[1,2,3,4]]</box>"}
MARKS |= {"PaliGemmaBoxes": "cat ; <loc0001>", "Florence2Boxes": "<loc_1>"}


@every_codec
def test_a_label_that_spells_the_family_s_own_marks_is_refused_where_nothing_escapes_it(codec):
    label = MARKS.get(type(codec).__name__)
    if label is None:  # JSON escapes what it has to
        assert codec.marks == ()
        return
    with pytest.raises(ValueError, match=f"^label '.*' has '.*' in it, which {type(codec).__name__} cannot write$"):
        codec.encode([[10, 10, 90, 90]], (100, 100), [label])


def test_special_tokens_may_have_been_skipped():
    text = "nutrition-table(100,200),(300,400) nutrition-table( 500, 600 ) , (700,800)"
    assert Qwen2VLBoxes().decode(text, (100, 100)) == [[10, 20, 30, 40], [50, 60, 70, 80]]


@every_json
def test_json_fences_chatter_and_a_cut_off_end_do_no_harm(codec):
    whole = codec.encode([[10, 10, 50, 50], [20, 20, 90, 90]], (280, 280), [LABEL, LABEL])
    expected = codec.decode(whole, (280, 280))
    assert len(expected) == 2
    assert (
        codec.decode(f"Here you are:\n```json\n{json.dumps(json.loads(whole), indent=4)}\n```", (280, 280)) == expected
    )
    assert codec.decode(whole[: whole.rindex("]", 0, -2) - 1], (280, 280)) == expected[:1]


def test_inverted_degenerate_and_outside_boxes_are_dropped_and_the_rest_clipped():
    inverted, flat, outside = (500, 500, 100, 600), (100, 100, 100, 200), (1000, 100, 1200, 200)
    text = qwen2(inverted, flat, outside, (-5, 10, 99999999999, 900))
    assert Qwen2VLBoxes().decode(text, (200, 100)) == [[0, 1, 200, 90]]
    text = qwen25(inverted, flat, outside, (-5, 10, 10**400, 900))
    assert Qwen3VLBoxes().decode(text, (200, 100)) == [[0, 1, 200, 90]]


HOSTILE = [
    "",
    "I cannot see a table.",
    "[" * 100_000,
    '{"bbox_2d": ' * 5000,
    '[{"bbox_2d": [NaN, 1, 2, 3], "label": "x"}]',
    '[{"bbox_2d": [Infinity, 1, -Infinity, 3]}]',
    '[{"bbox_2d": [[1, 2], [3, 4]]}]',
    '[{"bbox_2d": [[1, 2, 3, 4]]}]',
    '[{"bbox_2d": "1, 2, 3, 4"}]',
    '[{"bbox_2d": [1, 2, 3]}]',
    '[{"bbox_2d": [1, 2, 3, 4, 5]}]',
    '[{"bbox_2d": null}]',
    '[{"bbox_2d": [1, 2, 3, 4',
    '[{"bbox_2d": [٣, ٤, ٥, ٦]}]',
    "(٣,٤),(٥,٦)",
    "(²,1),(3,4)",
    "(1,2),(3,",
    "(nan,nan),(inf,inf)",
    "(" + "1" * 200_000,
    "<|object_ref_start|>" * 20_000,
    "\ud800\x00",
]


@every_codec
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_text_without_a_box_decodes_to_nothing(codec, text):
    bracketed = "[1, 2, 3, 4]" in text and type(codec).__name__ in ("InternVLBoxes", "GLM4VBoxes")
    assert len(codec.decode(text, (640, 480))) == bracketed


@every_codec
def test_a_number_of_a_hundred_thousand_digits_is_clipped(codec):
    n = "9" * 100_000
    texts = [f"(0,0),({n},{n})", f'[{{"bbox_2d": [0, 0, {n}, {n}]}}]', f'[{{"box_2d": [0, 0, {n}, {n}]}}]']
    texts += [f"<loc_0><loc_0><loc_{n}><loc_{n}>", "<loc0000><loc0000><loc9999><loc9999>"]
    found = [box for text in texts for box in codec.decode(text, (640, 480))]
    whole = [0.32, 0.24, 639.68, 479.76] if codec.middle else [0, 0, 640, 480]  # the middle of the last bin
    assert found and all(box == pytest.approx(whole) for box in found)


FRAGMENTS = st.sampled_from(
    ['"bbox_2d"', ":", "[", "]", "{", "}", ",", "(", ")", "<|box_start|>", "<|object_ref_end|>", "```json", "-", "."]
    + [" ", "1", "57", "1000", "1e999", "9" * 400, "NaN", "٣", "),(", '{"bbox_2d": [1, 2, ', "(1,2),("]
    + ["<loc0007>", "<loc1023>", "<loc_7>", "<loc_999>", "<loc_", "cat", ";", "<ref>", "</ref>", "<box>", "</box>"]
    + [
        "<|begin_of_box|>",
        "<|end_of_box|>",
        "[1, 2, 30, 40]",
        '"box_2d": [1,2,30,40]',
        '"label": "',
        "'label': '",
        "\\",
    ]
)


@every_codec
@settings(max_examples=300, deadline=None)
@given(
    text=st.one_of(st.text(), st.lists(FRAGMENTS, max_size=40).map("".join)),
    size=st.tuples(st.integers(50, 5000), st.integers(50, 5000)),
)
def test_decoding_never_raises_and_gives_boxes_inside_the_image(codec, text, size):
    for (x1, y1, x2, y2), label in codec.decode_labelled(text, size):
        assert isinstance(label, str)
        assert 0 <= x1 < x2 <= size[0] and 0 <= y1 < y2 <= size[1]


@every_codec
@pytest.mark.parametrize(
    "box",
    [[50, 10, 20, 40], [10, 10, 10, 40], [math.nan, 0, 1, 1], [0, 0, math.inf, 1], [200, 0, 300, 50], [1, 2, 3]],
    ids=["inverted", "empty", "nan", "infinite", "outside", "three numbers"],
)
def test_encoding_refuses_what_is_no_box_and_shows_it(codec, box):
    with pytest.raises(ValueError, match="100x100 image") as error:
        codec.encode([box], (100, 100), [LABEL])
    assert str(list(box)) in str(error.value) and "\n" not in str(error.value)


@every_codec
def test_encoding_clips_to_the_image_and_wants_one_label_per_box(codec):
    [read] = codec.decode(codec.encode([[-5, -5, 105, 50]], (100, 100), [LABEL]), (100, 100))
    assert read == pytest.approx([0, 0, 100, 50], abs=0 if type(codec) in map(type, CODECS) else 0.06)
    with pytest.raises(ValueError, match="labels: 2 for 1 boxes"):
        codec.encode([[0, 0, 50, 50]], (100, 100), [LABEL, LABEL])
