"""What each family's codec reads and writes: strings from its sources, and code of others that does the same."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.florence2.processing_florence2 import Florence2PostProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

from vlm_recipes.eval.metrics.box_codecs import (
    FAMILIES,
    Florence2Boxes,
    Gemma4Boxes,
    GLM4VBoxes,
    InternVLBoxes,
    PaliGemmaBoxes,
    Qwen3VLBoxes,
    Qwen25VLBoxes,
    box_codec,
)

SQUARE = (1000, 1000)


def read(codec, text: str, size: tuple[int, int] = SQUARE) -> list[tuple]:
    return [([round(edge, 3) for edge in box], label) for box, label in codec.decode_labelled(text, size)]


# --- strings from the sources that the docstrings name


SAID = {
    "Gemma 4, in its launch post": (
        Gemma4Boxes(),
        '```json\n[\n  {"box_2d": [171, 75, 245, 308], "label": "view recipe element"}\n]\n```',
        [([75, 171, 308, 245], "view recipe element")],
    ),
    "Qwen3-VL, as in supervision's example": (
        Qwen3VLBoxes(),
        '```json\n[\n\t{"bbox_2d": [139, 768, 315, 954], "label": "cat"},\n'
        '\t{"bbox_2d": [366, 679, 536, 849], "label": "dog"}\n]\n```',
        [([139, 768, 315, 954], "cat"), ([366, 679, 536, 849], "dog")],
    ),
    "the label first": (
        Qwen3VLBoxes(),
        '[{"label": "cat", "bbox_2d": [100, 200, 400, 600]}, {"label": "a \\"dog\\"", "bbox_2d": [1, 2, 3, 4]}]',
        [([100, 200, 400, 600], "cat"), ([1, 2, 3, 4], 'a "dog"')],
    ),
    "a box without a label, and a label cut off": (
        Qwen3VLBoxes(),
        '[{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [5, 6, 7, 8], "label": "do',
        [([1, 2, 3, 4], ""), ([5, 6, 7, 8], "")],
    ),
    "GLM-4.6V": (
        GLM4VBoxes(),
        "\nThe coordinates of the second bottle of beer from the right on the table are "
        "<|begin_of_box|>[[94,598,177,991]]<|end_of_box|>.",
        [([94, 598, 177, 991], "")],
    ),
    "GLM in other brackets, after a thought with boxes of its own": (
        GLM4VBoxes(),
        "<think>Perhaps [[1, 2, 3, 4]]?</think>It is <|begin_of_box|>(10, 20, 30, 40), <50,60,70,80><|end_of_box|>",
        [([10, 20, 30, 40], ""), ([50, 60, 70, 80], "")],
    ),
    "GLM's detections, with Python's quotes": (
        GLM4VBoxes(),
        "[{'label': 'car-1', 'bbox_2d': [1,2,3,4]}, {'label': 'person-1', 'bbox_2d': [10,20,30,40]}]",
        [([1, 2, 3, 4], "car-1"), ([10, 20, 30, 40], "person-1")],
    ),
    "InternVL, several boxes of a label": (
        InternVLBoxes(),
        "<ref>circle</ref><box>[[278,24,354,100],[515,10,611,106]]</box> and <ref>a dot</ref><box>[[1,2,3,4]]</box>",
        [([278, 24, 354, 100], "circle"), ([515, 10, 611, 106], "circle"), ([1, 2, 3, 4], "a dot")],
    ),
    "InternVL in one bracket, without its special tokens": (
        InternVLBoxes(),
        "circle[250, 202, 835, 851]",
        [([250, 202, 835, 851], "")],
    ),
    "PaliGemma 2, several objects": (
        PaliGemmaBoxes(),
        "<loc0001><loc0123><loc0530><loc1012> stop sign ; <loc0000><loc0000><loc1023><loc1023> cat",
        [([120.235, 0.978, 989.247, 518.084], "stop sign"), ([0, 0, 1000, 1000], "cat")],
    ),
    "PaliGemma's segments": (
        PaliGemmaBoxes(),
        "<loc0000><loc0000><loc1023><loc1023><seg090><seg001> cat",
        [([0, 0, 1000, 1000], "cat")],
    ),
    "Florence-2": (
        Florence2Boxes(),
        "</s><s>car<loc_52><loc_332><loc_932><loc_774>wheel<loc_708><loc_578><loc_864><loc_772></s>",
        [([52.5, 332.5, 932.5, 774.5], "car"), ([708.5, 578.5, 864.5, 772.5], "wheel")],
    ),
}


@pytest.mark.parametrize("said", SAID)
def test_what_a_source_shows_is_read(said):
    codec, text, expected = SAID[said]
    assert read(codec, text) == expected


def test_a_box_is_written_as_the_sources_show():
    boxes, labels = [[10, 20, 300, 400], [50, 60, 700, 800]], ["a cat", "a cat"]
    written = {type(codec): codec.encode(boxes, SQUARE, labels) for codec, *_ in SAID.values()}
    assert written == {
        Gemma4Boxes: '[{"box_2d": [20, 10, 400, 300], "label": "a cat"}, '
        '{"box_2d": [60, 50, 800, 700], "label": "a cat"}]',
        Qwen3VLBoxes: '[{"bbox_2d": [10, 20, 300, 400], "label": "a cat"}, '
        '{"bbox_2d": [50, 60, 700, 800], "label": "a cat"}]',
        GLM4VBoxes: '[{"label": "a cat", "bbox_2d": [10, 20, 300, 400]}, '
        '{"label": "a cat", "bbox_2d": [50, 60, 700, 800]}]',
        InternVLBoxes: "<ref>a cat</ref><box>[[10, 20, 300, 400], [50, 60, 700, 800]]</box>",
        PaliGemmaBoxes: "<loc0020><loc0010><loc0409><loc0307> a cat ; <loc0061><loc0051><loc0818><loc0716> a cat",
        Florence2Boxes: "a cat<loc_10><loc_20><loc_300><loc_400>a cat<loc_50><loc_60><loc_700><loc_800>",
    }
    assert GLM4VBoxes().encode(boxes, SQUARE, ["", ""]) == (
        "<|begin_of_box|>[[10, 20, 300, 400], [50, 60, 700, 800]]<|end_of_box|>"
    )


# --- against others' code


@st.composite
def box_in_an_image(draw) -> tuple[tuple[int, int], list[float]]:
    """Of at least a hundredth of each side, so that no one's units leave it without an area."""
    size = draw(st.tuples(*[st.integers(50, 5000)] * 2))
    low = draw(st.tuples(*[st.floats(0, 0.98)] * 2))
    high = [draw(st.floats(edge + 0.01, 1)) for edge in low]
    return size, [share * side for share, side in zip([*low, *high], size * 2, strict=True)]


