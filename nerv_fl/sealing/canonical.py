"""One way to write a value, so that what is signed is what is read.

Canonical JSON: ASCII, keys sorted, no spaces, finite numbers. Canonical base64: the standard alphabet, padded, unused
bits zero. The readers accept nothing that the writers would not have written.

Source: the aim of RFC 8785, without its number format (Python's shortest round-trip); RFC 4648, sections 3.5 and 4.
"""

import base64
import binascii
import json
from collections.abc import Mapping

from nerv_fl.errors import SealError


def to_json(value: object, *, what: str, indent: int | None = None) -> str:
    """Write a JSON value canonically.

    Args:
        value: Dictionaries with text keys, lists or tuples, text, finite numbers, booleans, None.
        what: Name of the value, for the message.
        indent: Spaces a level, for documents that people read; None for one line.

    Raises:
        SealError: If the value cannot be written, holds a number that is not finite or a key that is not text.

    >>> to_json({"b": 1, "a": [True, None]}, what="example")
    '{"a":[true,null],"b":1}'
    """
    separators = (",", ":") if indent is None else (",", ": ")
    try:
        text = json.dumps(value, sort_keys=True, indent=indent, separators=separators, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise SealError(f"{what} cannot be written as canonical JSON: {error}") from error
    if not _has_text_keys(value):
        raise SealError(f"{what} cannot be written as canonical JSON: all its keys must be text")
    return text


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


def _has_text_keys(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _has_text_keys(inner) for key, inner in value.items())
    return not isinstance(value, list | tuple) or all(map(_has_text_keys, value))
