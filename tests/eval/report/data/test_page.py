"""The data page's numbers are those of pandas, torchvision and numpy; what rows say is shown and not obeyed."""

import base64
import io
import re
import time

import numpy as np
import pandas
import pytest
import torch
from datasets import Dataset, Image
from PIL import Image as PILImage
from torchvision.ops import box_area

from tests.eval.report.test_report import HOSTILE, Page, chromium, report
from vlm_recipes.eval.drawn_row import draw_row
from vlm_recipes.eval.metrics.masks import encode
from vlm_recipes.eval.report.check import Check
from vlm_recipes.eval.report.data.page import Example, write_data_page
from vlm_recipes.eval.report.data.summary import summarize_part
from vlm_recipes.eval.report.data.tables import Bar, answer_table, overview, type_table

TRAIN = [
    {"image_id": "a", "image_size": [640, 480], "question": "polyp?", "answer": "yes", "question_type": "yes_no"},
    {"image_id": "a", "image_size": [640, 480], "question": "colour?", "answer": "red", "question_type": "color"},
    {"image_id": "a", "image_size": [640, 480], "question": "text?", "answer": "yes", "question_type": "yes_no"},
    {"image_id": "b", "image_size": [100, 400], "question": "polyp?", "answer": "no", "question_type": "yes_no"},
    {"image_id": "c", "image_size": [300, 300], "question": "colour?", "answer": "red", "question_type": "color"},
    {"image_id": "c", "image_size": [300, 300], "question": "text?", "answer": "no", "question_type": "yes_no"},
]
TEST = [
    {"image_id": "c", "image_size": [300, 300], "question": "polyp?", "answer": "no", "question_type": "yes_no"},
    {"image_id": "d", "image_size": [320, 200], "question": "colour?", "answer": "green", "question_type": "color"},
    {"image_id": "d", "image_size": [320, 200], "question": "polyp?", "answer": "no", "question_type": "yes_no"},
]
PARTS = {"train": TRAIN, "test": TEST}


def page(tmp_path, **inputs) -> Page:
    return Page(write_data_page(tmp_path, **{"title": "A run", "parts": PARTS} | inputs))


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> Page:
    return page(tmp_path_factory.mktemp("run"))


def cells(page: Page, name: str) -> list:
    [row] = [row[1:] for row in page.rows if row[0] == name]
    return [cell for cell in row if cell != ""]


def mask_rows(*masks: np.ndarray) -> list[dict]:
    return [{"image_size": list(mask.shape[::-1]), "masks": [encode(mask)]} for mask in masks]


def test_the_first_table_says_what_pandas_says_of_the_rows(shown):
    frames = [pandas.DataFrame(rows) for rows in (TRAIN, TEST)]
    assert cells(shown, "rows") == [len(frame) for frame in frames] == [6, 3]
    assert cells(shown, "images") == [frame["image_id"].nunique() for frame in frames] == [3, 2]
    per_image = [frame["image_id"].value_counts() for frame in frames]
    assert cells(shown, "questions per image, median") == [counts.median() for counts in per_image] == [2, 1.5]
    assert cells(shown, "questions per image, most") == [counts.max() for counts in per_image]
    assert cells(shown, "images also in train") == ["–", 1]
    assert cells(shown, "different answers") == [frame["answer"].nunique() for frame in frames] == [3, 2]
    assert cells(shown, "smallest image, pixels") == ["100×400", "320×200"]
    assert cells(shown, "median width and height") == ["300×400", "310×250"]
    assert cells(shown, "largest image, pixels") == ["640×480", "300×300"]
    assert not [row for row in shown.rows if "box" in row[0] or "mask" in row[0]]


def test_a_dataset_s_rows_count_as_those_of_a_list_do():
    [listed, read] = [summarize_part("train", kind(TRAIN)) for kind in (list, Dataset.from_list)]
    assert listed.questions == read.questions and listed.sizes.tolist() == read.sizes.tolist()
    assert listed.answers_of == read.answers_of and listed.types == read.types


