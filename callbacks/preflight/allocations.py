"""How much memory a computation needs, counted by the tensors that it makes, on whatever device."""

import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WEIGHTS, GRADIENTS, ACTIVATIONS = "weights", "gradients", "activations"


class CountAllocations(TorchDispatchMode):
    """While it is entered, count the bytes of `held` tensors and of all that operations make: a storage once, until it
    is freed.

    `held` are there before, such as parameters and inputs. `alive` are the bytes of now, `peak` the most that there
    were, and `parts` of what that most consisted: weights (what is held), activations (all else), and what `call` has
    given another name. What a kernel takes and gives back within itself is not seen.
    """

    def __init__(self, held: Iterable[torch.Tensor]):
        super().__init__()
        self.alive = self.peak = 0
        self.parts: Counter[str] = Counter()
        self._now: Counter[str] = Counter()
        self._kinds: weakref.WeakKeyDictionary[Any, list[str]] = weakref.WeakKeyDictionary()
        for tensor in held:
            self._count(tensor, WEIGHTS)

    def __torch_dispatch__(self, function, types, arguments=(), named=None) -> Any:
        made = function(*arguments, **(named or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor, ACTIVATIONS)
        return made

    def call(self, tensor: torch.Tensor, kind: str) -> None:
        """From now on the bytes of `tensor` are of this kind."""
        self._count(tensor, kind)
        name, size = self._kinds[tensor.untyped_storage()], tensor.untyped_storage().nbytes()
        self._now[name[0]] -= size
        self._now[kind] += size
        name[0] = kind

    def _count(self, tensor: torch.Tensor, kind: str) -> None:
        storage = tensor.untyped_storage()
        if storage not in self._kinds:
            self._kinds[storage] = name = [kind]
            self.alive += storage.nbytes()
            self._now[kind] += storage.nbytes()
            if self.alive > self.peak:
                self.peak, self.parts = self.alive, self._now.copy()
            weakref.finalize(storage, self._free, storage.nbytes(), name)

    def _free(self, size: int, name: list[str]) -> None:
        self.alive -= size
        self._now[name[0]] -= size
