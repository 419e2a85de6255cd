"""Paths that Flower's settings name."""

from pathlib import Path

from nerv_fl.errors import ConfigError


def absolute(what: str, value: object) -> Path:
    """Return a path that must be absolute.

    Raises:
        ConfigError: If it is not.
    """
    if not isinstance(value, str) or not Path(value).is_absolute():
        raise ConfigError(f"{what} is {value!r}, expected an absolute path: Flower starts its apps in other folders")
    return Path(value)
