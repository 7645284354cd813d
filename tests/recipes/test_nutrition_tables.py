"""Photographs of one product stay together, and the constant box is of the rows that are trained on."""

import json

import numpy as np
import pytest

from demo.worlds import small
from recipes import nutrition_tables
from vlm_recipes.training.launch import RecipeParser
from vlm_recipes.training.run import Run

SETTINGS = "--use_cpu true --bf16 false --dataloader_num_workers 0 --validation_fraction 0.3".split()


class Enough(Exception):
    """The parts were seen."""


@pytest.mark.parametrize("has_meta", [True, False], ids=["a barcode in meta", "a barcode in image_id"])
def test_no_product_is_trained_and_validated_on_and_the_constant_box_knows_none_held_out(
    has_meta, tmp_path, monkeypatch
):
    world = small.build("nutrition_tables", tmp_path)
    files = [tmp_path / "data" / split / "metadata.jsonl" for split in ("train", "val")]
    rows, others = ([json.loads(line) for line in file.read_text().splitlines()] for file in files)
    product = {}
    for i, row in enumerate(rows):  # three photographs a product, far apart in the file
        barcode = rows[i % 8]["meta"]["barcode"]
        row["image_id"] = f"photograph {i}" if has_meta else f"{barcode}_{i}"
        product[row["image_id"]] = barcode
    for row in rows:
        row["meta"]["barcode"] = product[row["image_id"]]
    for file, own in zip(files, (rows, others), strict=True):
        kept = [row if has_meta else {key: row[key] for key in row if key != "meta"} for row in own]
        file.write_text("\n".join(map(json.dumps, kept)))
    seen = []

    def train(run, *trained, **stated):
        seen.append(run)
        raise Enough

    monkeypatch.setattr(Run, "train", train)
    recipe = nutrition_tables
    arguments = [*world, *SETTINGS, "--output_dir", str(tmp_path / "out")]
    with pytest.raises(Enough):
        recipe.main(*RecipeParser((recipe.Data, recipe.Training, recipe.Model)).parse_args_and_config(arguments))
    [run] = seen
    ids = {part: run.parts[part]["image_id"][:] for part in ("train", "validation")}
    assert sorted(ids["train"] + ids["validation"]) == sorted(product)
    products = {part: {product[name] for name in names} for part, names in ids.items()}
    assert not products["train"] & products["validation"] and len(products["validation"]) == 2  # of 8

    def median(*parts: str) -> list[float]:
        boxes = [
            np.divide(box, [*row["image_size"]] * 2)
            for part in parts
            for row in run.parts[part].select_columns(["boxes", "image_size"])
            for box in row["boxes"]
        ]
        return np.median(boxes, axis=0).tolist()

    assert run.evaluation.blind.box == pytest.approx(median("train"))
    assert run.evaluation.blind.box != pytest.approx(median("train", "validation"))
    assert run.evaluation.blind.categories == ["nutrition-table"]
