"""The lock on a node's folder: two processes that answer for one node would each spend what the other does not see."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from nerv_fl.errors import PrivacyError
from nerv_fl.io.locks import HeldError, lock_file, unlock_file

LOCK_FILE: Final = "node.lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a node's folder until the context ends.

    Raises:
        PrivacyError: If another process holds it, naming that process and the file that says so.
        OSError: If the folder is missing, or its file system has no locks: a deployed node needs one.
    """
    path = folder / LOCK_FILE
    try:
        descriptor = lock_file(path)
    except HeldError as holder:
        raise PrivacyError(
            f"{folder} is held by process {holder}, by {path}, expected one process for a node: stop one"
        ) from None
    try:
        yield
    finally:
        unlock_file(descriptor)
