"""Columns beside rows, without a copy of the pictures that are in them."""

import datasets
import numpy as np
import pyarrow as pa

from ..models.upstream import fingerprint, selected_from
from .paths import picture_columns


def beside(columns: datasets.Dataset, rows: datasets.Dataset) -> datasets.Dataset:
    """`rows` with further `columns`, a row of them each, which come first.

    `concatenate_datasets` would write all rows anew, the bytes of their pictures with them, where they are a selection
    of a dataset's: here the columns are spread over all of its rows, and the selection is made once more. Of rows that
    are selected twice all but the pictures is written anew.
    """
    rows, (own, chosen) = rows.with_format(None), selected_from(columns.with_format("arrow"))
    table = None if chosen is None else own.data.table.take(chosen)
    whole, numbers = selected_from(rows)
    if numbers is not None and len(np.unique(numbers)) < len(numbers):
        whole, numbers = _written_out(whole, numbers, fingerprint(rows)), None
    elif numbers is not None:
        places = np.full(len(whole), -1)
        places[numbers] = np.arange(len(numbers))
        table = (own.data.table if table is None else table).take(pa.array(places, mask=places < 0))
    if table is not None:
        info = datasets.DatasetInfo(features=columns.features)
        columns = datasets.Dataset(table, info=info, fingerprint=f"{fingerprint(columns)}-{fingerprint(rows)}")
    found = datasets.concatenate_datasets([columns.with_format(None), whole], axis=1)
    return found if numbers is None else found.select(numbers)


def _written_out(whole: datasets.Dataset, numbers: np.ndarray, named: str) -> datasets.Dataset:
    """The rows with these numbers; each picture is a look at where the dataset has it."""
    columns, pictures = {name: whole.data.column(name) for name in whole.column_names}, picture_columns(whole)
    taken = {
        name: pa.chunked_array([chunk for i in numbers for chunk in column.slice(i, 1).chunks], column.type)
        if name in pictures
        else column.take(pa.array(numbers))
        for name, column in columns.items()
    }
    info = datasets.DatasetInfo(features=whole.features)
    return datasets.Dataset(pa.table(taken, whole.features.arrow_schema), info=info, fingerprint=named)
