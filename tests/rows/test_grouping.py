"""One-colour images with several queries each: whose query a row holds shows in its colour."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Image, List, concatenate_datasets
from PIL import Image as Pictures

from vlm_recipes.eval.metrics.masks import decode, encode
from vlm_recipes.rows.grouping import group_by_image, one_per_query, with_questions_shuffled


def query(image: int, number: int) -> dict:
    mask = np.zeros((4, 6), dtype=bool)
    mask[:, : image % 7] = True
    return {
        "id": f"image{image} {number}",
        "question": f"question {number} of image {image}",
        "messages": [
            {"role": "user", "content": f"question {number} of image {image}, please"},
            {"role": "assistant", "content": f"answer {number} of image {image}"},
        ],
        "masks": [encode(mask)] * (number % 3),
        "ignore": encode(~mask) if image % 2 else None,
        "first": number == 0,
    }


@cache
def images(*n_queries: int) -> Dataset:
    """Images of colour (i, i, i) with so many queries each."""
    rows = [
        {"id": f"image{i}", "image_id": f"sha{i}", "image_size": [6, 4], "queries": [query(i, j) for j in range(n)]}
        for i, n in enumerate(n_queries)
    ]
    pictures = Dataset.from_dict({"image": [Pictures.new("RGB", (6, 4), (i, i, i)) for i in range(len(n_queries))]})
    return concatenate_datasets([Dataset.from_list(rows), pictures.cast_column("image", Image())], axis=1)


def colour(row: dict) -> int:
    return row["image"].getpixel((0, 0))[0]


several = pytest.mark.parametrize("n_queries", [(1,), (6,), (3, 1, 2), (1, 1), (2, 0, 5, 1)], ids=str)


@several
def test_each_query_becomes_a_row_beside_its_image(n_queries):
    rows = one_per_query(images(*n_queries))
    expected = [(i, j) for i, n in enumerate(n_queries) for j in range(n)]
    assert len(rows) == len(expected)
    for row, (i, j) in zip(rows, expected, strict=True):
        assert {key: row[key] for key in query(i, j)} == query(i, j)
        assert (row["image_id"], row["image_size"], colour(row)) == (f"sha{i}", [6, 4], i)
    assert "queries" not in rows.column_names


def test_masks_are_still_masks_after_it():
    row = one_per_query(images(3, 2))[4]
    assert row["id"] == "image1 1"
    assert np.array_equal(decode(row["masks"][0]), ~decode(row["ignore"]))


@several
def test_rows_of_an_image_come_together_again(n_queries):
    whole = images(*n_queries).filter(bool, input_columns="queries")
    again = group_by_image(one_per_query(whole), max_conversations=None)

    def told(rows) -> dict:
        return {
            row["image_id"]: (colour(row), sorted(json.dumps(query, sort_keys=True) for query in row["queries"]))
            for row in rows
        }

    assert len(again) == len(whole) and told(again) == told(whole)


def test_selected_images_keep_their_own_queries():
    chosen = images(3, 1, 2).select([2, 0])
    assert [(row["id"], colour(row)) for row in one_per_query(chosen)] == [
        *[("image2 0", 2), ("image2 1", 2)],
        *[("image0 0", 0), ("image0 1", 0), ("image0 2", 0)],
    ]
    grouped = {row["image_id"]: colour(row) for row in group_by_image(one_per_query(chosen))}
    assert grouped == {"sha2": 2, "sha0": 0}


# --- the wrong question


@pytest.mark.parametrize("n", [2, 3, 10])
@pytest.mark.parametrize("seed", range(4))
def test_nobody_keeps_his_own_question_and_each_is_asked_once(n, seed):
    rows = one_per_query(images(*[1] * n))
    shuffled = with_questions_shuffled(rows, seed)
    assert sorted(shuffled["question"]) == sorted(rows["question"])
    for own, row in zip(rows, shuffled, strict=True):
        assert row["question"] != own["question"]
        assert row["messages"][0]["content"] == f"{row['question']}, please"  # the question's own messages
        kept = set(own) - {"question", "messages"}
        assert {key: row[key] for key in kept} == {key: own[key] for key in kept}


@pytest.mark.parametrize("seed", range(4))
def test_the_other_question_is_about_another_image(seed):
    """A paraphrase of his own question, as ReasonSeg's images have six, would tell more than the image."""
    rows = one_per_query(images(*[6] * 4))
    for own, row in zip(rows, with_questions_shuffled(rows, seed), strict=True):
        assert own["question"].split("image ")[1] != row["question"].split("image ")[1]


def test_the_order_depends_on_the_seed_alone():
    rows = one_per_query(images(*[1] * 10))
    orders = [with_questions_shuffled(rows, seed)["question"][:] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_rows_whose_image_has_no_name_get_a_question_about_another_one():
    rows = one_per_query(images(1, 2, 1, 1))
    names = ["a", None, None, "b", "c"]
    unnamed = rows.remove_columns("image_id").add_column("image_id", names)
    shuffled = with_questions_shuffled(unnamed, 0)
    assert all(own != other for own, other in zip(rows["question"], shuffled["question"], strict=True))


def test_a_single_row_has_only_its_own_question():
    rows = one_per_query(images(1))
    assert with_questions_shuffled(rows, 0)["question"] == rows["question"]


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("selected", [False, True])
def test_rows_of_one_image_id_that_have_other_images_are_refused_before_any_is_lost(several, selected, tmp_path):
    """Nobody else would see it: only the first row's images are kept."""
    files = {}
    for name, side in (("a", 4), ("b", 30)):
        files[name] = str(tmp_path / f"{name}.png")
        Pictures.new("RGB", (side, 4), "red").save(files[name])
    stored = {"path": files["a"], "bytes": None}, {"path": files["b"], "bytes": None}
    in_bytes = [{"path": None, "bytes": Path(file).read_bytes()} for file in files.values()]
    feature = List(Image()) if several else Image()
    for first, other in (stored, in_bytes):

        def rows(*shown, names):
            shown = [[one] if several else one for one in shown]
            columns = {"id": list("xyz"), "image_id": names, "question": list("pqr"), "images": shown}
            made = Dataset.from_dict(columns).cast_column("images", feature)
            return made.select([2, 0, 1]) if selected else made

        assert len(group_by_image(rows(first, first, other, names=["1", "1", "2"]))) == 2
        assert len(group_by_image(rows(first, other, other, names=[None, None, "2"]))) == 3
        with pytest.raises(ValueError, match="^row '[xyz]': its image_id '1' has other images in row '[xz]'$"):
            group_by_image(rows(first, first, other, names=["1", "1", "1"]))
    if several:
        two = Dataset.from_dict({"image_id": ["1", "1"], "images": [[stored[0]], list(stored)]})
        with pytest.raises(ValueError, match="^row 1: its image_id '1' has other images in row 0$"):
            group_by_image(two.cast_column("images", feature))


def test_rows_without_the_column_that_they_are_grouped_by_are_refused():
    with pytest.raises(ValueError, match="^rows are grouped by 'image_id', and have only id, question: add it$"):
        group_by_image(Dataset.from_dict({"id": ["a"], "question": ["What?"]}))
