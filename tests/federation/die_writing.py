"""A tiny run that kills itself when it writes for the n-th time: `python -m tests.federation.die_writing FOLDER N`."""

import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nerv_fl.server.run_folder import RunFolder
from tests.federation.tiny_run import run_rounds


def dying(at: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator: the `at`-th call of all that it decorates never happens, nor does anything after it."""
    calls = itertools.count(1)

    def decorate(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if next(calls) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments)

        return call

    return decorate


def main() -> None:
    """Run the folder's remaining rounds in this process, with the disk as the executioner."""
    decorate = dying(int(sys.argv[2]))
    os.fsync = decorate(os.fsync)
    Path.replace = decorate(Path.replace)  # type: ignore[method-assign]
    run_rounds(RunFolder(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
