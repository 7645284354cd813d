"""What a computation takes at most, as `torch.profiler` sees it."""

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves


def peak_of(run: Callable[[], object], held: Iterable[torch.Tensor], batch: Mapping[str, object]) -> int:
    """Bytes of `held` and `batch`, and the most that the CPU's allocator gave out beside them during `run`."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(path))
        events = [event for event in json.loads(path.read_text())["traceEvents"] if event.get("name") == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event["ts"]):
        now += event["args"]["Bytes"]
        peak = max(peak, now)
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in [*held, *tree_leaves(dict(batch))]
        if isinstance(tensor, torch.Tensor)
    }
    return sum(storages.values()) + peak
