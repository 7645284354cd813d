"""How much memory a computation needs, counted by the tensors that it makes, on whatever device."""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class CountAllocations(TorchDispatchMode):
    """While it is entered, count the bytes of `held` tensors and of all that operations make: a storage once, until it
    is freed.

    `held` are there before, such as parameters and inputs. `alive` are the bytes of now, `peak` the most that there
    were. What a kernel takes and gives back within itself is not seen.
    """

    def __init__(self, held: Iterable[torch.Tensor]):
        super().__init__()
        self.alive = self.peak = 0
        self._known = weakref.WeakSet()
        for tensor in held:
            self._count(tensor)

    def __torch_dispatch__(self, function, types, arguments=(), named=None) -> Any:
        made = function(*arguments, **(named or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor)
        return made

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self._known:
            self._known.add(storage)
            self.alive += storage.nbytes()
            self.peak = max(self.peak, self.alive)
            weakref.finalize(storage, self._free, storage.nbytes())

    def _free(self, size: int) -> None:
        self.alive -= size
