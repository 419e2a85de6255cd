"""Facts about each start of a run, for its manifest: date, host, cores, command line and duration.

They describe how a run was executed and enter nothing that is computed, hashed or compared between runs.
"""

import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final

from nerv_fl.errors import CheckpointError
from nerv_fl.server.run_folder import RunFolder

SESSIONS: Final = "sessions"
"""Field of the manifest: one object for each start, the first one included."""


def begin_session(folder: RunFolder) -> None:
    """Add this process's start to the manifest."""
    start = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "cores": len(os.sched_getaffinity(0)),
        "command": shlex.join(sys.orig_argv),
        "seconds": None,
    }
    _write(folder, [*_read(folder), start])


@contextmanager
def session(folder: RunFolder) -> Iterator[None]:
    """Add a start to the manifest, and its duration when the context ends; a killed process leaves none."""
    began = time.monotonic()
    begin_session(folder)
    try:
        yield
    finally:
        # The error that ended the session is the one to show.
        with suppress(CheckpointError, OSError):
            _end(folder, began)


def _end(folder: RunFolder, began: float) -> None:
    *earlier, last = _read(folder)
    _write(folder, [*earlier, last | {"seconds": round(time.monotonic() - began, 1)}])


def _read(folder: RunFolder) -> list[dict[str, Any]]:
    return list(folder.read_manifest().get(SESSIONS, []))


def _write(folder: RunFolder, sessions: list[dict[str, Any]]) -> None:
    folder.update_manifest(**{SESSIONS: sessions})
