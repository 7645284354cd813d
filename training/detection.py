"""What a recipe that finds objects sets for other people's: how their boxes are given, and in which words it asks."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState

from ..rows.boxes import ORDERS, UNITS
from ..rows.errors import DataError, start_of
from .settings import setting

PROMPT_FILE = "prompt.json"
LONGEST_NAME = 255  # of a file


@dataclass
class DetectionSettings:
    """Beside `RowSettings`; a recipe states its own words."""

    box_format: str | None = setting(None, "order of a box's numbers, where the dataset does not say it", *ORDERS)
    box_unit: str | None = setting(None, "unit of a box's numbers, where the dataset does not say it", *UNITS)
    system: str = setting("", "what comes first, a text or a file; {categories} stands for the names of what is found")
    prompt: str = setting("", "what is asked of each picture, in the same way")

    @property
    def experiment(self) -> str | None:
        """Asked in other words than the recipe's, it is no published experiment, and has not its title and numbers."""
        return None if self.prompt == type(self).prompt else "objects"

    def asked(self, categories: Sequence[str]) -> list[str]:
        """The two texts, system and prompt, with these names.

        A line says where something else is asked for in words of the recipe's own experiment.
        """
        if doubt := self._doubt(categories):
            PartialState().print(f"! {doubt}", flush=True)
        return [in_words(text, categories=", ".join(categories)) for text in (self.system, self.prompt)]

    def _doubt(self, categories: Sequence[str]) -> str:
        """What is said in the recipe's own words though it may be something else that is to be found; "" for none."""
        names, own = start_of(", ".join(categories)), type(self)
        unnamed = [name for name in categories if not _words(name) & _words(self.prompt)]
        if self.experiment is None and (unnamed or len(categories) > 1):
            return f"{names} asked for by {self.prompt!r}: say what is to be found, --prompt and --system"
        if self.experiment is not None and self.system == own.system != "":
            return f"--prompt is new, the system message still {start_of(own.system)}: --system TEXT, or '' for none"
        return ""


def _words(text: str) -> set[str]:
    return {*re.findall(r"[^\W_]+", text.casefold())}


def kept(texts: Sequence[str]) -> dict[str, str]:
    """The file in which a training keeps the texts of `DetectionSettings.asked`, for `asked_before`."""
    return {PROMPT_FILE: json.dumps(texts, ensure_ascii=False)}


def asked_before(folder: Path, settings: DetectionSettings) -> list[str]:
    """The two texts of `DetectionSettings.asked` in a run with these settings that left `folder`."""
    file = folder / PROMPT_FILE
    if not file.is_file():  # left by a run from before they were kept, whose settings say all
        return [in_words(text) for text in (settings.system, settings.prompt)]
    return json.loads(file.read_text(encoding="utf-8"))


def in_words(text: str, **values: str) -> str:
    """A text, or that of the file of this name, with `values` for their names in braces.

    Raises `DataError` for another name in braces, and a file that is no text.
    """
    try:
        if len(text) <= LONGEST_NAME and os.path.isfile(text):
            text = Path(text).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise DataError(f"{text} is no text to ask with: {error}") from error
    for name in re.findall(r"\{(\w+)\}", text):
        if name not in values:
            known = ", ".join(f"{{{known}}}" for known in values)
            raise DataError(f"{{{name}}} in {start_of(text)} stands for nothing: {known} does")
        text = text.replace(f"{{{name}}}", values[name])
    return text
