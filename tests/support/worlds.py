"""Each recipe's small world, drawn once a session."""

import json
import shutil
from pathlib import Path

from demo.worlds.small import build
from tests.support.session import once


def world(recipe: str, folder: Path | None = None) -> list[str]:
    """The recipe's arguments for the world that all share, which nobody may change, or for a copy in `folder`.

    Answers are short: untrained models never end one.
    """

    def write(shared: Path) -> None:
        (shared / "arguments.json").write_text(json.dumps([*build(recipe, shared), "--max_new_tokens", "8"]))

    shared = once(f"world_{recipe}", write)
    arguments = json.loads((shared / "arguments.json").read_text())
    if folder is None:
        return arguments
    for part in ("data", "model"):
        shutil.copytree(shared / part, folder / part)
    return [argument.replace(str(shared), str(folder)) for argument in arguments]