def test_answers_and_types_are_counted_as_pandas_counts_them(shown):
    train, test = pandas.DataFrame(TRAIN), pandas.DataFrame(TEST)
    for answer in ("yes", "red", "no", "green"):
        assert shown.numbers(answer) == [[sum(frame["answer"] == answer) for frame in (train, test)]]
    assert shown.numbers("yes_no") == [[4, 2, 2]] and shown.numbers("color") == [[2, 1, 2]]
    both = pandas.concat([train, test]).groupby("question_type")["answer"].value_counts(normalize=True)
    assert "red 66.7%" in shown.text and round(both["color"]["red"], 3) == 0.667
    assert "no 66.7%" in shown.text and round(both["yes_no"]["no"], 3) == 0.667
    lengths = re.findall(r"--share:([\d.]+)%", shown.source.split("Most frequent answers")[1])
    assert lengths[:2] == ["33.33", "66.67"]  # "no" is 2 of 6 and 2 of 3
    ranked = [row[0] for row in shown.rows[-4:]]
    assert ranked[0] == "no" and set(ranked) == {"yes", "red", "no", "green"}


def test_an_answer_that_only_one_part_has_is_among_the_most_frequent():
    train = summarize_part("train", [{"answer": f"answer {i % 30}"} for i in range(300)])
    table = answer_table([train, summarize_part("test", [{"answer": "never in training"}])])
    assert len(table) == 15 and table[0][0] == "never in training"
    assert [(bar.n, bar.share) for bar in table[0][1]] == [(0, 0), (1, 1)]


def test_answers_of_rows_with_boxes_or_masks_are_not_counted(tmp_path):
    rows = [{"image_size": [10, 10], "boxes": [[0, 0, 5, 5]], "answer": "<|box_start|>(0,0),(500,500)<|box_end|>"}]
    assert answer_table([summarize_part("train", rows)]) == []
    rows = [row | {"answer": "It is [SEG].", "kind": "long"} for row in mask_rows(np.eye(4, dtype=bool))]
    part = summarize_part("train", rows)
    assert answer_table([part]) == [] and [row[:2] for row in type_table([part])] == [("long", [Bar(1, 1)])]
    assert "It is [SEG]." not in page(tmp_path, parts={"train": rows}).text


