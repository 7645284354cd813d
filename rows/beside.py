"""Columns beside rows, without a copy of the pictures that are in them."""

import datasets
import numpy as np
import pyarrow as pa

from ..models.upstream import fingerprint, selected_from


def beside(columns: datasets.Dataset, rows: datasets.Dataset) -> datasets.Dataset:
    """`rows` with further `columns`, a row of them each, which come first.

    `concatenate_datasets` would write all rows anew, the bytes of their pictures with them, where they are a selection
    of a dataset's: here the columns are spread over all of its rows, and the selection is made once more. Rows that
    are selected twice are written anew.
    """
    rows, (own, chosen) = rows.with_format(None), selected_from(columns.with_format("arrow"))
    table = None if chosen is None else own.data.table.take(chosen)
    whole, numbers = selected_from(rows)
    if numbers is None or len(np.unique(numbers)) < len(numbers):
        whole, numbers = rows, None
    else:
        places = np.full(len(whole), -1)
        places[numbers] = np.arange(len(numbers))
        table = (own.data.table if table is None else table).take(pa.array(places, mask=places < 0))
    if table is not None:
        info = datasets.DatasetInfo(features=columns.features)
        columns = datasets.Dataset(table, info=info, fingerprint=f"{fingerprint(columns)}-{fingerprint(rows)}")
    found = datasets.concatenate_datasets([columns.with_format(None), whole], axis=1)
    return found if numbers is None else found.select(numbers)
