"""Files that are either whole or untouched, whatever kills the process."""

import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace a file by new content in one step.

    Args:
        path: File to create or replace; its folder must exist.
        data: The whole content.
        mode: Permission bits of the new file, whatever the umask; it is never more open than that, even while written.

    Raises:
        OSError: If the folder is missing or full, or the path cannot be replaced; it names the path, and nothing is
            left behind.

    Guarantees:
        Readers see the old content or the new one. After return, the content and its name are on the disk.

    Source: POSIX rename(2) within one folder; fsync(2) of the file before it and of the folder after it.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    staged = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        staged.replace(path)
    except OSError as error:
        staged.unlink(missing_ok=True)
        # A full disk has no name of its own.
        raise OSError(error.errno, error.strerror, str(path)) from error
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
