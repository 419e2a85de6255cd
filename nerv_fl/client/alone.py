"""One process at a time answers for a node: two would each spend what the other does not see."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from nerv_fl.errors import PrivacyError
from nerv_fl.locks import HeldError, lock_file

LOCK_FILE: Final = "node.lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a node's folder until the context ends.

    Raises:
        PrivacyError: If another process holds it, naming that process and the file that says so.
        OSError: If the folder is missing.
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
        os.close(descriptor)
