"""Where one machine ends: each recipe has a row, whose columns are made of each other as the page says."""

import pytest

from benchmarks import last_evaluation, scale


def test_each_recipe_has_a_row_made_of_what_was_counted_and_measured(monkeypatch):
    monkeypatch.setattr(scale, "SECONDS", 0)
    monkeypatch.setattr(scale, "images_a_second", lambda known: 10.0)
    rows = {row["recipe"]: row for row in scale.table().rows}
    assert rows.keys() == last_evaluation.RECIPES.keys() == scale.SCALES.keys()
    for name, row in rows.items():
        known, operations = scale.SCALES[name](), last_evaluation.RECIPES[name]().training
        taken = 989e12 * 0.15 * known.images / operations  # an H100's peak in bfloat16, by its data sheet
        assert float(row["a GPU takes"]) == pytest.approx(taken, abs=0.051)
        assert float(row["workers a GPU"]) == pytest.approx(taken / 10, abs=0.051)
        assert float(row["ms to exchange"]) == pytest.approx(8 * known.gradients / 12.5e6, abs=0.051)


def test_a_worker_s_images_are_those_that_the_processors_have_made(monkeypatch):
    monkeypatch.setattr(scale, "SECONDS", 0)
    seen = []
    known = scale.Scale(1, 1, 1, (64, 48), "JPEG", (lambda images, return_tensors: seen.extend(images),))
    assert scale.images_a_second(known) > 0
    assert [image.size for image in seen] == [(64, 48)] * 2
