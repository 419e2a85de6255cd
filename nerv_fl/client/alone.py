"""One process at a time answers for a node: two would each spend what the other does not see.

The lock is the system's (flock) and falls with its process, however that ends; the file only says who had it last.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from nerv_fl.errors import PrivacyError

LOCK_FILE: Final = "node.lock"

_LONGEST_PID: Final = 32


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a node's folder until the context ends.

    Raises:
        PrivacyError: If another process holds it, naming that process and the file that says so.
        OSError: If the folder is missing.

    Source: flock(2); the file system must have it (NFS does from Linux 2.6.12 on).
    """
    path = folder / LOCK_FILE
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, _LONGEST_PID, 0).decode("ascii", "replace").strip() or "unknown"
            raise PrivacyError(
                f"{folder} is held by process {holder}, by {path}, expected one process for a node: stop one"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
