from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Pillow

from tests.rows.test_usable import encoded, keep, picture
from vlm_recipes.rows.errors import BadRow, DataError
from vlm_recipes.rows.images import images_of, same_image
from vlm_recipes.rows.loading import load_split
from vlm_recipes.rows.usable import usable_rows

PIXELS = np.asarray(picture())
SPELT = {
    "PIL": picture(),
    "a path": "a.png",
    "a Path": Path("a.png"),
    "a path of another kind": PurePosixPath("folder/a.png"),
    "a Windows path": "C:\\pictures\\a.png",
    "bytes": encoded(),
    "bytes and path": {**encoded(), "path": "a.png"},
    "a path alone": {"bytes": None, "path": "a.png"},
    "an array": PIXELS,
    "a grey array": PIXELS[:, :, 0],
    "a tensor": torch.from_numpy(PIXELS.copy()),
    "a tensor with its channels first": torch.from_numpy(PIXELS.copy()).permute(2, 0, 1),
}
NOTHING = [{}, {"image": None}, {"images": None}, {"images": []}, {"image": []}, {"images": ()}]
NOTHING += [{"image": None, "images": None}, {"image": None, "images": []}]


@pytest.mark.parametrize("spelling", SPELT)
def test_an_image_is_found_as_it_is_under_either_key_and_beside_an_empty_one(spelling):
    image = SPELT[spelling]
    rows = [{"image": image}, {"images": image}, {"image": [image]}, {"images": [image]}, {"images": (image,)}]
    rows += [{"image": image, "images": nothing} for nothing in (None, [], ())]
    rows += [{"image": nothing, "images": [image]} for nothing in (None, [])]
    rows += [{"image": image, "images": [image]}]
    for row in rows:
        [found] = images_of(row)
        assert found is image


@pytest.mark.parametrize("row", NOTHING, ids=str)
def test_a_row_without_images_has_none(row):
    assert images_of(row) == []


def test_several_images_keep_their_order():
    images = list(SPELT.values())
    for row in ({"images": images}, {"image": images}, {"image": None, "images": images}):
        assert all(found is image for found, image in zip(images_of(row), images, strict=True))


@pytest.mark.parametrize(
    "row",
    [
        {"image": "a.png", "images": ["b.png"]},
        {"image": "a.png", "images": ["a.png", "b.png"]},
        {"image": picture(), "images": [picture(seed=1)]},
        {"image": PIXELS, "images": [PIXELS[:, :20]]},
        {"image": PIXELS, "images": ["a.png"]},
        {"image": encoded(), "images": [encoded(format="JPEG")]},
    ],
    ids=range(6),
)
def test_different_images_under_both_keys_are_refused(row):
    with pytest.raises(BadRow, match="^'image' and 'images' hold different pictures: leave all of them in one"):
        images_of(row)


def test_the_same_image_under_both_keys_counts_once():
    assert images_of({"image": encoded(), "images": [encoded()]}) == [encoded()]
    assert images_of({"image": picture(), "images": [picture()]}) == [picture()]
    assert images_of({"image": Path("a.png"), "images": ["a.png"]}) == [Path("a.png")]
    assert len(images_of({"image": PIXELS, "images": [PIXELS.copy()]})) == 1
    assert not same_image(picture(), PIXELS)


NO_IMAGES = {
    "a number": (3, "an image that is a int"),
    "a truth": (True, "an image that is a bool"),
    "bytes alone": (b"\x89PNG", "an image that is a bytes"),
    "a set": ({"a.png"}, "an image that is a set"),
    "a list in a list": (["a.png"], "an image that is a list"),
    "an empty dictionary": ({}, "no image, or one outside"),
    "a dictionary of nothing": ({"bytes": None, "path": None}, "no image, or one outside"),
    "another dictionary": ({"url": "a.png"}, "no image, or one outside"),
    "a path of numbers": ({"bytes": None, "path": 7}, "'path' is a int"),
    "bytes as a list": ({"bytes": [1, 2], "path": None}, "'bytes' are a list"),
    "an empty path": ("", "no image, or one outside"),
    "a URL": ("https://example.org/a.png", "No such file: 'https://example.org/a.png' is a URL"),
    "a shouted URL": ("HTTP://example.org/a.png", "is a URL"),
    "data": ("data:image/png;base64,aGVsbG8=", "is a URL"),
    "an array of 0-1": (PIXELS / 255, "an array of float64 and shape (30, 40, 3)"),
    "an array of 16 bits": (PIXELS.astype("uint16"), "an array of uint16"),
    "a batch of arrays": (PIXELS[None], "shape (1, 30, 40, 3)"),
    "an array with its channels first": (PIXELS.transpose(2, 0, 1), "shape (3, 30, 40)"),
    "an empty array": (PIXELS[:0], "shape (0, 40, 3)"),
    "an array of objects": (np.array([None, "a.png"]), "an array of object"),
    "a tensor of floats": (torch.rand(3, 4, 4), "an array of float32"),
}


