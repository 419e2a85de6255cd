"""Hostile inputs from valid ones: bytes flipped, cut, grown, spliced and moved, and JSON values exchanged."""

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

MAX_EDITS: Final = 3
LONGEST_GROWTH: Final = 64

HOSTILE: Final[Sequence[object]] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 2**70, 10**400, 0.0, -0.0, 0.5, 1e-300, 1e308, -1e308,
    "", "0", "\x00", "\ud800", "x" * 200, "é", "ab" * 32, [], {}, [[[[]]]], {"": {"": {}}}, [0] * 50, {"n": 1}, ["x"],
)  # fmt: skip
"""Values that no reader expects where it finds them."""


def flip(data: bytes, _: bytes, draws: np.random.Generator) -> bytes:
    """Flip one bit."""
    if not data:
        return b"\x00"
    at = int(draws.integers(len(data)))
    return data[:at] + bytes([data[at] ^ 1 << int(draws.integers(8))]) + data[at + 1 :]


def cut(data: bytes, _: bytes, draws: np.random.Generator) -> bytes:
    """Remove a piece, often the end."""
    first, last = sorted(int(at) for at in draws.integers(len(data) + 1, size=2))
    return data[:first] if draws.random() < 0.5 else data[:first] + data[last:]


def grow(data: bytes, _: bytes, draws: np.random.Generator) -> bytes:
    """Insert random bytes, often at the end."""
    at = len(data) if draws.random() < 0.3 else int(draws.integers(len(data) + 1))
    return data[:at] + draws.bytes(int(draws.integers(1, LONGEST_GROWTH))) + data[at:]


def splice(data: bytes, other: bytes, draws: np.random.Generator) -> bytes:
    """Go on with another valid input, from the same place or from any."""
    at = int(draws.integers(len(data) + 1))
    return data[:at] + other[at if draws.random() < 0.5 else int(draws.integers(len(other) + 1)) :]


def move(data: bytes, _: bytes, draws: np.random.Generator) -> bytes:
    """Exchange two neighbouring pieces."""
    first, middle, last = sorted(int(at) for at in draws.integers(len(data) + 1, size=3))
    return data[:first] + data[middle:last] + data[first:middle] + data[last:]


def repeat(data: bytes, _: bytes, draws: np.random.Generator) -> bytes:
    """Write a short piece several times."""
    at = int(draws.integers(len(data) + 1))
    piece = data[at : at + int(draws.integers(1, LONGEST_GROWTH))]
    return data[:at] + piece * int(draws.integers(2, 9)) + data[at:]


EDITS: Final[Sequence[Callable[[bytes, bytes, np.random.Generator], bytes]]] = (flip, cut, grow, splice, move, repeat)


def mutate(valid: Sequence[bytes], draws: np.random.Generator) -> bytes:
    """Return the first of some valid inputs after one to three edits, or another of them, or random bytes.

    Args:
        valid: Real inputs; the others are what is spliced in.
        draws: Where every choice comes from.
    """
    kind = draws.random()
    if kind < 0.05:
        return draws.bytes(int(draws.integers(300)))
    other = valid[int(draws.integers(len(valid)))]
    if kind < 0.1:
        return other
    data = valid[0]
    for _ in range(int(draws.integers(1, MAX_EDITS + 1))):
        data = EDITS[int(draws.integers(len(EDITS)))](data, other, draws)
    return data


def mutate_json(value: Any, draws: np.random.Generator) -> Any:
    """Return a JSON value with one thing in it exchanged, removed, added or swapped; the value itself stays."""
    if isinstance(value, dict | list) and value and draws.random() < 0.8:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        first, second = (keys[int(at)] for at in draws.integers(len(keys), size=2))
        changed = value.copy()
        kind = draws.random()
        if kind < 0.1:
            del changed[first]
        elif kind < 0.25:
            changed[first], changed[second] = value[second], value[first]
        else:
            changed[first] = mutate_json(value[first], draws)
        return changed
    if isinstance(value, dict) and draws.random() < 0.3:
        return value | {f"added {int(draws.integers(9))}": hostile(draws)}
    return hostile(draws)


def hostile(draws: np.random.Generator) -> Any:
    """Return a value that no reader expects."""
    return HOSTILE[int(draws.integers(len(HOSTILE)))]


def canonical(value: object, *, indent: int | None = None) -> bytes:
    """Write a JSON value as the project does, without its checks: what is hostile is written too."""
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(value, sort_keys=True, indent=indent, separators=separators)
    return (text + ("" if indent is None else "\n")).encode()