@pytest.fixture(scope="module")
def florence() -> Florence2PostProcessor:
    tasks = {"bboxes": {}, "description_with_bboxes": {}}
    return Florence2PostProcessor(tasks, SimpleNamespace(all_special_tokens=[]))


@settings(max_examples=200, deadline=None)
@given(case=box_in_an_image())
def test_florence_2_writes_and_reads_what_transformers_does(florence, case):
    size, box = case
    text = Florence2Boxes().encode([box], size, ["a cat"])
    units = florence.quantize(torch.tensor([box], dtype=torch.float64), size)[0].tolist()
    [read_units] = Florence2Boxes().pattern.findall(text)
    # floats that are all but whole are whole here, and are cut there
    assert np.abs(np.subtract([int(unit) for unit in read_units], units)).max() <= 1
    exact = np.array(box) / np.tile(size, 2) * 1000
    if np.abs(exact - exact.round()).min() > 1e-5:
        assert list(map(int, read_units)) == units
    [theirs] = florence(text=text, image_size=size, parse_tasks="description_with_bboxes")["description_with_bboxes"]
    [ours] = Florence2Boxes().decode_labelled(text, size)
    assert theirs == {"bbox": [int(edge + 1e-9) for edge in ours.box], "cat_name": ours.label}


@settings(max_examples=200, deadline=None)
@given(case=box_in_an_image())
def test_paligemma_writes_its_authors_formula(case):
    """`round(bbox * 1023)` of shares, y first, and back by 1023."""
    size, box = case
    text = PaliGemmaBoxes().encode([box], size, ["a cat"])
    y1, x1, y2, x2 = np.array([box[1], box[0], box[3], box[2]]) / np.tile(size[::-1], 2) * 1023
    exact = np.array([y1, x1, y2, x2])
    units = np.array([int(text[4 + 9 * i : 8 + 9 * i]) for i in range(4)])
    assert np.abs(units - exact).max() <= 0.5 + 1e-9
    [found] = PaliGemmaBoxes().decode(text, size)
    np.testing.assert_allclose(found, (units / 1023)[[1, 0, 3, 2]] * np.tile(size, 2))


@settings(max_examples=100, deadline=None)
@given(case=box_in_an_image())
def test_glm_rounds_to_thousandths_as_its_authors_write(case):
    """`x = round(x_pixel / W * 1000)`."""
    size, box = case
    exact = np.array(box) / np.tile(size, 2) * 1000
    [(*_, found)] = [GLM4VBoxes().decode_labelled(GLM4VBoxes().encode([box], size, ["a"]), SQUARE)]
    assert np.abs(np.subtract(found.box, exact)).max() <= 0.5 + 1e-9


# --- which codec


def test_the_families_are_names_that_transformers_has():
    assert FAMILIES.keys() <= CONFIG_MAPPING_NAMES.keys()


def processor(shortest: int, longest: int, patch_size: int = 14) -> SimpleNamespace:
    size = {"shortest_edge": shortest, "longest_edge": longest}
    return SimpleNamespace(image_processor=Qwen2VLImageProcessor(size=size, patch_size=patch_size))


def test_the_codec_is_chosen_by_model_type_and_counts_the_processor_s_pixels():
    for model_type, family in FAMILIES.items():
        codec = box_codec(model_type, processor(3136, 501760))
        assert type(codec) is family
        if family is Qwen25VLBoxes:
            assert codec == Qwen25VLBoxes(min_pixels=3136, max_pixels=501760, factor=28)
        else:
            assert codec == family() == box_codec(model_type, None) == codec.used_with(processor(1, 2))
    assert box_codec("qwen2_5_vl", processor(1, 2, patch_size=16)).factor == 32


@pytest.mark.parametrize("model_type", ["gemma3", "llava", "smolvlm", "something_new"])
def test_a_family_without_a_known_format_writes_qwen3_vl_s(model_type):
    assert box_codec(model_type, None) == Qwen3VLBoxes()


def test_a_smallest_budget_above_the_largest_is_refused():
    for wrong in (lambda: Qwen25VLBoxes(5, 4), lambda: box_codec("qwen2_5_vl", processor(5, 4))):
        with pytest.raises(ValueError, match="^min_pixels 5 is above max_pixels 4: lower it$"):
            wrong()