@pytest.mark.parametrize("kind", NO_IMAGES)
def test_what_is_no_image_is_refused_by_name_and_in_a_list_by_its_place(kind):
    value, reason = NO_IMAGES[kind]
    for key in ("image", "images"):
        rows = [({key: ["a.png", value]}, "(picture 2 of 2)")]
        rows += [] if isinstance(value, list) else [({key: value}, "")]
        for row, place in rows:
            with pytest.raises(BadRow) as refusal:
                images_of(row)
            assert reason in str(refusal.value) and str(refusal.value).endswith(place)


# --- datasets whose rows spell it differently


def mixed(rows: list[dict]) -> Dataset:
    stored = Image(decode=False)
    return Dataset.from_list(rows, features=Features({"id": Value("string"), "image": stored, "images": List(stored)}))


A, B, C = (encoded(picture(seed=seed)) for seed in range(3))


def seen(row: dict) -> dict:
    return {"ids": len(row["image_ids"]), "told": len(row["images"]), "sizes": row["image_sizes"]}


def test_a_mixed_dataset_keeps_every_image_of_every_row(tmp_path):
    rows = [
        {"id": "one", "image": A, "images": None},
        {"id": "two", "image": None, "images": [B, C]},
        {"id": "text", "image": None, "images": None},
        {"id": "both", "image": A, "images": [A]},
        {"id": "different", "image": A, "images": [B]},
        {"id": "broken", "image": None, "images": [B, {"bytes": b"no", "path": None}]},
    ]
    (usable,), refused = usable_rows({"train": mixed(rows)}, seen, str(tmp_path), 1.0)
    pixels = {row["id"]: [np.asarray(image) for image in images_of(row)] for row in usable}
    expected = {"one": [0], "two": [1, 2], "text": [], "both": [0]}
    assert pixels.keys() == expected.keys()
    for name, seeds in expected.items():
        assert all(np.array_equal(*pair) for pair in zip(pixels[name], map(_pixels, seeds), strict=True))
    assert usable["told"][:] == usable["ids"][:] == [1, 2, 0, 1]
    assert [len(hashes) for hashes in usable["image_hashes"]] == [1, 2, 0, 1]
    assert usable["sizes"][:] == usable["image_sizes"][:] == [[[40, 30]] * n for n in (1, 2, 0, 1)]
    reasons = {row["id"]: row["reason"] for row in refused}
    assert reasons.keys() == {"different", "broken"}
    assert "hold different pictures" in reasons["different"] and "(picture 2 of 2)" in reasons["broken"]


def _pixels(seed: int) -> np.ndarray:
    return np.asarray(picture(seed=seed))


def test_splits_that_spell_it_differently_become_rows_of_one_kind(tmp_path):
    train = mixed([{"id": "a", "image": A, "images": None}, {"id": "b", "image": B, "images": None}])
    train = train.remove_columns("images")
    test = mixed([{"id": "c", "image": None, "images": [B, C]}]).remove_columns("image")
    parts, refused = usable_rows({"train": train, "test": test}, seen, str(tmp_path), 0)
    assert refused == []
    assert [part["ids"][:] for part in parts] == [[1, 1], [2]]
    assert [len(images_of(row)) for part in parts for row in part] == [1, 1, 2]


@pytest.mark.parametrize("empty", [None, []])
def test_a_second_key_that_is_empty_in_every_row_changes_nothing(empty, tmp_path):
    rows = mixed([{"id": "a", "image": A, "images": None}, {"id": "b", "image": None, "images": None}])
    beside = rows.remove_columns("images").add_column("images", [empty, empty])
    plain, refused = usable_rows({"train": rows.remove_columns("images")}, keep, str(tmp_path / "plain"), 1.0)
    found, again = usable_rows({"train": beside}, keep, str(tmp_path / "beside"), 1.0)
    assert found[0].to_list() == plain[0].to_list() and found[0]["size"][:] == [[40, 30]]
    assert again == refused and [row["id"] for row in refused] == ["b"]


def test_an_image_outside_of_the_folder_makes_no_text_only_row(tmp_path):
    """`None` under both keys would: the image is taken away, and the row stays refused."""
    picture().save(tmp_path / "outside.png")
    (tmp_path / "data").mkdir()
    picture().save(tmp_path / "data" / "inside.png")
    names = [str(tmp_path / "outside.png"), str(tmp_path / "data" / "inside.png"), None]
    rows = [{"id": str(i), "image": name, "images": None} for i, name in enumerate(names)]
    mixed(rows).to_parquet(tmp_path / "data" / "train.parquet")
    loaded = load_split(str(tmp_path / "data"), None, "train", ("image", "images"))
    (usable,), refused = usable_rows({"train": loaded}, seen, str(tmp_path / "out"), 1.0)
    assert [(row["id"], row["reason"]) for row in refused] == [("0", "no image, or one outside the dataset's folder")]
    assert [len(images_of(row)) for row in usable] == [1, 0]


def test_a_dataset_without_either_column_is_refused_in_a_line(tmp_path):
    with pytest.raises(DataError, match="^'train' has no column 'image' or 'images', only id$"):
        usable_rows({"train": Dataset.from_dict({"id": ["a"]})}, seen, str(tmp_path), 1.0)


def test_the_same_picture_opened_twice_is_the_same_and_another_mode_is_not():
    assert same_image(picture(), picture()) and not same_image(picture(), picture().convert("L"))
    assert not same_image(Pillow.new("L", (2, 2)), Pillow.new("L", (2, 3)))
