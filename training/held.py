"""One launch at a time writes into an output folder: another one would remove its checkpoints, or it the other's."""

import fcntl
import os
from pathlib import Path

_held: dict[tuple[int, int], int] = {}  # folders by device and inode, and descriptors that let go when closed


def hold(folder: Path) -> bool:
    """Hold a folder until `let_go`, or this process's end; false where another process does.

    True, too, on a file system that knows no locks.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    found = os.fstat(descriptor)
    if (found.st_dev, found.st_ino) in _held:
        os.close(descriptor)
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    except OSError:
        os.close(descriptor)
        return True
    _held[found.st_dev, found.st_ino] = descriptor
    return True


def let_go() -> None:
    """Let other launches have what this process holds."""
    while _held:
        os.close(_held.popitem()[1])


os.register_at_fork(after_in_child=let_go)  # or a worker that outlives its launch would hold the folder
