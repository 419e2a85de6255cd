"""Which tasks there are: our own by name, anyone's by where it lies."""

import importlib
import os
import sys
from pathlib import Path
from typing import Any, Final, TypeAlias

from nerv_fl.config import RunConfig
from nerv_fl.errors import ConfigError
from nerv_fl.own_packages import namesakes
from nerv_fl.tasks.initial_model import Constants
from nerv_fl.tasks.task import Task
from nerv_fl.tasks.user_code import user_error

AnyTask: TypeAlias = Task[Any, Any, Any]

KNOWN: Final = {
    "encoder": "nerv_fl.tasks.encoder:EncoderTask",
    "forecaster": "nerv_fl.tasks.forecaster:ForecasterTask",
}
"""A task of ours is a class and a line here."""

TASK_FOLDERS: Final = "NERV_FL_TASK_FOLDERS"
"""Environment variable: folders in which tasks' modules are looked for last, separated as in PATH."""


def find_task(name: str) -> type[AnyTask]:
    """Return a task's class.

    Args:
        name: "encoder", "forecaster", or "package.module:Class" of your own.

    Raises:
        ConfigError: If there is none, or it is no task.
        TaskError: If its module raises an error while it is imported.
    """
    module, _, attribute = KNOWN.get(name, name).partition(":")
    _append_task_folders()
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise ConfigError(f"task is {name!r}, which cannot be imported: {error}{_namesakes()}") from error
    except Exception as error:
        raise user_error(error) or error from error
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise ConfigError(f"task is {name!r}, a {type(found).__name__}, expected a subclass of nerv_fl.tasks.task.Task")
    return found


def add_task_folder(folder: Path) -> None:
    """Look for tasks' modules in a folder too, in this process and in all that it starts, after all other places.

    Last on `sys.path`, the folder's modules cannot take the place of a library's or of ours.
    """
    folders = [text for text in os.environ.get(TASK_FOLDERS, "").split(os.pathsep) if text]
    if str(folder) not in folders:
        os.environ[TASK_FOLDERS] = os.pathsep.join([*folders, str(folder)])


def task_environment() -> dict[str, str]:
    """Return the variables by which processes on other machines find the tasks' folders."""
    return {TASK_FOLDERS: os.environ[TASK_FOLDERS]} if TASK_FOLDERS in os.environ else {}


def _append_task_folders() -> None:
    folders = os.environ.get(TASK_FOLDERS, "").split(os.pathsep)
    sys.path.extend(folder for folder in folders if folder and folder not in sys.path)


def _namesakes() -> str:
    """Return what to do about the user's modules that have the name of one of our packages, if there are any."""
    found = sorted({str(path) for path in namesakes([folder or "." for folder in sys.path])})
    return "".join(f"; {path} has the name of a package of nerv_fl: rename it" for path in found)


def make_task(config: RunConfig, constants: Constants) -> AnyTask:
    """Return the task of a run.

    Raises:
        ConfigError: If there is none of this name, or it does not allow the settings or the constants.
    """
    return find_task(config.task)(config, constants)
