"""Standard streams that were closed before the command began, or whose reader has gone."""

import os
import sys
from contextlib import suppress
from typing import Final

BROKEN_PIPE: Final = 141
"""Exit status where the reader of the output has gone: 128 and the number of SIGPIPE, as the shell has it."""


def open_closed_streams() -> None:
    """Open the null device in place of standard streams that are closed.

    Otherwise the next files that are opened, such as data or sockets, get their descriptors, and whatever is printed
    or logged goes into them.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))


def drop_output() -> None:
    """Discard what is still to be written to stdout and stderr, so that the interpreter can end without a message."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            os.dup2(null, stream.fileno())
