"""Worker processes that are started afresh and never run the user's script again.

Python's own "spawn" imports the main script in every child, so a script without a main guard would begin anew there,
and code piped into Python has no file to import. The workers here need nothing of the main script: they get functions
and settings of importable modules.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, Final

_MAIN_ATTRIBUTES: Final = ("__file__", "__spec__")
"""Where multiprocessing looks for the script that a child imports."""

_starting = threading.Lock()


class _Process(SpawnProcess):
    """A spawned process that does not import the main script."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 (multiprocessing's name)
        with _starting, _main_script_hidden():
            return SpawnProcess._Popen(process_obj)


class _Context(SpawnContext):
    Process = _Process


def spawn_context() -> SpawnContext:
    """Return the context in which every worker process is started.

    Guarantees:
        Children import nothing of the main script, whether or not it has a main guard or even a file.
    """
    return _Context()


@contextmanager
def _main_script_hidden() -> Iterator[None]:
    main = sys.modules["__main__"].__dict__
    hidden: dict[str, Any] = {name: main[name] for name in _MAIN_ATTRIBUTES if name in main}
    main |= dict.fromkeys(hidden)
    try:
        yield
    finally:
        main |= hidden
