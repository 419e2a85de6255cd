"""One process at a time in a run folder: two servers would overwrite each other's rounds."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nerv_fl.errors import CheckpointError
from nerv_fl.locks import HeldError, lock_file


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
    """Lock a file until the context ends.

    Raises:
        CheckpointError: If it is locked already.
    """
    descriptor = hold(path)
    try:
        yield
    finally:
        os.close(descriptor)
