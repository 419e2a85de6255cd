"""One way to write a value, so that what is signed is what is read.

Canonical JSON: ASCII, keys sorted, no spaces, finite numbers. Canonical base64: the standard alphabet, padded, unused
bits zero. The readers accept nothing that the writers would not have written. No value is nested deeper than
`MAX_NESTING`, so that no text, however short, exhausts the stack of whoever reads it.

Source: the aim of RFC 8785, without its number format (Python's shortest round-trip); RFC 4648, sections 3.5 and 4.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from typing import Final

from nerv_fl.errors import SealError

MAX_NESTING: Final = 16
"""Most containers within each other; a signed certificate, the deepest value there is, has 4."""


def to_json(value: object, *, what: str, indent: int | None = None) -> str:
    """Write a JSON value canonically.

    Args:
        value: Dictionaries with text keys, lists or tuples, text, finite numbers, booleans, None.
        what: Name of the value, for the message.
        indent: Spaces a level, for documents that people read; None for one line.

    Raises:
        SealError: If the value cannot be written, holds a number that is not finite or a key that is not text, or is
            nested deeper than `MAX_NESTING`.

    >>> to_json({"b": 1, "a": [True, None]}, what="example")
    '{"a":[true,null],"b":1}'
    """
    _check_containers(value, what=what)
    separators = (",", ":") if indent is None else (",", ": ")
    try:
        return json.dumps(value, sort_keys=True, indent=indent, separators=separators, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SealError(f"{what} cannot be written as canonical JSON: {error}") from error


def read_json(data: bytes, *, what: str, keys: frozenset[str], indent: int | None = None) -> dict[str, object]:
    """Read a JSON object that `to_json` wrote (followed by a newline if indented).

    Args:
        data: The bytes as they came; bound their length first.
        what: Name of the value, for the messages.
        keys: Exactly the keys the object must have.
        indent: As it was written.

    Raises:
        SealError: If it is not such an object, or not byte for byte in canonical form.
    """
    try:
        value = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise SealError(f"{what} is not JSON") from error
    if not isinstance(value, dict) or value.keys() != keys:
        raise SealError(f"{what} must be a JSON object with the keys {', '.join(sorted(keys))}")
    ending = "" if indent is None else "\n"
    if (to_json(value, what=what, indent=indent) + ending).encode() != data:
        raise SealError(f"{what} is not in canonical form: it was edited, or written by another program")
    return value


def text_at(fields: Mapping[str, object], key: str, *, what: str) -> str:
    """Return the text at a key.

    Raises:
        SealError: If something else is there.
    """
    value = fields[key]
    if not isinstance(value, str):
        raise SealError(f"{what} has {type(value).__name__} {value!r:.80} at {key!r}, expected text")
    return value


def count_at(fields: Mapping[str, object], key: str, *, what: str) -> int:
    """Return the non-negative integer at a key.

    Raises:
        SealError: If something else is there, a boolean included.
    """
    value = fields[key]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise SealError(f"{what} has {value!r:.80} at {key!r}, expected an integer from 0")
    return value


def to_base64(data: bytes) -> str:
    """Write bytes as canonical base64.

    >>> to_base64(b"NERV")
    'TkVSVg=='
    """
    return base64.b64encode(data).decode("ascii")


def from_base64(text: str, *, what: str) -> bytes:
    """Read canonical base64.

    Raises:
        SealError: If the text is not base64, or a different text for the same bytes.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SealError(f"{what} is not base64: {text!r:.40}") from error
    if to_base64(data) != text:
        raise SealError(f"{what} is not canonical base64: {text[-8:]!r} at its end")
    return data


def _check_containers(value: object, *, what: str) -> None:
    """Raise unless all keys are text and nesting has its limit; level by level, since recursion is what it guards."""
    level: Iterable[object] = [value]
    for _ in range(MAX_NESTING + 1):
        containers = [item for item in level if isinstance(item, dict | list | tuple)]
        if not containers:
            return
        if not all(isinstance(key, str) for item in containers if isinstance(item, dict) for key in item):
            raise SealError(f"{what} cannot be written as canonical JSON: all its keys must be text")
        level = [inner for item in containers for inner in (item.values() if isinstance(item, dict) else item)]
    raise SealError(f"{what} is nested deeper than {MAX_NESTING} levels")
