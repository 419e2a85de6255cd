"""Files that one process at a time holds, by the system's own lock, which falls with its process however that ends."""

import fcntl
import os
from pathlib import Path
from typing import Final

_LONGEST_PID: Final = 32


class HeldError(Exception):
    """Another process holds the file; the text is that process's number, or "unknown"."""


def lock_file(path: Path) -> int:
    """Lock a file, made if it is missing, and write into it who holds it.

    Returns:
        Its descriptor: the lock holds until that is closed.

    Raises:
        HeldError: If another process holds it.
        OSError: If the folder is missing.

    Source: flock(2); the file system must have it (NFS does from Linux 2.6.12 on).
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, _LONGEST_PID, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise HeldError(holder) from None
        raise
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
