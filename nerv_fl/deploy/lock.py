"""One process at a time in a run folder: two servers would overwrite each other's rounds."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from nerv_fl.errors import CheckpointError
from nerv_fl.locks import HeldError, lock_file

PATIENCE_S: Final = 10.0


def hold(path: Path) -> int:
    """Lock a file until this process ends, however it ends: its descriptor stays open on purpose.

    Returns:
        The descriptor.

    Raises:
        CheckpointError: If it is locked already.
    """
    try:
        return lock_file(path)
    except HeldError as error:
        raise CheckpointError(f"{path} is locked, expected no other server: one is at work in this folder") from error


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Lock a file until the context ends; a server whose run has ended gets a while to end itself.

    Raises:
        CheckpointError: If it stays locked.
    """
    descriptor = _hold_in_time(path, deadline=time.monotonic() + PATIENCE_S)
    try:
        yield
    finally:
        os.close(descriptor)


def _hold_in_time(path: Path, *, deadline: float) -> int:
    while True:
        try:
            return hold(path)
        except CheckpointError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
