"""Argument checks that name the argument, its value and what was expected."""

import difflib
import math
from collections.abc import Collection, Iterable

from nerv_fl.errors import ConfigError


def in_range(name: str, value: float, *, low: float, high: float, open_low: bool = False) -> None:
    """Raise unless ``low <= value <= high`` (``low < value`` if ``open_low``).

    Args:
        name: Dotted name of the setting, as its user wrote it.
        value: Number to check; NaN is never in range.
        low: Lower end.
        high: Upper end, included; may be ``math.inf``.
        open_low: Whether ``low`` itself is refused.

    Raises:
        ConfigError: If the value lies outside the range.

    >>> in_range("gate.confidence", 0.95, low=0.5, high=1.0)
    >>> in_range("gate.confidence", 7, low=0.5, high=1.0)
    Traceback (most recent call last):
        ...
    nerv_fl.errors.ConfigError: gate.confidence is 7, expected a number in [0.5, 1.0]
    """
    above = value > low if open_low else value >= low
    if math.isnan(value) or not above or value > high:
        left = "(" if open_low else "["
        raise ConfigError(f"{name} is {value}, expected a number in {left}{low}, {high}]")


def one_of(name: str, value: str, *, choices: Collection[str]) -> None:
    """Raise unless ``value`` is one of ``choices``, suggesting the nearest.

    Raises:
        ConfigError: If the value is not among the choices.
    """
    if value not in choices:
        expected = ", ".join(sorted(choices))
        raise ConfigError(f"{name} is {value!r}, expected one of: {expected}{nearest(value, choices=choices)}")


def nearest(word: str, *, choices: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the choice nearest to ``word``, or an empty string.

    >>> nearest("lerning_rate", choices=["learning_rate", "sigma"])
    " (did you mean 'learning_rate'?)"
    """
    found = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else ""
