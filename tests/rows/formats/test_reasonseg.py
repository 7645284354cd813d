"""Annotations as people draw them: which pixels become the mask, and what is refused by name."""

import io
import json
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pycocotools import mask as coco

from recipes import reasonseg
from tests.support.paths import DATA, written_and_real
from vlm_recipes.eval.metrics.masks import decode
from vlm_recipes.rows.errors import BadRow, DataError
from vlm_recipes.rows.formats.reasonseg import parse_annotation, picture_mask, polygon_mask, read_masks, recognises
from vlm_recipes.rows.grouping import one_per_query
from vlm_recipes.rows.usable import usable_rows

WRITTEN = "reasonseg/val/written_kitchen.json"
REAL = "reasonseg/val/2759322646_230f21cac0_o.json"


def polygon(label: str, *points: tuple[float, float]) -> dict:
    return {"label": label, "points": [list(point) for point in points]}


def square(label: str, x: int, y: int, side: int) -> dict:
    last = side - 1
    return polygon(label, (x, y), (x + last, y), (x + last, y + last), (x, y + last))


def filled(points: list, size: list[int]) -> np.ndarray:
    """A polygon's pixels: those from which a ray crosses it an odd number of times, and its outline."""
    whole = np.array(points).astype(np.int32).tolist()
    inside, columns = np.zeros(size[::-1], dtype=bool), np.arange(size[0])
    for (x0, y0), (x1, y1) in zip(whole, whole[1:] + whole[:1], strict=True):
        if y0 != y1:
            rows = np.arange(min(y0, y1), max(y0, y1))
            crossing = x0 + (rows - y0) * (x1 - x0) / (y1 - y0)
            inside[rows] ^= columns < crossing[:, None]
    canvas = Image.new("1", tuple(size))
    ImageDraw.Draw(canvas).line([tuple(point) for point in [*whole, whole[0]]], fill=1)
    return inside | np.array(canvas)


def smallest_wins(layers: list[tuple[np.ndarray, int]], size: list[int]) -> np.ndarray:
    """Largest first is the same as: a pixel has the value of the smallest layer that covers it."""
    mask, area = np.zeros(size[::-1], dtype=np.uint8), np.full(size[::-1], np.inf)
    for layer, value in layers:
        nearer = layer & (layer.sum() < area)
        mask[nearer], area[nearer] = value, layer.sum()
    return mask


def distance_to_outline(pixels: np.ndarray, points: np.ndarray) -> np.ndarray:
    """How far each pixel's middle `[n, 2]` is from the closed line through `points`."""
    start, end = points, np.roll(points, -1, axis=0)
    along = end - start
    length = np.maximum((along**2).sum(1), 1e-9)
    share = (((pixels[:, None] - start) * along).sum(-1) / length).clip(0, 1)
    return np.linalg.norm(pixels[:, None] - (start + share[..., None] * along), axis=-1).min(1)


# --- polygons


@dataclass
class Annotated:
    file: Path
    canvas: list[int]  # width and height of the image, which is not beside it

    def __post_init__(self):
        self.shapes = parse_annotation(self.file.read_bytes())["shapes"]
        self.mask = polygon_mask(self.shapes, self.canvas)


@pytest.fixture(scope="module", params=written_and_real(WRITTEN, real_name=REAL))
def annotated(request) -> Annotated:
    return Annotated(request.param, [1600, 1200] if request.param.name in WRITTEN else [4000, 3000])


def test_an_annotation_becomes_the_mask_that_lisas_rules_give(annotated):
    shapes, canvas = annotated.shapes, annotated.canvas
    assert sorted(shape["label"] for shape in shapes) == ["flag", "ignore", "target", "target"]
    counted = [(filled(s["points"], canvas), 255 if s["label"] == "ignore" else 1) for s in shapes[:3]]
    assert annotated.mask.shape == (canvas[1], canvas[0]) and annotated.mask.dtype == np.uint8
    assert np.array_equal(annotated.mask, smallest_wins(counted, canvas))


