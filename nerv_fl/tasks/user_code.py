"""Errors that the user's own code raised, told apart from those of this package."""

import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nerv_fl.errors import TaskError

OWN_PACKAGES: Final = ("nerv_fl", "datagen", "simulations")
ROOT: Final = Path(__file__).resolve().parents[2]
"""The folder that holds our packages."""


def user_error(error: BaseException) -> TaskError | None:
    """Return an error that names the user's file and line that raised another, None if his code did not raise it.

    Frames of the standard library and of installed packages are passed over: what they raise is the fault of the
    innermost code that called them. An error in which our own code is innermost is ours.

    >>> user_error(ValueError("raised nowhere"))
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_own(frame.filename):
            return None
        if not _is_library(frame.filename):
            message = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
            raised = f"{type(error).__name__}: {message}" if message else type(error).__name__
            return TaskError(f"{frame.filename}:{frame.lineno}, in {frame.name}, raised {raised}")
    return None


def describe(error: BaseException) -> str:
    """Return an exception in one line: its type, its message, and the innermost line of the user's code, if any.

    >>> describe(ValueError("no such column"))
    'ValueError: no such column'
    """
    text = " ".join(traceback.format_exception_only(error)[-1].split())
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not (_is_own(frame.filename) or _is_library(frame.filename)):
            return f"{text} ({frame.filename}, line {frame.lineno}, in {frame.name})"
    return text


def _is_own(filename: str) -> bool:
    path = Path(filename).resolve()
    return path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in OWN_PACKAGES


def _is_library(filename: str) -> bool:
    if filename.startswith("<"):
        return filename != "<stdin>"
    path = Path(filename).resolve()
    return any(path.is_relative_to(folder) for folder in _library_folders())


def _library_folders() -> Iterator[Path]:
    paths = sysconfig.get_paths()
    yield from (Path(paths[name]).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib"))
