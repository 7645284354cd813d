"""How much memory a process has needed so far."""

import platform
import resource

import torch


def peak_memory() -> float:
    """This process's peak memory in GiB: the GPU's where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if platform.system() == "Darwin" else 1)
    return kilobytes / 2**20
