"""Which processes are at work on a block right now, for whoever shows a run's progress.

Each leaves one file while it works, named by its process. A process that was killed leaves it behind: such files count
for nothing, since no process has their number.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

FOLDER: Final = ".actors"


@contextmanager
def present(nodes: Path) -> Iterator[None]:
    """Say that this process is at work, until the context ends; a disk that takes no file stops nothing.

    Args:
        nodes: Folder of the nodes' folders.
    """
    path = nodes / FOLDER / str(os.getpid())
    with suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def num_present(nodes: Path) -> int:
    """Return how many processes of this machine are at work."""
    try:
        names = [path.name for path in (nodes / FOLDER).iterdir()]
    except OSError:
        return 0
    return sum(name.isdecimal() and _is_alive(int(name)) for name in names)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it is another user's
    return True
