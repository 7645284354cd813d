"""Columns beside rows: against `datasets`, which writes selected rows anew."""

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets

from vlm_recipes.rows.beside import beside

NUMBERS = {
    "all": None,
    "a selection": [3, 1, 4, 9, 2, 6],
    "a row twice": [3, 1, 3, 9, 9, 0],
    "none": [],
}


@pytest.mark.parametrize("chosen", NUMBERS)
@pytest.mark.parametrize("selected", [False, True], ids=["columns as they are", "columns selected"])
def test_columns_stand_beside_rows_as_datasets_puts_them(chosen, selected):
    rows = Dataset.from_dict({"text": [f"row {i}" for i in range(10)], "list": [[i] * (i % 3) for i in range(10)]})
    rows = rows if NUMBERS[chosen] is None else rows.select(NUMBERS[chosen])
    columns = Dataset.from_dict({"number": list(range(20)), "maybe": [None if i % 2 else i / 2 for i in range(20)]})
    order = np.random.default_rng(0).permutation(20)[: len(rows)]
    columns = columns.select(order) if selected else Dataset.from_dict(columns[: len(rows)])
    expected = concatenate_datasets([columns, rows], axis=1) if len(rows) else rows
    found = beside(columns, rows)
    assert found.to_list() == expected.to_list()
    assert len(rows) == 0 or found.features == expected.features