@pytest.mark.parametrize("annotated", written_and_real(WRITTEN, real_name=REAL)[1:], indirect=True)
def test_the_real_mask_has_the_area_that_lisas_own_calls_give_it(annotated):
    """Counted with OpenCV 5.0's polylines and fillPoly, whose lines are a pixel off here and there."""
    assert abs((annotated.mask == 1).sum() - 565_528) <= 60 and abs((annotated.mask == 255).sum() - 1_673_823) <= 60


def test_an_annotation_is_pycocotools_mask_up_to_the_outline(annotated):
    shapes, layers = annotated.shapes, []
    for shape in shapes[:3]:
        runs = coco.frPyObjects([np.ravel(shape["points"]).tolist()], *annotated.canvas[::-1])[0]
        layers.append((coco.decode(runs).astype(bool), 255 if shape["label"] == "ignore" else 1))
    other = annotated.mask != smallest_wins(layers, annotated.canvas)
    assert 0 < other.sum() < 0.01 * (annotated.mask > 0).sum()
    middles = np.argwhere(other)[:, ::-1] + 0.5
    distances = [distance_to_outline(middles, np.array(shape["points"])) for shape in shapes[:3]]
    assert np.min(distances, axis=0).max() <= 1.5


def test_the_same_annotation_in_cp1252_is_read_alike():
    in_utf8, in_cp1252 = (DATA / WRITTEN).read_bytes(), (DATA / WRITTEN.replace(".json", "_cp1252.json")).read_bytes()
    with pytest.raises(UnicodeDecodeError):
        in_cp1252.decode()
    assert parse_annotation(in_cp1252) == parse_annotation(in_utf8)
    assert "you’re off to the café" in parse_annotation(in_cp1252)["text"][-1]


def test_a_polygon_covers_its_inside_and_its_outline():
    mask = polygon_mask([square("target", 2, 1, 4)], [10, 8])
    expected = np.zeros((8, 10))
    expected[1:5, 2:6] = 1
    assert np.array_equal(mask, expected)


BY_OPENCV = {  # what LISA's polylines and fillPoly, of OpenCV 5.0, draw
    ((1, 1), (22, 4), (3, 7)): """
........................
.####...................
.###########............
..#################.....
..#####################.
..#################.....
...##########...........
...####.................
........................
""",
    ((2, 2), (12, 2), (12, 8), (7, 4), (2, 8)): """
........................
........................
..###########...........
..###########...........
..###########...........
..#####.#####...........
..####...####...........
..##.......##...........
..#.........#...........
""",
}


@pytest.mark.parametrize("points", BY_OPENCV, ids=["thin", "notched"])
def test_a_polygon_is_drawn_as_lisas_own_calls_draw_it(points):
    mask = polygon_mask([polygon("target", *points)], [24, 9])
    assert ["".join(".#"[value] for value in row) for row in mask] == BY_OPENCV[points].split()


def test_what_is_to_be_ignored_becomes_255_however_the_label_says_so():
    shapes = [square("target", 0, 0, 3), square("ignore", 4, 0, 3), square("Ignored (blurred)", 8, 0, 3)]
    mask = polygon_mask(shapes, [12, 3])
    assert mask[0].tolist() == [1, 1, 1, 0, 255, 255, 255, 0, 255, 255, 255, 0]


def test_a_flag_is_skipped_even_with_two_points_or_outside_of_the_image():
    flags = [polygon("flag", (1, 1), (5, 5)), square("Flag", 0, 0, 6), square("FLAG", 90, 90, 4)]
    shapes = [square("target", 2, 2, 2)]
    assert np.array_equal(polygon_mask(shapes + flags, [8, 8]), polygon_mask(shapes, [8, 8]))


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_smaller_polygon_is_seen_on_a_larger_one_whatever_their_order(order):
    shapes = [square("target", 0, 0, 9), square("ignore", 2, 2, 5), polygon("target", *[(4, 4)] * 3)]
    mask = polygon_mask([shapes[i] for i in order], [9, 9])
    assert [mask[i, i] for i in range(9)] == [1, 1, 255, 255, 1, 255, 255, 1, 1]
    assert (mask == 255).sum() == 24


points = st.tuples(st.integers(0, 29), st.integers(0, 19))
drawn = st.tuples(st.sampled_from(["target", "ignore"]), st.lists(points, min_size=3, max_size=5))


