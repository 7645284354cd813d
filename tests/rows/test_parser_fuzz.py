"""Whatever a file, a row or an answer says, a parser gives a well-formed result or its own refusal, and nothing else.

Three kinds of input: good texts with a few edits, values of any shape where a good one is due, and anything at all.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from recipes import nutrition_tables, reasonseg, vqa_rad
from vlm_recipes.eval.metrics.box_codecs import FAMILIES, Qwen2VLBoxes, Qwen25VLBoxes
from vlm_recipes.eval.metrics.masks import decode
from vlm_recipes.eval.metrics.question_types import QuestionTypes, describe_types
from vlm_recipes.eval.metrics.typed_answers import TYPES, canonical_text, is_right, jaccard
from vlm_recipes.rows.conventions import PROBLEM
from vlm_recipes.rows.errors import LONGEST_REASON, BadRow, DataError, one_line
from vlm_recipes.rows.formats.real_colon import load_real_colon, read_real_colon
from vlm_recipes.rows.formats.reasonseg import parse_annotation, picture_mask, polygon_mask
from vlm_recipes.rows.formats.ssg_vqa import HOPS, KINDS, LISTS, load_question_folder, read_line
from vlm_recipes.rows.formats.vqa_rad import TEXTS, load_question_file
from vlm_recipes.rows.loading import check_lines

SIZE = [40, 30]
PICTURE = {"bytes": b"x", "path": None}
MARK = "\ufeff".encode()  # of the order of bytes
any_text = st.text(st.characters(), max_size=12)  # half surrogate pairs among them
number = st.integers(-5, 60) | st.integers() | st.floats() | st.just(10**400)
scalar = st.none() | st.booleans() | number | any_text
any_value = st.recursive(
    scalar, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3), max_leaves=6
)


@st.composite
def edited(draw, texts: list[str], fragments: list[str]) -> str:
    """One of the texts with up to four edits: a piece cut out, and another put in."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(text)))
        cut = draw(st.sampled_from([0, 0, 1, 2, 9, 10**6]))
        text = text[:start] + draw(st.sampled_from(fragments) | any_text) + text[start + cut :]
    return text


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


JSON = ["{", "}", "[", "]", ",", ":", '"', "null", "true", "NaN", "1e999", "-", "9" * 5000, "\\ud83d", "\\u0000", "\n"]


# --- boxes

OF_THE_IMAGE = [family() for family in dict.fromkeys(FAMILIES.values()) if family is not Qwen25VLBoxes]
CODECS = [*OF_THE_IMAGE, Qwen25VLBoxes(56 * 56, 640 * 28 * 28)]
ANSWERS = [
    codec.encode([[1, 2, 30, 20], [5, 6, 7, 8]], size, ["table", "box"])
    for codec in CODECS
    for size in [SIZE, (99, 9)]
]
COORDINATES = [
    "(",
    ")",
    ",",
    "[",
    "]",
    "-",
    ".",
    "1",
    "9" * 400,
    "1e999",
    "NaN",
    "<|box_end|>",
    '"bbox_2d": [',
    "<loc_7>",
    "<loc0007>",
    "</ref>",
    "٣",
    " ",
]


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: type(codec).__name__)
@settings(deadline=None, max_examples=150)
@given(edited(ANSWERS, COORDINATES), st.tuples(*[st.integers(1, 6000)] * 2).filter(lambda s: max(s) <= 200 * min(s)))
def test_the_boxes_of_an_edited_answer_lie_in_the_image_and_can_be_written_again(codec, text, size):
    boxes = codec.decode(text, size)
    assert all(0 <= x1 < x2 <= size[0] and 0 <= y1 < y2 <= size[1] for x1, y1, x2, y2 in boxes)
    again = codec.decode(codec.encode(boxes, size, ["table"] * len(boxes)), size)
    assert len(again) == len(boxes) and np.isfinite(again).all()


side = st.none() | st.floats() | st.floats(-0.02, 1.02)
bbox = st.none() | st.lists(side, max_size=5) | st.tuples(*[st.floats(-0.02, 1.02)] * 4).map(list)
name = st.none() | any_text | st.just("table")
some = st.fixed_dictionaries(
    {"bbox": st.none() | st.lists(bbox, max_size=3), "category_name": st.none() | st.lists(name, max_size=3)}
)


