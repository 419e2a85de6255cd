"""One server at a time in a run folder: two would overwrite each other's rounds."""

from pathlib import Path

from nerv_fl.errors import CheckpointError
from nerv_fl.locks import HeldError, lock_file


def hold(path: Path) -> None:
    """Lock a file until this process ends, however it ends: its descriptor stays open on purpose.

    Raises:
        CheckpointError: If it is locked already.
    """
    try:
        lock_file(path)
    except HeldError as error:
        raise CheckpointError(f"{path} is locked, expected no other server: one is at work in this folder") from error
