"""One server at a time in a run folder: two would overwrite each other's rounds."""

import fcntl
from pathlib import Path
from typing import IO, Final

from nerv_fl.errors import CheckpointError

_HELD: Final[list[IO[bytes]]] = []
"""Locks of this process; the operating system frees them when it ends, however it ends."""


def hold(path: Path) -> None:
    """Lock a file until this process ends.

    Raises:
        CheckpointError: If another process holds it.

    Source: flock(2).
    """
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise CheckpointError(f"{path} is locked, expected no other server: one is at work in this folder") from error
    _HELD.append(file)