@settings(deadline=None, max_examples=200)
@given(st.none() | some, st.none() | any_text)
def test_boxes_of_a_dataset_are_refused_or_become_finite_pixels_and_an_answer_with_as_many(objects, image_id):
    try:
        row = nutrition_tables.to_chat(
            {"image_id": image_id, "image": PICTURE, "objects": objects, "image_size": SIZE}, codec=Qwen2VLBoxes()
        )
    except ValueError:  # BadRow, or the codec's
        return
    boxes = np.array(row["boxes"]).reshape(-1, 4)
    assert np.isfinite(boxes).all() and len(boxes) == len(row["categories"]) == len(objects["bbox"] or ())
    assert len(Qwen2VLBoxes().decode(row["answer"], SIZE)) == len(boxes)
    assert (np.abs(boxes / [*SIZE, *SIZE] - 0.5) <= 0.511).all()


# --- numbers and short answers

NUMERIC = ["12", "1.5 cm", "<5mm", "5-10mm", ">20", "none", "0", "yes", "no", "pink; red", "+3", "less than 5 mm"]
SIGNS = [".", "-", "<", "≤", "mm", "cm", ";", ",", " and ", "/", "e9", "9" * 400, "٣", "²", "nan", "inf", "%", "\0"]


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(TYPES), edited(NUMERIC, SIGNS), edited(NUMERIC, SIGNS))
def test_two_edited_answers_are_compared_whatever_they_say(kind, said, true):
    assert is_right(said, true, kind) in (True, False) and is_right(true, true, kind)
    classes = canonical_text(said, kind), canonical_text(true, kind)
    assert all(isinstance(name, str) for name in classes)
    shared = jaccard(said, true, kind)
    assert shared is None or 0 <= shared <= 1 and (shared == 1) == (classes[0] == classes[1])


# --- question types

QUESTIONS = ["Is there a polyp?", "What color is it?", "How many tools are there?", "Check all that are present."]
pair = st.tuples(st.none() | edited(QUESTIONS, SIGNS), st.none() | edited(NUMERIC, SIGNS))


@settings(deadline=None, max_examples=100)
@given(st.lists(pair, max_size=20))
def test_questions_and_answers_of_any_kind_have_types_that_survive_being_saved(tmp_path_factory, pairs):
    types = QuestionTypes.infer([question for question, _ in pairs], [answer for _, answer in pairs])
    for kind in types.by_question.values():
        assert kind.name in TYPES and all(isinstance(choice, str) and choice for choice in kind.choices)
        assert len(set(kind.choices)) == len(kind.choices)
    if not any("\ud800" <= sign <= "\udfff" for texts in pairs for text in texts for sign in text or ""):
        file = tmp_path_factory.mktemp("types") / "types.json"
        file.write_text(types.as_json(), encoding="utf-8")
        assert QuestionTypes.load(file).by_question == types.by_question
    texts = [(question, answer) for question, answer in pairs if question is not None and answer is not None]
    assert isinstance(describe_types([question for question, _ in texts], [answer for _, answer in texts]), str)


# --- polygons and masks

ANNOTATION = {
    "text": ["the bowl", "what holds muesli?"],
    "is_sentence": True,
    "shapes": [
        {"label": "target", "points": [[1, 2], [30, 2.5], [30, 25]]},
        {"label": "ignore", "points": [[5, 5], [9, 5], [9, 9], [5, 9]]},
        {"label": "flag", "points": []},
    ],
}
point = st.lists(number, min_size=2, max_size=2)
shape = st.fixed_dictionaries(
    {"label": st.sampled_from(["target", "ignore", "flag"]), "points": st.lists(point, max_size=5)}
)
near = st.tuples(st.floats(-1, 41), st.floats(-1, 31)).map(list)
good_shape = st.fixed_dictionaries(
    {"label": st.sampled_from(["target", "ignore"]), "points": st.lists(near, min_size=3, max_size=6)}
)


def is_mask(mask: np.ndarray) -> bool:
    return mask.shape == (SIZE[1], SIZE[0]) and mask.dtype == np.uint8 and np.isin(mask, (0, 1, 255)).all()


@settings(deadline=None, max_examples=200)
@given(st.lists(shape | good_shape | any_value, max_size=3))
def test_shapes_of_any_kind_are_refused_or_become_a_mask(shapes):
    try:
        assert is_mask(polygon_mask(shapes, SIZE))
    except BadRow:
        assert shapes != []