def test_areas_of_boxes_are_torchvision_s_as_shares_of_their_images():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(50, 2, 2, generator=generator).sort(dim=1).values.reshape(50, 4) * 90
    rows = [{"image_size": [200, 90 + i], "boxes": corners[2 * i : 2 * i + 2].tolist()} for i in range(25)]
    part = summarize_part("train", rows)
    expected = box_area(corners) / torch.tensor([200.0 * (90 + i // 2) for i in range(50)])
    np.testing.assert_allclose(part.areas, expected, rtol=1e-5)
    expected = expected.numpy()
    for name, of in (("smallest", np.min), ("median", np.median), ("largest", np.max)):
        assert dict(overview([part]))[f"{name} box, share of its image"] == [pytest.approx(of(expected), rel=1e-5)]


def test_masks_are_measured_by_their_pixels():
    right, low = np.zeros((128, 256), dtype=bool), np.zeros((64, 64), dtype=bool)
    right[:, 128:], low[48:] = True, True
    part = summarize_part("train", mask_rows(right, low))
    assert part.areas.tolist() == [right.mean(), low.mean()] == [0.5, 0.25]
    assert dict(overview([part]))["masks"] == [2] and dict(overview([part]))["median mask, share of its image"] == [
        0.375
    ]


def test_the_preflight_s_checks_stand_first_those_that_passed_folded(tmp_path):
    checks = [Check("coordinates", "pass", "all inside"), Check("images kept apart", "warn", "1 of 2 images of test")]
    shown = page(tmp_path, checks=checks)
    assert "! images kept apart 1 of 2 images of test" in shown.text and "✓ 1 of 2 checks passed" in shown.text
    assert shown.source.index("1 of 2 images") < shown.source.index("<details") < shown.source.index("all inside")
    assert (
        shown.source.index("all inside") < shown.source.index("<table") and "checks passed" not in page(tmp_path).text
    )


ODD_ROWS = {
    "nothing": [],
    "an id": [{"id": "alone"}],
    "none": [{"image_id": None, "image_size": None, "boxes": None, "masks": None, "answer": None, "kind": None}],
    "no picture": [{"image_size": [0, 0], "boxes": [[0, 0, 1, 1]], "question": "?"}, {"image_size": [9, 7]}],
    "no number": [{"image_size": [9, 7], "boxes": []}, {"image_size": [9, 7], "boxes": [[float("nan"), 0, 1, 1]]}],
    "a box": [{"image_size": [9, 7], "boxes": [[0, 0, 1, 1]]}],
    "slivers": [{"image_size": [1, 100_000], "masks": []}, {"image_size": [10_000, 1], "kind": "exist"}],
}


@pytest.mark.parametrize("names", [["nothing"], ["a box"], [*ODD_ROWS]])
@pytest.mark.filterwarnings("error")
def test_rows_may_lack_anything(tmp_path, names):
    parts = {name: ODD_ROWS[name] for name in names} | {"again": Dataset.from_list(ODD_ROWS[names[-1]])}
    shown = page(tmp_path, parts=parts, examples=[Example("x", [])])
    assert cells(shown, "rows") == [len(rows) for rows in parts.values()]


def test_no_image_is_decoded():
    columns = {"image": [{"bytes": b"no image", "path": None}], "image_size": [[40, 30]]}
    rows = Dataset.from_dict(columns).cast_column("image", Image())
    with pytest.raises(OSError):
        rows[0]
    assert summarize_part("train", rows).sizes.tolist() == [[40, 30]]


def test_fifty_thousand_rows_take_a_few_seconds(tmp_path):
    rng, n = np.random.default_rng(0), 50_000
    columns = {
        "id": [str(i) for i in range(n)],
        "image_id": [f"image {i // 5}" for i in range(n)],
        "image_size": rng.integers(200, 2000, (n, 2)).tolist(),
        "boxes": (rng.uniform(0, 100, (n, 3, 2)).repeat(2, axis=2) + [0, 0, 50, 60]).tolist(),
        "question_type": [f"type {i % 9}" for i in range(n)],
        "question": [f"question {i % 70}" for i in range(n)],
        "answer": [f"answer {i % 900}" for i in range(n)],
    }
    rows = Dataset.from_dict(columns)
    start = time.process_time()
    large = page(tmp_path, parts={"train": rows})
    assert time.process_time() - start < 10
    assert cells(large, "boxes") == [3 * n]


def test_hostile_text_anywhere_is_escaped_and_hidden_characters_are_spelled_out(tmp_path):
    evil = HOSTILE + "\u202e\u2067\x00\ud800"
    rows = [{"image_id": evil, "image_size": [9, 9], "question": evil, "answer": evil, "kind": evil}] * 2
    example = Example(evil, [PILImage.new("RGB", (5, 5))], evil, evil, PILImage.new("RGB", (9, 9)))
    parts = {evil: rows, "two": [*rows, {**rows[0], "answer": f"{evil}!"}]}
    checks = [Check(evil, status, evil) for status in ("pass", "stop")]
    shown = page(tmp_path, title=evil, parts=parts, examples=[example], checks=checks)
    assert "script" not in {tag for tag, _ in shown.tags}
    assert not [name for _, attributes in shown.tags for name in attributes if name.startswith("on")]
    assert "{{ 7 * 7 }}\\u202e\\u2067\\u0000\\ud800" in shown.text and shown.text.count("<script>") >= 15
    assert not re.search("[\u202a-\u202e\u2066-\u2069\ud800\x00]", shown.source)


def test_the_page_needs_nothing_but_itself_and_links_to_the_report(tmp_path):
    shown = page(tmp_path, examples=[Example("a", [PILImage.new("RGB", (500, 400), "navy")], "what?", "that")])
    assert [address for address in shown.addresses if not address.startswith("data:")] == []
    policies = [meta["content"] for _, meta in shown.tags if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert not [meta for _, meta in shown.tags if meta.get("http-equiv") == "refresh"]
    assert [path.name for path in tmp_path.iterdir()] == ["data.html"]


def test_the_report_links_to_the_page_where_there_is_one(tmp_path):
    assert "data.html" not in report(tmp_path).addresses
    page(tmp_path)
    assert "data.html" in report(tmp_path).addresses


def test_twelve_examples_are_shown_small_ones_pixel_by_pixel(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    examples = [Example(f"row {i}", [PILImage.fromarray(pixels)], "", "it is") for i in range(15)]
    shown = page(tmp_path, examples=[*examples[:11], Example("big", [PILImage.new("RGB", (2000, 900))]), *examples])
    assert "12 of 27, after resizing" in shown.text and shown.text.count("96×64") == 11
    pictures = [attributes["src"] for tag, attributes in shown.tags if tag == "img"][:12]
    decoded = [PILImage.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) for source in pictures]
    assert np.array_equal(np.asarray(decoded[0]), pixels) and decoded[11].size == (480, 216)
    assert "2000×900" in shown.text  # as the model sees it, however small it is shown


def test_what_is_true_stands_on_the_row_s_own_picture_beside_what_the_model_sees(tmp_path):
    seen, row = PILImage.new("RGB", (56, 28)), {"image": PILImage.new("RGB", (400, 200)), "boxes": [[40, 50, 360, 90]]}
    examples = [Example("a", [seen], "where?", "there", draw_row(row)), Example("b", [seen], "why?", "so")]
    shown = page(tmp_path, examples=examples)
    pictures = [attributes for tag, attributes in shown.tags if tag == "img"]
    assert [attributes["alt"] for attributes in pictures] == ["row a, what is true in green", "row a", "row b"]
    own, as_seen, _ = (
        PILImage.open(io.BytesIO(base64.b64decode(attributes["src"].split(",")[1]))) for attributes in pictures
    )
    assert as_seen.size == (56, 28) and np.asarray(as_seen).max() == 0
    pixels = np.asarray(own).astype(int)
    green = pixels[..., 1] - pixels[..., 0] > 80  # a JPEG's green is not quite the same
    rows, columns = np.nonzero(green)
    found = [columns.min(), rows.min(), columns.max(), rows.max()]
    assert own.size == (400, 200) and np.abs(np.subtract(found, [40, 50, 360, 90])).max() <= 1
    assert not green[60:80, 60:340].any()
    assert "what is true in green" in shown.text and 'class="rows seen drawn"' in shown.source
    plain = page(tmp_path, examples=examples[1:])
    assert "true in green" not in plain.text and 'class="rows seen"' in plain.source


def test_chromium_renders_the_page_and_runs_none_of_its_text(tmp_path):
    rows = [{**row, "answer": HOSTILE, "kind": HOSTILE} for row in TRAIN]
    picture = PILImage.new("RGB", (40, 40), "navy")
    example = Example(HOSTILE, [picture], HOSTILE, HOSTILE, picture)
    path = write_data_page(tmp_path / "run", title="A run", parts={HOSTILE: rows}, examples=[example])
    dom = chromium(path, tmp_path / "profile", "--dump-dom")
    assert "<title>A run: the data</title>" in dom and dom.count("&lt;script&gt;") >= 4 and "<script" not in dom


def test_of_rows_with_several_pictures_each_picture_counts_once():
    rows = [
        {"image_id": "a b", "image_ids": ["a", "b"], "image_sizes": [[10, 20], [30, 40]]},
        {"image_id": "b", "image_ids": ["b"], "image_sizes": [[30, 40]]},
        {"image_id": "none", "image_ids": [], "image_sizes": []},
    ]
    for given in (rows, Dataset.from_list(rows)):
        part = summarize_part("train", given)
        assert part.questions == {"a": 1, "b": 2} and part.sizes.tolist() == [[10, 20], [30, 40]] and part.n == 3
