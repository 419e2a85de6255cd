"""Descriptions of exceptions that a task's own code raises: the exception and the line of the user's file."""

import sys
import sysconfig
import traceback
from pathlib import Path
from typing import Final

import nerv_fl

_OURS: Final = Path(nerv_fl.__file__).resolve().parent
_LIBRARIES: Final = tuple(Path(path).resolve() for path in sysconfig.get_paths().values())


def describe(error: BaseException) -> str:
    """Return an exception in one line: its type, its message, and the innermost line outside of libraries.

    >>> describe(ValueError("no such column"))
    'ValueError: no such column'
    """
    text = " ".join(traceback.format_exception_only(error)[-1].split())
    place = location(error)
    return f"{text} ({place})" if place else text


def location(error: BaseException) -> str:
    """Return the innermost line of a user's own file that an exception passed, as ``file, line 12, in losses``.

    The result is empty if no frame lies outside of nerv_fl, installed packages and the standard library.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    if not frames:
        return ""
    return f"{frames[-1].filename}, line {frames[-1].lineno}, in {frames[-1].name}"


def _is_users(filename: str) -> bool:
    if filename.startswith("<"):
        return False
    path = Path(filename).resolve()
    roots = (_OURS, _OURS.parent / "simulations", _OURS.parent / "datagen", *_LIBRARIES, Path(sys.prefix).resolve())
    return not any(path.is_relative_to(root) for root in roots)