@settings(deadline=None, max_examples=60)
@given(st.lists(drawn, max_size=5).flatmap(lambda shapes: st.tuples(st.just(shapes), st.permutations(shapes))))
def test_the_mask_does_not_depend_on_the_order_of_polygons_of_different_size(both):
    shapes, shuffled = ([polygon(label, *points) for label, points in order] for order in both)
    alone = [polygon_mask([polygon("target", *s["points"])], [30, 20]) == 1 for s in shapes]
    layers = [(layer, 255 if s["label"] == "ignore" else 1) for s, layer in zip(shapes, alone, strict=True)]
    areas = [int(layer.sum()) for layer, _ in layers]
    assume(len(set(areas)) == len(areas))
    mask = polygon_mask(shapes, [30, 20])
    assert np.array_equal(mask, polygon_mask(shuffled, [30, 20]))
    assert np.array_equal(mask, smallest_wins(layers, [30, 20]))


inside = st.tuples(st.floats(-0.99, 30.99), st.floats(-0.99, 20.99))


@settings(deadline=None, max_examples=60)
@given(st.lists(inside, min_size=3, max_size=6))
def test_points_are_cut_to_whole_pixels_as_numpy_does(points):
    whole = np.array(points).astype(np.int32)
    assert np.array_equal(
        polygon_mask([polygon("target", *points)], [30, 20]), polygon_mask([polygon("target", *whole)], [30, 20])
    )


def test_without_polygons_nothing_is_the_target():
    assert np.array_equal(polygon_mask([], [5, 3]), np.zeros((3, 5)))


@pytest.mark.parametrize("point", [(-2, 4), (4, -2), (12, 4), (4, 10), (1e9, 4)])
def test_a_point_outside_of_the_image_is_refused_with_its_place(point):
    assert polygon_mask([polygon("target", (-1, -1), (11, 0), (11, 9), (0, 9))], [10, 8]).all()  # one off is no error
    with pytest.raises(BadRow, match=rf"polygon \(target\) with the point \({int(point[0])}, .* outside .* of 10×8"):
        polygon_mask([polygon("target", (1, 1), (5, 1), point)], [10, 8])


# --- masks as pictures


TRUTH = np.zeros((4, 6), dtype=bool)
TRUTH[1:3, 2:5] = True
WHITE = (TRUTH * 255).astype(np.uint8)
COLOURED = np.zeros((4, 6, 3), dtype=np.uint8)
COLOURED[TRUTH] = (200, 0, 40)


@pytest.mark.parametrize(
    "mask",
    [
        TRUTH.tolist(),
        TRUTH.astype(int).tolist(),
        Image.fromarray(TRUTH),
        Image.fromarray(WHITE),
        Image.fromarray(TRUTH.astype(np.uint8)),
        Image.fromarray(WHITE).convert("RGB"),
        Image.fromarray(COLOURED),
        Image.fromarray(WHITE).convert("RGBA"),
        Image.fromarray(WHITE).convert("LA"),
    ],
    ids=["bools", "numbers", "1", "L 255", "L 1", "RGB white", "RGB coloured", "RGBA opaque", "LA opaque"],
)
def test_a_mask_given_as_a_picture_or_list_is_what_is_not_black(mask):
    found = picture_mask(mask, [6, 4])
    assert found.dtype == np.uint8 and np.array_equal(found, TRUTH)


@pytest.mark.parametrize("kind", ["L", "RGB", "list"])
def test_of_0_1_and_255_the_last_is_what_does_not_count(kind):
    values = np.array([[0, 1, 255], [1, 0, 0]], dtype=np.uint8)
    given = values.tolist() if kind == "list" else Image.fromarray(values).convert(kind)
    assert np.array_equal(picture_mask(given, [3, 2]), values)


def test_the_soft_edge_of_a_grey_mask_does_not_make_its_middle_ignored():
    soft = np.array([[0, 1, 64, 255, 255, 200, 1, 0]], dtype=np.uint8)
    assert np.array_equal(picture_mask(Image.fromarray(soft), [8, 1]), soft > 0)


@pytest.mark.parametrize("mask", [Image.new("L", (5, 4)), Image.new("RGB", (4, 6)), [[True] * 6] * 3])
def test_a_mask_of_another_size_is_refused_with_both_sizes(mask):
    with pytest.raises(BadRow, match=r"mask of \(height, width\) \(., .\) for an image of 6×4"):
        picture_mask(mask, [6, 4])


