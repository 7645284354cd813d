"""Batches of questions about one image, and images that are decoded once."""

import io
from collections import Counter

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support import tiny
from vlm_recipes.eval.generation.batches import batches_by_image, each_image_once
from vlm_recipes.eval.generation.generate import without_images
from vlm_recipes.rows.images import images_of


@st.composite
def asked(draw) -> list[dict]:
    images = draw(st.lists(st.sampled_from(["a", "b", "c", "d", "e", None]), max_size=60))
    lengths = draw(st.lists(st.integers(1, 400), min_size=len(images), max_size=len(images)))
    return [{"image_id": image, "prompt": "x" * n} for image, n in zip(images, lengths, strict=True)]


@given(asked(), st.integers(1, 20), st.integers(1, 4), st.booleans(), st.integers(1, 12), st.data())
@settings(max_examples=300, deadline=None)
def test_each_row_comes_once_and_no_image_is_spread_further_than_it_has_to_be(
    rows, batch_size, processes, shares, limit, data
):
    known = set(data.draw(st.lists(st.integers(0, max(len(rows) - 1, 0)), max_size=5))) if rows else set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlm_recipes.eval.generation.batches.QUESTIONS", limit)
        batches = batches_by_image(rows, known, batch_size, processes, shares)
    left = [i for i in range(len(rows)) if i not in known]
    assert sorted(i for batch in batches for i in batch) == left
    size = min(batch_size, -(-len(left) // processes))
    together = max(size, limit) if shares else size
    for batch in batches:
        assert len(batch) >= 1
        one = {rows[i]["image_id"] for i in batch} - {None}
        assert len(batch) <= (together if len(one) == 1 and shares else size)
    for image, n in Counter(rows[i]["image_id"] for i in left).items():
        if image is not None:
            assert sum(any(rows[i]["image_id"] == image for i in batch) for batch in batches) == -(-n // together)


def test_an_image_of_a_collator_that_shares_it_has_all_its_questions_in_one_batch_up_to_sixty_four():
    rows = [{"image_id": image, "prompt": "x"} for image in "a" * 100 + "b" * 20 + "c" * 2 + "d"]
    names = lambda batches: sorted("".join(rows[i]["image_id"] for i in batch) for batch in batches)  # noqa: E731
    assert names(batches_by_image(rows, (), 3, share_images=True)) == ["a" * 36, "a" * 64, "b" * 20, "ccd"]
    assert {len(batch) for batch in batches_by_image(rows, (), 3)} == {3}


def test_rows_without_an_image_fill_batches_from_the_longest_to_the_shortest():
    rows = [{"prompt": "x" * n} for n in (5, 900, 30, 70, 1, 400, 12)]
    assert batches_by_image(rows, (), 3) == [[1, 5, 3], [2, 6, 0], [4]]
    assert batches_by_image(rows, (), 100, processes=2) == [[1, 5, 3, 2], [6, 0, 4]]
    sized = [{"image_size": [28 * n, 28]} for n in (3, 50, 10)]
    assert batches_by_image(sized, (), 1) == [[1], [2], [0]]


@pytest.fixture
def decoded(monkeypatch) -> list:
    """Grows with each decoded image."""
    seen, decode = [], datasets.Image.decode_example
    monkeypatch.setattr(datasets.Image, "decode_example", lambda *a, **k: seen.append(1) or decode(*a, **k))
    return seen


def test_nothing_is_decoded_to_make_batches(decoded):
    dataset = datasets.Dataset.from_list(tiny.chat_rows())
    batches = batches_by_image(dataset, (), 3)
    assert sorted(i for batch in batches for i in batch) == list(range(8))
    assert without_images(dataset)[7]["id"] == "black" and not decoded
    dataset[0]
    assert decoded  # the counter works


def pictures(column: str) -> datasets.Dataset:
    """Six rows about two images, of which one is turned by its EXIF tag, and one row without `image_id`."""
    rows = []
    for i, image_id in enumerate(["a", "b", "a", "a", "b", None, "a"]):
        noise = np.random.default_rng(ord(image_id or "c")).integers(0, 255, (8, 12, 3), dtype=np.uint8)
        file, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = 6 if image_id == "b" else 1
        Image.fromarray(noise).save(file, "PNG", exif=exif)
        image = {"bytes": file.getvalue(), "path": None}
        rows.append({"id": i, "image_id": image_id, column: [image, image] if column == "images" else image})
    kind = datasets.Image() if column == "image" else datasets.List(datasets.Image())
    return datasets.Dataset.from_list(rows).cast_column(column, kind)


@pytest.mark.parametrize("column", ["image", "images"])
def test_rows_are_those_of_the_dataset_with_each_image_decoded_once_a_batch(column, decoded):
    dataset = pictures(column)
    expected = [dataset[i] for i in (3, 1, 0, 5, 4)]
    del decoded[:]
    rows = each_image_once(dataset).__getitems__([3, 1, 0, 5, 4])
    assert len(decoded) == 3
    for row, same in zip(rows, expected, strict=True):
        assert row.keys() == same.keys() and row["id"] == same["id"]
        for one, other in zip(*([r[column]] if column == "image" else r[column] for r in (row, same)), strict=True):
            assert one.size == other.size and one.tobytes() == other.tobytes()
    assert rows[1][column] is rows[4][column] if column == "image" else rows[1][column][0] is rows[4][column][0]


def test_an_image_under_either_key_of_a_mixed_file_is_decoded_once_a_batch(decoded):
    one, several = pictures("image"), pictures("images").select_columns("images")
    stored = one.cast_column("image", datasets.Image(decode=False))["image"][:]
    lists = several.cast_column("images", datasets.List(datasets.Image(decode=False)))["images"][:]
    rows = {"image": [a if i % 2 else None for i, a in enumerate(stored)]}
    rows |= {"images": [None if i % 2 else b for i, b in enumerate(lists)]}
    kinds = {"image": datasets.Image(), "images": datasets.List(datasets.Image())}
    mixed = datasets.Dataset.from_dict(rows, datasets.Features(kinds))
    found = each_image_once(mixed).__getitems__(list(range(7)))
    assert len(decoded) == 3
    for i, row in enumerate(found):
        images = images_of(row)
        assert len(images) == (1 if i % 2 else 2)
        assert all(image.tobytes() == one[i]["image"].tobytes() for image in images)


def test_other_rows_are_left_as_they_are():
    for rows in ([{"image_id": "a"}], datasets.Dataset.from_list([{"id": 1}]), pictures("image").with_format("numpy")):
        assert each_image_once(rows) is rows
    dataset = pictures("image")
    whole = each_image_once(dataset)
    assert whole is not dataset and len(whole) == 7 and whole[2]["id"] == 2
