"""Other people's numbers, to stand beside a run's own."""

from pathlib import Path
from typing import Any

import yaml

from ..eval.report.tables import Published
from ..models.given import given


def published_numbers(recipe: Path, name: str, data: Any) -> tuple[str, Published | None]:
    """The title and other people's numbers that `published.yaml` beside the recipe has under `name`.

    Where `data`, the recipe's settings of rows, names another dataset than the recipe does, their source says so.
    """
    file = recipe.with_name("published.yaml")
    known = (yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}).get(name)
    if known is None or "rows" not in known:
        return (known or {}).get("title", name), None
    rows = [(row.pop("name"), row, row.pop("note", "")) for row in known["rows"]]
    source = known["source"]
    if given(data, "dataset_name"):
        source += f"; this run's rows are those of {data.dataset_name}, not {type(data).dataset_name}"
    return known["title"], Published(known["metrics"], rows, source)
