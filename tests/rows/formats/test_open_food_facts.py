"""Products, not photographs: which rows of Open Food Facts show the same one, against the real rows' names."""

import json

import pytest

from tests.support.paths import written_and_real
from vlm_recipes.rows.formats.open_food_facts import product_of


@pytest.mark.parametrize(
    ("row", "product"),
    [
        ({"image_id": "0009800892204_1"}, "0009800892204"),
        ({"image_id": "0009800892204_12"}, "0009800892204"),
        ({"image_id": "12345678_3"}, "12345678"),  # EAN-8
        ({"image_id": "0009800892204_1", "meta": None}, "0009800892204"),
        ({"image_id": "a", "meta": {"barcode": "0009800892204", "off_image_id": "7"}}, "0009800892204"),
        ({"image_id": "0009800892204_1", "meta": {"barcode": None}}, "0009800892204"),
        ({"image_id": "IMG_0001"}, "IMG_0001"),  # somebody's own, which are not all of one product
        ({"image_id": "2024_1"}, "2024_1"),
        ({"image_id": "20230514_101530"}, "20230514_101530"),  # a telephone's, of which there are many a day
        ({"image_id": "images/20230514_101530.jpg"}, "images/20230514_101530.jpg"),
        ({"image_id": "19991231_7"}, "19991231_7"),
        ({"image_id": "2000000000015_1"}, "2000000000015"),  # month 00 is none
        ({"image_id": "0009800892204"}, "0009800892204"),
        ({"image_id": 7}, "7"),
    ],
)
def test_the_photographs_of_a_product_have_its_barcode_in_common(row, product):
    assert product_of(row) == product


@pytest.mark.parametrize("file", written_and_real("nutrition_tables/metadata.jsonl"))
def test_names_of_real_rows_begin_with_a_barcode(file):
    names = [json.loads(line)["image_id"] for line in file.read_text(encoding="utf-8").splitlines()]
    assert names and all(product_of({"image_id": name}) == name[:13] and name[13] == "_" for name in names)
