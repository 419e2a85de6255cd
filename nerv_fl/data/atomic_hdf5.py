"""A new HDF5 file that is whole or absent, whatever stops its writer."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py


@contextmanager
def new_file(path: Path) -> Iterator[h5py.File]:
    """Give an HDF5 file to write, which stands under its name once the block is left without an error.

    Args:
        path: File to write or replace; its folder is made if need be.

    Raises:
        OSError: If it cannot be written, on a full disk for one; it names the path.

    Guarantees:
        The path holds the old file or the whole new one, on the disk; nothing else is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        os.fchmod(descriptor, 0o644)
        with h5py.File(name, "w", libver=("v110", "v110"), locking=False) as file:  # no other process knows the name
            yield file
        os.fsync(descriptor)
        Path(name).replace(path)
    except (OSError, RuntimeError) as error:
        raise _cannot_write(error, path) from error
    finally:
        Path(name).unlink(missing_ok=True)
        os.close(descriptor)


def _cannot_write(error: Exception, path: Path) -> Exception:
    """Return the error that names the file; HDF5 hides the system's behind another one when it closes a file."""
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OSError) and cause.errno):
        cause = cause.__context__
    if cause is None:
        return error
    return OSError(cause.errno, f"cannot be written ({os.strerror(cause.errno or 0)})", str(path))
