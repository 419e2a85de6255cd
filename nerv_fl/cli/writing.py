"""Lock of a command's output: one process at a time writes to one `--out`."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from nerv_fl.io.locks import exclusive, output_lock

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def writes_output(command: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Return a command that holds the lock of its `out` while it runs.

    Two commands that write one output would mix their checkpoints and finished parts, and each report success.

    Args:
        command: Has a parameter `out`, a path, which it is given by name.

    Raises:
        CheckpointError: When it is called while another process writes there, naming it.
    """

    @wraps(command)
    def call(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        out = Path(str(options["out"]))
        out.resolve().parent.mkdir(parents=True, exist_ok=True)
        with exclusive(output_lock(out), written=out):
            return command(*arguments, **options)

    return call
