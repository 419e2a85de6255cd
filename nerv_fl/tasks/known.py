"""Which tasks there are: our own by name, anyone's by where it lies."""

import importlib
from typing import Any, Final, TypeAlias

from nerv_fl.config import RunConfig
from nerv_fl.errors import ConfigError
from nerv_fl.tasks.start import Constants
from nerv_fl.tasks.task import Task
from nerv_fl.tasks.user_code import user_error

AnyTask: TypeAlias = Task[Any, Any, Any]

KNOWN: Final = {
    "encoder": "nerv_fl.tasks.encoder:EncoderTask",
    "forecaster": "nerv_fl.tasks.forecaster:ForecasterTask",
}
"""A task of ours is a class and a line here."""


def find_task(name: str) -> type[AnyTask]:
    """Return a task's class.

    Args:
        name: "encoder", "forecaster", or "package.module:Class" of your own.

    Raises:
        ConfigError: If there is none, or it is no task.
        TaskError: If its module raises an error while it is imported.
    """
    module, _, attribute = KNOWN.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise ConfigError(f"task is {name!r}, which cannot be imported: {error}") from error
    except Exception as error:
        raise user_error(error) or error from error
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise ConfigError(f"task is {name!r}, a {type(found).__name__}, expected a subclass of nerv_fl.tasks.task.Task")
    return found


def make_task(config: RunConfig, constants: Constants) -> AnyTask:
    """Return the task of a run.

    Raises:
        ConfigError: If there is none of this name, or it does not allow the settings or the constants.
    """
    return find_task(config.task)(config, constants)
