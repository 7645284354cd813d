"""Answers on disk as they come: who is stopped and starts again with the same weights and rows asks only the rest."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object


class AnsweringStopped(Exception):
    """All processes stopped after a batch; the message says how many rows of which pass are answered, and kept."""


@dataclass(frozen=True)
class KeptAnswers:
    """Where the answers of one pass over rows are kept, in a file of JSON Lines for each process.

    A file begins with what its answers hang on; with another `key` they are dropped, with a line that says so. A last
    line that was not written to its end is dropped, too.

    Args:
        folder: of the files; it is made where there are answers.
        name: of the pass, such as "test, free".
        key: names all that decides the answers, see `of`.
        stop: asked after each batch, by all processes together and answered to all alike, whether to go no further.
    """

    folder: Path
    name: str = ""
    key: str = ""
    stop: Callable[[], bool] = lambda: False

    def of(self, name: str, *decides: Any) -> "KeptAnswers":
        """The same for a pass `name` (within this one), whose answers hang on `decides`, too, such as its rows.

        What JSON has no form for counts as its text.
        """
        found = hashlib.sha256(f"{self.key}\n{name}".encode())
        for one in decides:
            for part in one if isinstance(one, list) else [one]:  # row by row
                found.update(json.dumps(part, default=str).encode())
        named = f"{self.name}, {name}" if self.name and name else self.name or name
        return replace(self, name=named, key=found.hexdigest())

    def found(self) -> dict[int, Any]:
        """Row -> its answer, of those that are kept, the same on all processes; each writes a file of its own anew.

        The files may be those of another number of processes.
        """
        state, key, said, dropped = PartialState(), self.key, {}, False
        files = {int(file.suffixes[-2][1:]): file for file in self.folder.glob(f"{self._stem}.*.jsonl")}
        files = {rank: file for rank, file in files.items() if rank % state.num_processes == state.process_index}
        for file in files.values():
            first, *lines = file.read_bytes().split(b"\n")[:-1] or [b""]
            if first == key.encode():
                said |= dict(json.loads(line) for line in lines)
            else:
                dropped = True
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self._file.with_suffix(".new")
        new.write_text(f"{key}\n{_lines(said)}", encoding="utf-8")
        os.replace(new, self._file)
        for rank, file in files.items():
            if rank != state.process_index:
                file.unlink()
        gathered = gather_object([(said, dropped)])
        if any(dropped for _, dropped in gathered):
            state.print(f"{self.name}: answers kept in {self.folder} are of other weights, rows or settings: dropped")
        said = {row: answer for own, _ in gathered for row, answer in own.items()}
        if said:
            state.print(f"{self.name}: {len(said):,} rows were answered before, and are not asked again")
        return said

    def add(self, answers: Mapping[int, Any]) -> None:
        """Write a batch's answers, by row; nothing of it is lost where this process is killed afterwards."""
        with self._file.open("a", encoding="utf-8") as file:
            file.write(_lines(answers))

    @property
    def _stem(self) -> str:
        return re.sub(r"\W+", "-", self.name)

    @property
    def _file(self) -> Path:
        return self.folder / f"{self._stem}.{PartialState().process_index}.jsonl"


def _lines(answers: Mapping[int, Any]) -> str:
    return "".join(json.dumps([row, answer]) + "\n" for row, answer in answers.items())
