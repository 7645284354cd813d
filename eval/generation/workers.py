"""Workers of a data loader that live from one evaluation to the next, where the same rows are answered each time."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader


class SameWorkers:
    """Makes what `DataLoader` makes; for the same rows in the same batches it gives that back, its workers alive.

    A fork of a large process takes a while, and so does what a worker sets up for its first batch.
    """

    def __init__(self):
        self.made: tuple[Any, list[list[int]], DataLoader] | None = None

    def __call__(self, rows: Any, batches: list[list[int]], prepare: Callable[[Any], Any], **settings) -> DataLoader:
        """A loader of `prepare(rows)` in these batches; `settings` are those of `DataLoader`, the same each time."""
        if self.made is None or self.made[0] is not rows or self.made[1] != batches:
            self.close()
            alive = settings["num_workers"] > 0
            # Random numbers of its own: new workers draw one, and a training that goes on would drop other values.
            settings |= {"persistent_workers": alive, "generator": torch.Generator()}
            self.made = rows, batches, DataLoader(prepare(rows), batch_sampler=batches, **settings)
        return self.made[2]

    def close(self) -> None:
        """Let the workers end."""
        self.made = None
