"""Other people's numbers, to stand beside a run's own."""

from pathlib import Path
from typing import Any

import yaml

from ..eval.report.tables import Published
from ..models.given import given

# Settings of rows that make others of them than those which the published numbers are of.
OTHER_ROWS = "dataset_(name|config|test_split)|image_disjoint|max_test_rows|test_fraction|split_seed|videos|exemplar"


def published_numbers(recipe: Path, name: str) -> tuple[str, Published | None]:
    """The title and other people's numbers that `published.yaml` beside the recipe has under `name`."""
    file = recipe.with_name("published.yaml")
    known = (yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}).get(name)
    if known is None or "rows" not in known:
        return (known or {}).get("title", name), None
    rows = [(row.pop("name"), row, row.pop("note", "")) for row in known["rows"]]
    return known["title"], Published(known["metrics"], rows, known["source"])


def other_rows(data: Any) -> str:
    """With which of the recipe's settings of rows a run had others than the recipe's own test part; "" for none."""
    asked = given(data, OTHER_ROWS)
    return asked and f"the rows of {asked}, not the recipe's own"
