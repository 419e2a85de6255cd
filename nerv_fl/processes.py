"""Worker processes that are started afresh and never run the user's script again.

Python's own "spawn" imports the main script in every child, so a script without a main guard would begin anew there,
and code piped into Python has no file to import. The workers here need nothing of the main script: they get functions
and settings of importable modules. Ctrl-C, which a terminal sends to every process of a command, is for the command
alone: it ends its workers.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, Final

_MAIN_ATTRIBUTES: Final = ("__file__", "__spec__")
"""Where multiprocessing looks for the script that a child imports."""

_starting = threading.Lock()


class _Process(SpawnProcess):
    """A spawned process that does not import the main script and never gets SIGINT."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 (multiprocessing's name)
        resource_tracker.ensure_running()  # its start unblocks SIGINT, so it must not be the one that Popen makes
        with _starting, _main_script_hidden(), _interrupt_blocked():
            return SpawnProcess._Popen(process_obj)


class _Context(SpawnContext):
    Process = _Process


def spawn_context() -> SpawnContext:
    """Return the context in which every worker process is started.

    Guarantees:
        Children import nothing of the main script, whether or not it has a main guard or even a file. SIGINT is blocked
        in them, from their first instruction on.
    """
    return _Context()


@contextmanager
def worker_pool(num_workers: int) -> Iterator[ProcessPoolExecutor]:
    """Start worker processes, and end them with the block: what is not yet begun is dropped if the block fails."""
    with ProcessPoolExecutor(num_workers, mp_context=spawn_context(), initializer=end_with_parent) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def end_with_parent() -> None:
    """See to it that this process ends as soon as the one that started it has ended, however that came about."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _main_script_hidden() -> Iterator[None]:
    main = sys.modules["__main__"].__dict__
    hidden: dict[str, Any] = {name: main[name] for name in _MAIN_ATTRIBUTES if name in main}
    main |= dict.fromkeys(hidden)
    try:
        yield
    finally:
        main |= hidden


@contextmanager
def _interrupt_blocked() -> Iterator[None]:
    """Block SIGINT in this thread, which children inherit; one that comes in the meantime is delivered afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
