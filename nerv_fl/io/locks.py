"""Locks that let one process at a time write a file or a folder.

A lock is flock(2) on an open descriptor of a small file that holds the holder's process number. The system drops it
when the process ends, in whatever way, so a resume after a kill works at once. Readers take no lock.

The descriptor is not inherited: it is closed on exec (O_CLOEXEC) and in forked children, so that a background process
that outlives its parent does not keep the lock.
"""

import contextlib
import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from nerv_fl.errors import CheckpointError

LOCK_FILE: Final = ".lock"
"""Name of the lock file inside a folder."""

UNSUPPORTED: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})
"""Errors of flock(2) on a file system without locks."""

POLL_S: Final = 0.1

READER_PATIENCE_S: Final = 1.0
"""Time that a writer waits at least: who only asks for the holder holds the lock for a moment, too."""

_LONGEST_PID: Final = 32

_descriptors: set[int] = set()
_unsupported: set[int] = set()

logger = logging.getLogger(__name__)


class HeldError(Exception):
    """Raised when another process holds the lock; the text is that process's number, or "unknown"."""


def output_lock(out: Path) -> Path:
    """Return the lock file of a file or folder that a command writes: beside it, since it may not exist yet.

    >>> output_lock(Path("/data/ledger.h5"))
    PosixPath('/data/.ledger.h5.lock')
    """
    out = out.resolve()
    return out.with_name(f".{out.name}{LOCK_FILE}")


def holder_of(path: Path) -> str | None:
    """Return the number of the process that holds a file ("unknown" if it did not say), None if no process does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)
    return None


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, _LONGEST_PID, 0).decode("ascii", "replace").strip() or "unknown"


def lock_file(path: Path) -> int:
    """Lock a file, created if it is missing, and write this process's number into it.

    Returns:
        The descriptor; closing it releases the lock.

    Raises:
        HeldError: If another process holds the lock.
        OSError: If the folder is missing or read-only, or the file system has no locks.

    Source: flock(2); NFS has it from Linux 2.6.12 on.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _flock(descriptor, path)
            # The holder before may have removed the file between our open and our lock.
            if _is_same_file(descriptor, path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                _descriptors.add(descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def unlock_file(descriptor: int) -> None:
    """Release what `lock_file` locked."""
    _descriptors.discard(descriptor)
    os.close(descriptor)


def hold(path: Path, *, written: Path) -> None:
    """Lock until this process ends, in whatever way: its descriptor stays open on purpose.

    It waits a moment for a reader that asks `holder_of`.

    Args:
        path: Lock file.
        written: File or folder that it protects, for the message.

    Raises:
        CheckpointError: If another process writes there.
    """
    _lock_in_time(path, written=written, patience_s=READER_PATIENCE_S)


@contextmanager
def exclusive(path: Path, *, written: Path, patience_s: float = 0.0) -> Iterator[None]:
    """Lock until the context ends, and remove the lock file then.

    On a file system without locks this logs a warning once and goes on: the run would otherwise be impossible there.

    Args:
        path: Lock file; its folder must exist.
        written: File or folder that it protects, for the message.
        patience_s: Time that a holder gets to end, seconds; a moment at least, for a reader that asks `holder_of`.

    Raises:
        CheckpointError: If another process writes there, naming it.
        OSError: If the lock file cannot be created.
    """
    descriptor = _lock_in_time(path, written=written, patience_s=max(patience_s, READER_PATIENCE_S))
    try:
        yield
    finally:
        if descriptor is not None:
            # Removed while it is still locked: whoever opened it before sees that it is gone, and starts over.
            with contextlib.suppress(OSError):
                path.unlink()
            unlock_file(descriptor)


def _lock_in_time(path: Path, *, written: Path, patience_s: float) -> int | None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return lock_file(path)
        except HeldError as holder:
            if time.monotonic() >= deadline:
                raise CheckpointError(
                    f"{written} is being written by process {holder}, which holds {path}, "
                    "expected one writer at a time: wait until it ends, or stop it"
                ) from None
            time.sleep(POLL_S)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            _warn_once(path, error)
            return None


def _warn_once(path: Path, error: OSError) -> None:
    if error.errno not in _unsupported:
        _unsupported.add(error.errno or 0)
        logger.warning(
            "%s cannot be locked (%s): a second process that writes there would not be noticed, start only one",
            path,
            error.strerror,
        )


def _flock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise HeldError(_holder(descriptor)) from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _close_in_child() -> None:
    """Close inherited descriptors after a fork; the parent's lock stays, since it ends with the last descriptor."""
    for descriptor in _descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _descriptors.clear()


os.register_at_fork(after_in_child=_close_in_child)
