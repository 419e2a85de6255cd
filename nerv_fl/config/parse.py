"""One parser for TOML recipes, ``--set`` overrides and Flower's run config.

All three become one flat mapping of dotted keys to values, from which the frozen sections are built. An unknown key
is an error that suggests the nearest known one.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeAlias, get_type_hints

import tomli_w

from nerv_fl.config.run import RunConfig
from nerv_fl.errors import ConfigError
from nerv_fl.validation import nearest

Value: TypeAlias = str | int | float | bool | list[float]
Flat: TypeAlias = dict[str, Value]


def read_recipe(path: Path, *, overrides: Iterable[str] = ()) -> RunConfig:
    """Read a TOML recipe and apply ``key=value`` overrides.

    Args:
        path: TOML file.
        overrides: Texts such as ``federation.num_nodes=50``; values are TOML.

    Raises:
        ConfigError: If the file is missing or not TOML, or a setting is unknown or out of range.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows editors write a mark
    except OSError as error:
        raise ConfigError(f"recipe {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path} is not TOML: {error}") from error
    return build(flatten(table) | parse_overrides(overrides))


def parse_overrides(overrides: Iterable[str]) -> Flat:
    """Parse ``key=value`` texts; a value that is not TOML is taken as a string.

    >>> parse_overrides(["seed=8", "server.optimizer=momentum"])
    {'seed': 8, 'server.optimizer': 'momentum'}
    """
    flat: Flat = {}
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise ConfigError(f"override is {text!r}, expected key=value, such as seed=8")
        try:
            flat[key.strip()] = tomllib.loads(f"value = {value.strip()}")["value"]
        except tomllib.TOMLDecodeError:
            flat[key.strip()] = value.strip()
    return flat


def flatten(table: Mapping[str, Any], *, prefix: str = "") -> Flat:
    """Return a nested table as dotted keys.

    >>> flatten({"seed": 7, "gate": {"confidence": 0.95}})
    {'seed': 7, 'gate.confidence': 0.95}
    """
    flat: Flat = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, prefix=f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def build(flat: Mapping[str, Value]) -> RunConfig:
    """Build a run's configuration from dotted keys; what is absent keeps its default.

    Raises:
        ConfigError: If a key is unknown, or a value has the wrong type or is out of range.
    """
    known = flatten(as_table(RunConfig()))
    for key in flat:
        if key not in known:
            raise ConfigError(f"setting {key!r} is unknown{nearest(key, choices=known)}")
    config: RunConfig = _build_section(RunConfig, flat, prefix="")
    return config


def as_table(config: object) -> dict[str, Any]:
    """Return a configuration as nested plain tables (the inverse of `build` after `flatten`)."""
    table: dict[str, Any] = {}
    for item in fields(config):  # type: ignore[arg-type]
        value = getattr(config, item.name)
        if is_dataclass(value):
            table[item.name] = as_table(value)
        else:
            table[item.name] = list(value) if isinstance(value, tuple) else value
    return table


def to_toml(config: RunConfig) -> str:
    """Return a configuration as TOML text that `read_recipe` reads back."""
    return tomli_w.dumps(as_table(config))


def _build_section(section: type[Any], flat: Mapping[str, Value], *, prefix: str) -> Any:
    hints = get_type_hints(section)
    arguments: dict[str, Any] = {}
    for item in fields(section):
        key, hint = prefix + item.name, hints[item.name]
        if is_dataclass(hint):
            arguments[item.name] = _build_section(hint, flat, prefix=f"{key}.")  # type: ignore[arg-type]
        elif key in flat:
            arguments[item.name] = _coerce(key, flat[key], hint=hint)
    return section(**arguments)


def _coerce(key: str, value: Value, *, hint: Any) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint == tuple[float, ...] and isinstance(value, list):
        return tuple(_coerce(key, item, hint=float) for item in value)
    expected = getattr(hint, "__name__", str(hint)) if hint in (int, float, str, bool) else "list of numbers"
    if type(value) is not hint:
        raise ConfigError(f"{key} is {value!r}, expected a value of type {expected}")
    return value