@settings(deadline=None, max_examples=100)
@given(st.lists(good_shape, max_size=3))
def test_polygons_near_the_image_are_never_refused(shapes):
    assert is_mask(polygon_mask(shapes, SIZE))


@settings(deadline=None, max_examples=200)
@given(
    edited([json.dumps(ANNOTATION)], JSON).map(as_bytes)
    | st.fixed_dictionaries({}, optional={key: any_value for key in (*ANNOTATION, "kind")}).map(
        lambda changed: json.dumps(ANNOTATION | changed).encode()
    )
    | st.binary()
)
def test_an_annotation_of_any_kind_is_refused_or_becomes_queries_with_a_mask_of_the_image_s_size(annotation):
    try:
        parsed = parse_annotation(annotation)
        row = {"id": "r", "annotation": annotation, "image_size": SIZE, "image": {"bytes": b"x", "path": None}}
        row = reasonseg.to_row(row)
    except BadRow:
        return
    texts = [parsed["text"]] if isinstance(parsed["text"], str) else parsed["text"]
    assert [query["question"] for query in row["queries"]] == [text.strip() for text in texts] != []
    for query in row["queries"]:
        assert decode(query["masks"][0]).shape == (SIZE[1], SIZE[0]) and isinstance(query["kind"], str)


MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16"]


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(MODES), st.integers(0, 2**32 - 1), st.booleans())
def test_a_mask_in_any_mode_is_0_where_the_picture_is_black(mode, seed, whole):
    drawn = np.random.default_rng(seed).integers(0, 2, SIZE[::-1]) * 200
    image = Image.fromarray(drawn.astype(np.uint8)) if mode != "I;16" else Image.fromarray(drawn.astype(np.uint16))
    image = image if mode in ("L", "I;16") else image.convert(mode, dither=Image.Dither.NONE)
    mask = picture_mask(image if whole else np.array(drawn).tolist(), SIZE)
    assert is_mask(mask)
    if mode not in ("YCbCr", "P"):  # whose black is no 0
        assert np.array_equal(mask > 0, drawn > 0)


# --- SSG-VQA and REAL-Colon-VQA

LINES = [
    "What is the hook doing?|dissect",
    "What anatomy is at the mid of the frame ?|liver|[4.0, 8.5]",
    "Is there a red tool?|False|one_hop.json|exist|relate_spatial",
]
FIELDS = [
    "|",
    "[",
    "]",
    ",",
    "nan",
    "1e999",
    "-",
    "\ufffd",
    "\r",
    "\x85",
    "\u2028",
    "zero_hop.json",
    "count",
    "NA",
    "9" * 99,
]


@settings(deadline=None, max_examples=300)
@given(edited(LINES, FIELDS))
def test_an_edited_line_of_ssg_vqa_is_refused_in_one_line_or_read_whole(line):
    try:
        row = read_line(line)
    except BadRow as error:
        assert str(error).isprintable()
        return
    assert row["question"] and row["answer"] and (row["point"] is None or np.isfinite(row["point"]).all())
    assert (row["kind"] == "untyped") == (row["hops"] == "untyped") == (line.count("|") < 4)
    assert row["kind"] in (*KINDS, "untyped") and f"{row['hops']}.json" in (*HOPS, "untyped.json")