# --- folders, through the recipe


def picture(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


GOOD = {"text": ["the bowl that holds muesli"], "is_sentence": False, "shapes": [square("target", 5, 5, 9)]}
REFUSED = {  # what is wrong: (annotation, or its bytes; image; what the reason says)
    "two points": (GOOD | {"shapes": [polygon("target", (1, 1), (5, 5))]}, picture(), "polygon (target) of 2 points"),
    "outside": (GOOD | {"shapes": [square("ignore", 30, 5, 15)]}, picture(), "(44, 5) outside the image of 40×30"),
    "no number": (
        b'{"text": ["a"], "shapes": [{"label": "target", "points": [[NaN, 1]]}]}',
        picture(),
        "no list of [x, y]: '[[nan, 1]]",
    ),
    "no text": ({"shapes": GOOD["shapes"]}, picture(), "no text"),
    "no texts": (GOOD | {"text": []}, picture(), "no text"),
    "empty text": (GOOD | {"text": ["where?", "  "]}, picture(), "no text, or an empty one"),
    "a list": ([GOOD], picture(), "its JSON is no object"),
    "no JSON inside": (b'{"text": ["where?"', picture(), "JSON"),
    "an empty JSON": (b"", picture(), "JSON"),
    "neither encoding": (b'{"text": ["\x81\x8d"]}', picture(), "JSON"),
    "image without JSON": (None, picture(), "no JSON of this name beside the image"),
    "JSON without image": (GOOD, None, "image file is missing: JSON without image.jpg"),
    "zero bytes": (GOOD, b"", "image cannot be read: not an image"),
    "half an image": (GOOD, "half", "truncated"),
}


def jpeg(image: Image.Image, orientation: int | None = None) -> bytes:
    buffer, exif = io.BytesIO(), Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    image.save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def write(folder: Path, name: str, annotation: dict | list | bytes | None, image: Image.Image | bytes | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if annotation is not None:
        encoded = annotation if isinstance(annotation, bytes) else json.dumps(annotation).encode()
        (folder / f"{name}.json").write_bytes(encoded)
    if image is not None:
        (folder / f"{name}.jpg").write_bytes(jpeg(image) if isinstance(image, Image.Image) else image)


def checked(folder: Path, output_dir: Path) -> tuple[datasets.Dataset, list[dict]]:
    raw = reasonseg.read(reasonseg.Data(dataset_name=str(folder)), do_train=False)
    assert list(raw) == ["test"]
    (images,), refused = usable_rows(raw, reasonseg.to_row, str(output_dir), max_rejected=1.0)
    return images, refused


@pytest.fixture(scope="module")
def outcome(tmp_path_factory) -> tuple[datasets.Dataset, dict[str, str], list[dict]]:
    """All that is refused in one folder with two good images: what is usable, the reasons, and the written lines."""
    folder, output_dir = tmp_path_factory.mktemp("folder"), tmp_path_factory.mktemp("output")
    write(folder / "test", "a good one", GOOD, picture())
    for name, (annotation, image, _) in REFUSED.items():
        write(folder / "test", name, annotation, jpeg(picture(300, 200))[:5000] if image == "half" else image)
    write(folder / "test", "zz good", GOOD | {"text": ["where?", "and what?"], "is_sentence": True}, picture(seed=1))
    images, refused = checked(folder, output_dir)
    written = (output_dir / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert {row["split"] for row in refused} == {"test"}
    return images, {row["id"]: row["reason"] for row in refused}, [json.loads(line) for line in written]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_with_its_name_and_a_reason(outcome, name):
    assert REFUSED[name][-1] in outcome[1][name]


def test_every_refused_image_is_written_down_and_the_others_are_used(outcome):
    images, reasons, written = outcome
    assert set(reasons) == set(REFUSED)
    assert {row["id"]: row["reason"] for row in written} == reasons and len(written) == len(REFUSED)
    assert images["id"] == ["a good one", "zz good"]
    assert [len(queries) for queries in images["queries"]] == [1, 2]


def test_a_folder_becomes_rows_with_the_mask_the_question_and_its_answer(outcome):
    first, *second = one_per_query(outcome[0])
    assert np.array_equal(decode(first["masks"][0]), polygon_mask(GOOD["shapes"], [40, 30]) == 1)
    assert first["ignore"] is None
    assert first["question"] == "the bowl that holds muesli" and first["kind"] == "short query"
    assert "the bowl that holds muesli" in first["messages"][0]["content"]
    assert first["messages"][1] == {"role": "assistant", "content": first["answer"]}
    assert first["answer"] in reasonseg.ANSWERS
    assert [row["question"] for row in second] == ["where?", "and what?"]
    assert [row["kind"] for row in second] == ["long query"] * 2
    assert [row["first"] for row in [first, *second]] == [True, True, False]
    assert len({row["id"] for row in [first, *second]}) == 3
    assert first["image_id"] != second[0]["image_id"] == second[1]["image_id"]


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-8-sig"])
def test_accents_are_read_right_in_either_encoding(tmp_path, encoding):
    text = "If you’re in a café, where do you sit?"
    annotation = json.dumps(GOOD | {"text": [text]}, ensure_ascii=False).encode(encoding)
    write(tmp_path / "test", "a", annotation, picture())
    images, refused = checked(tmp_path, tmp_path / "out")
    assert not refused and images[0]["queries"][0]["question"] == text
    assert text in images[0]["queries"][0]["messages"][0]["content"]


def test_polygons_are_drawn_on_the_image_as_it_is_displayed(tmp_path):
    write(tmp_path / "test", "a", GOOD | {"shapes": [square("target", 3, 35, 4)]}, jpeg(picture(40, 30), 6))
    images, refused = checked(tmp_path, tmp_path / "out")
    assert not refused and images[0]["image_size"] == [30, 40]
    assert decode(images[0]["queries"][0]["masks"][0])[35:39, 3:7].all()


def test_two_images_of_one_name_are_not_silently_made_one(tmp_path):
    write(tmp_path / "test", "a", GOOD, picture())
    picture(seed=1).save(tmp_path / "test" / "a.png")
    write(tmp_path / "test", "b", GOOD, picture(seed=2))
    images, refused = checked(tmp_path, tmp_path / "out")
    assert "b" in images["id"]
    assert [row["id"] for row in refused] == ["a"]


def test_an_annotation_gives_six_queries_of_one_mask(tmp_path, annotated):
    name = annotated.file.stem
    write(tmp_path / "test", name, annotated.file.read_bytes(), Image.new("RGB", tuple(annotated.canvas)))
    images, refused = checked(tmp_path, tmp_path / "out")
    assert not refused and len(images) == 1
    rows = one_per_query(images)
    texts = json.loads(annotated.file.read_text(encoding="utf-8"))["text"]
    assert len(rows) == 6 and rows["question"] == texts
    assert [row["id"] for row in rows.remove_columns("image")] == [f"{name} {i}" for i in range(6)]
    assert len({row["counts"] for masks in rows["masks"] for row in masks}) == 1
    assert [len(masks) for masks in rows["masks"]] == [1] * 6
    assert np.array_equal(decode(rows[0]["masks"][0]), annotated.mask == 1)
    assert np.array_equal(decode(rows[0]["ignore"]), annotated.mask == 255)
    assert rows["first"] == [True, *[False] * 5]
    assert all(text in chat[0]["content"] for text, chat in zip(texts, rows["messages"], strict=True))


# --- the Hub's format


def hub_folder(folder: Path, masks: list, feature: datasets.features.features.FeatureType | None) -> Path:
    """A dataset with `image`, `text` and `mask`, as `load_dataset` finds it in a folder."""
    rows = {"text": [f"query {i}" for i in range(len(masks))], "mask": masks}
    features = {
        "text": datasets.Value("string"),
        "mask": feature or datasets.List(datasets.List(datasets.Value("bool"))),
    }
    images = [{"bytes": jpeg(picture(6, 4, seed=i)), "path": None} for i in range(len(masks))]
    features = datasets.Features(features | {"image": datasets.Image(), "image_id": datasets.Value("string")})
    names = [f"r{i}" for i in range(len(masks))]
    datasets.Dataset.from_dict(rows | {"image": images, "image_id": names}, features).to_parquet(
        folder / "test.parquet"
    )
    return folder


def test_a_hub_row_whose_mask_has_another_size_is_refused_and_the_others_are_used(tmp_path):
    folder = hub_folder(tmp_path / "data", [TRUTH.tolist(), [[True] * 5] * 4, TRUTH.tolist()], None)
    images, refused = checked(folder, tmp_path / "out")
    assert [(row["id"], row["reason"]) for row in refused] == [
        ("r1", "a mask of (height, width) (4, 5) for an image of 6×4")
    ]
    assert images["id"] == ["r0", "r2"]
    rows = one_per_query(images)
    assert rows["question"] == ["query 0", "query 2"]
    assert all(np.array_equal(decode(masks[0]), TRUTH) for masks in rows["masks"])


def test_a_hub_row_whose_mask_is_no_picture_is_refused_and_the_others_are_used(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(TRUTH).save(buffer, "PNG")
    masks = [{"bytes": data, "path": None} for data in (buffer.getvalue(), b"no picture", buffer.getvalue())]
    images, refused = checked(hub_folder(tmp_path / "data", masks, datasets.Image()), tmp_path / "out")
    assert [row["id"] for row in refused] == ["r1"] and images["id"] == ["r0", "r2"]
    assert np.array_equal(decode(images[1]["queries"][0]["masks"][0]), TRUTH)


def test_a_folder_whose_first_file_is_broken_is_recognised_and_one_of_other_json_is_no_split(tmp_path):
    for split in ("train", "val"):
        write(tmp_path / split, "b", GOOD, picture())
        (tmp_path / split / "a.json").write_text('{"text": ["the')
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    assert recognises(tmp_path)
    (tmp_path / "val" / "b.json").unlink()  # what is called a split is none the less one
    assert {split: rows["id"][:] for split, rows in read_masks(tmp_path).splits.items()} == {
        "train": ["a", "b"],
        "val": ["a", "b"],
    }
    (tmp_path / "train" / "b.json").unlink()
    assert not recognises(tmp_path)


def test_a_folder_without_the_split_to_evaluate_is_an_error_that_names_it(tmp_path):
    write(tmp_path / "train", "a", GOOD, picture())
    with pytest.raises(DataError, match="test"):
        reasonseg.read(reasonseg.Data(dataset_name=str(tmp_path)), do_train=False)


# --- palettes


def as_palette(mask: np.ndarray, how: str) -> Image.Image:
    grey, colours = Image.fromarray(mask), Image.fromarray(mask).convert("RGB")
    file = io.BytesIO()
    if how == "GIF":
        colours.save(file, "gif")
    else:
        picture = {
            "quantized": lambda: grey.quantize(2),
            "adaptive": lambda: colours.convert("P", palette=Image.Palette.ADAPTIVE, colors=2),
            "octree": lambda: colours.quantize(2, method=Image.Quantize.FASTOCTREE),
            "web": lambda: colours.convert("P"),
            "VOC": lambda: voc(mask),
        }[how]()
        picture.save(file, "png")
    return Image.open(file)


def voc(mask: np.ndarray) -> Image.Image:
    """Numbers of classes, of which the palette is for people; colours that nothing has are black."""
    picture = Image.fromarray((mask > 0).astype(np.uint8) * 7, "P")
    picture.putpalette([0, 0, 0, 128, 0, 0])
    return picture


@pytest.mark.parametrize("share", [(5, 20), (2, 46)])
@pytest.mark.parametrize("how", ["quantized", "adaptive", "octree", "web", "VOC", "GIF"])
def test_a_mask_with_a_palette_is_read_right_or_refused_and_never_inside_out(how, share):
    """Which number a colour has is its writer's affair: by numbers alone most of these were read inverted."""
    first, last = share
    mask = np.zeros((48, 64), dtype=np.uint8)
    mask[first:last, first:last] = 255
    try:
        found = picture_mask(as_palette(mask, how), [64, 48])
    except BadRow as refused:
        assert str(refused).endswith("of its palette, and not 0: save it in greys") and how not in ("web", "VOC")
        return
    assert np.array_equal(found == 1, mask > 0)
