"""One server at a time in a run folder: two would overwrite each other's rounds."""

import fcntl
import os
from pathlib import Path

from nerv_fl.errors import CheckpointError


def hold(path: Path) -> None:
    """Lock a file until this process ends, however it ends.

    Raises:
        CheckpointError: If it is locked already.

    Source: flock(2): the operating system frees a lock with its last descriptor, which stays open on purpose.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise CheckpointError(f"{path} is locked, expected no other server: one is at work in this folder") from error