@settings(deadline=None, max_examples=50)
@given(st.lists(edited(LINES, FIELDS).map(as_bytes) | st.binary(max_size=20), min_size=3, max_size=6))
def test_a_file_of_ssg_vqa_has_a_row_for_each_line_but_its_headers_whatever_its_bytes(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("ssg") / "VID01"
    folder.mkdir()
    (folder / "7.txt").write_bytes(b"\n".join(lines))
    told = [line for line in b"\n".join(lines).split(b"\n") if line.decode(errors="replace").strip()]
    told = [
        line
        for i, line in enumerate(told)
        if i > 1 or line.split(b"|")[0].strip().decode(errors="replace") not in LISTS
    ]
    if not told:
        with pytest.raises(DataError):
            load_question_folder(folder.parent, folder, ["VID01"])
        return
    rows = load_question_folder(folder.parent, folder, ["VID01"])
    assert rows["line"] == [line.decode(errors="replace") for line in told]
    assert len(set(rows["id"])) == len(rows)


COLON = {"id": "a", "video_id": "c", "frames": ["c_1", "c_2"], "question": "Is it?", "question_type": "k"}
COLON |= {"answer": "No.", "short_answer": "no"}
path = st.sampled_from(["../x", "/etc/passwd", "..", ".", "a/../../x", "\0", "c_1", "x" * 300, ""]) | any_text
colon_line = (
    edited([json.dumps(COLON)], JSON).map(as_bytes)
    | st.fixed_dictionaries(
        {}, optional={key: any_value for key in COLON} | {"frames": st.lists(path, max_size=3)}
    ).map(lambda changed: json.dumps(COLON | changed).encode())
    | any_value.map(lambda value: json.dumps(value).encode())
)


@settings(deadline=None, max_examples=100)
@given(st.lists(colon_line, max_size=4))
def test_each_line_of_real_colon_vqa_is_a_row_that_is_refused_or_lies_in_its_folder(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("colon")
    (folder / "rows.jsonl").write_bytes(b"\n".join(lines))
    rows = load_real_colon(folder / "rows.jsonl", folder / "frames")
    assert len(rows) == len([line for line in b"\n".join(lines).split(b"\n") if line.strip()])
    for row in rows:
        assert all(Path(frame).is_relative_to((folder / "frames").resolve()) for frame in row["frames"])
        if row[PROBLEM]:
            assert not row["frames"] and row["image"] is None
            continue
        try:
            query = read_real_colon(row)
        except BadRow as error:
            assert str(error)
            continue
        assert row["frames"] and row["image"]["path"] == row["frames"][-1]
        assert all(isinstance(text, str) for text in query.values()) and query["question"] and query["answer"]


# --- VQA-RAD

SCAN = dict.fromkeys(TEXTS, "yes") | {"qid": 7, "image_name": "a.jpg", "answer_type": "CLOSED ", "phrase_type": "para"}
scan = st.fixed_dictionaries({}, optional={key: any_value for key in SCAN} | {"image_name": path})
scans = st.lists(scan.map(lambda changed: SCAN | changed) | any_value, max_size=4).map(lambda rows: [SCAN, *rows])


@settings(deadline=None, max_examples=150)
@given(scans.map(json.dumps).map(as_bytes) | edited([json.dumps([SCAN] * 2)], JSON).map(as_bytes) | st.binary())
def test_each_question_of_vqa_rad_is_refused_or_a_row_and_a_broken_file_is_named(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("rad")
    (folder / "questions.json").write_bytes(content)
    try:
        rows = load_question_file(folder / "questions.json", folder / "images")
    except DataError as error:
        assert "questions.json" in str(error)
        return
    assert len(rows) == len(json.loads(content)) and all(rows["qid"])
    for row in rows:
        image = row["image"]
        assert image is None or Path(image["path"]).is_relative_to((folder / "images").resolve())
        try:
            row = vqa_rad.to_row(row | {"image_size": SIZE, "image": {"bytes": b"x", "path": None}}, exemplar=True)
        except BadRow as error:
            assert str(error)
            continue
        assert row["question"].strip() and row["answer"].strip() and row["question"] in row["prompt"]
        assert isinstance(row["closed"], bool) and as_utf8(row)


def as_utf8(row: dict) -> bool:
    return all(text.encode() is not None for text in row.values() if isinstance(text, str))


# --- what is said about them


@settings(deadline=None, max_examples=100)
@given(
    st.lists(edited([json.dumps(ANNOTATION)], [*JSON, "\ufeff"]).map(as_bytes) | st.binary(max_size=20), max_size=4)
)
@example([b"{}", MARK + b"{}"])
@example([MARK])
def test_lines_of_metadata_pass_or_are_refused_with_their_file_and_number(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("metadata")
    (folder / "metadata.jsonl").write_bytes(b"\n".join(lines))
    try:
        check_lines(folder)
    except ValueError as error:
        assert "metadata.jsonl, line " in str(error)
        return
    for number, line in enumerate(b"\n".join(lines).split(b"\n")):
        assert not line.strip() or isinstance(json.loads(line), dict)
        assert number == 0 or not line.startswith(MARK)  # which `datasets` cannot read there


@given(st.text(st.characters(), max_size=700))
def test_a_reason_is_one_printable_line_of_bounded_length(text):
    assert one_line(text).isprintable() and len(one_line(text)) <= 10 * LONGEST_REASON
    assert one_line(text) == text or not text.isprintable() or len(text) > LONGEST_REASON
