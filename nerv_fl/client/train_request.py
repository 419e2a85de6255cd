"""What a server's message says, taken apart before anything is done with it: nothing in it is trusted.

A request has the fields `run`, `round`, `base_hash`, `evidence`, `constants`, `cohort` and `heard`, and one vector.
Others are not read: batch, steps, learning rate, clip, sigma, codec and budget are the node's own settings, and no
message can change them. The vector is one NPY array of version 1, little-endian float32 with one axis, as NumPy writes
it, byte for byte; it is never handed to a reader that would believe the size in its header.

Source: NumPy, "NPY format", version 1.0.
"""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

import numpy as np
import torch

from nerv_fl.client.node import RoundOrder
from nerv_fl.crypto.associated_data import LARGEST_NUMBER
from nerv_fl.errors import ConfigError, SealError
from nerv_fl.tasks.initial_model import Constants

MAX_CONSTANTS_CHARACTERS: Final = 2**20
"""Longest text of a task's constants that is read: the encoder's has 24 characters, the forecaster's about 2,000."""

_LARGEST_COUNT_DIGITS: Final = 19
_COORDINATE: Final = np.dtype("<f4")


def read_order(request: Mapping[str, object], theta: bytes) -> RoundOrder:
    """Return what is asked, if it could be asked at all; whether it is true the node checks.

    Args:
        request: The message's fields.
        theta: The weights as NPY.

    Raises:
        SealError: Naming the field that is missing, of another type or out of range.
    """
    round_number = request.get("round")
    if not _is_count(round_number) or not 1 <= round_number < LARGEST_NUMBER:  # type: ignore[operator]
        _refuse("round", round_number, "an integer in [1, 2^64)")
    return RoundOrder(
        run=_text(request, "run"),
        round_number=round_number,  # type: ignore[arg-type]
        theta_P=torch.from_numpy(read_vector(theta)),
        base_hash=_text(request, "base_hash"),
        evidence=_text(request, "evidence"),
    )


def read_cohort(request: Mapping[str, object], *, num_nodes: int) -> list[int]:
    """Return the nodes that are asked.

    Args:
        request: The message's fields.
        num_nodes: Nodes of the federation, which are numbered from 0.

    Raises:
        SealError: If it is no list of different numbers in that range.
    """
    cohort = request.get("cohort")
    if not isinstance(cohort, list) or not all(_is_count(node) and 0 <= node < num_nodes for node in cohort):
        _refuse("cohort", cohort, f"a list of nodes from 0 to {num_nodes - 1}")
    if len(set(cohort)) != len(cohort):
        _refuse("cohort", cohort, "each node once")
    return list(cohort)


def read_heard(request: Mapping[str, object], cohort: Sequence[int]) -> dict[int, int]:
    """Return by node the last round that the server says it has heard from it, 0 for none.

    Args:
        request: The message's fields.
        cohort: The nodes that are asked.

    Raises:
        SealError: If it is no list of rounds, one for each of them.
    """
    heard = request.get("heard")
    if not isinstance(heard, list) or not all(_is_count(number) and 0 <= number < LARGEST_NUMBER for number in heard):
        _refuse("heard", heard, "a list of rounds in [0, 2^64)")
    if len(heard) != len(cohort):
        _refuse("heard", heard, f"{len(cohort)} rounds, one for each node of the cohort")
    return dict(zip(cohort, heard, strict=True))


def read_vector(data: bytes) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Return the vector of an NPY array, float32 (P,), a copy that may be written.

    Raises:
        SealError: If it is anything but a float32 vector as NumPy writes it: another type, shape, order or version,
            bytes missing or left over.
    """
    size = max(0, len(data) - len(_npy_header(0))) // _COORDINATE.itemsize
    header = _npy_header(size)
    if not data.startswith(header) or len(data) != len(header) + size * _COORDINATE.itemsize:
        _refuse("theta", data[:96], f"float32 ({size},) as NPY, by its {len(data)} bytes")
    return np.frombuffer(data, _COORDINATE, offset=len(header)).astype(np.float32)


def read_constants(text: str) -> Constants:
    """Return a task's constants; the task says which it allows.

    Raises:
        ConfigError: If the text is no JSON object of finite numbers, texts and lists, or too long.
    """
    if len(text) > MAX_CONSTANTS_CHARACTERS:
        raise ConfigError(f"constants have {len(text)} characters, expected at most {MAX_CONSTANTS_CHARACTERS}")
    try:
        table = json.loads(text, parse_constant=_refuse_constant, parse_int=_short_integer)
    except (ValueError, RecursionError):
        table = None
    if not isinstance(table, dict):
        raise ConfigError(f"constants are {text[:80]!r}, expected a JSON object")
    return table


def _npy_header(size: int) -> bytes:
    header = io.BytesIO()
    fields = {"descr": _COORDINATE.str, "fortran_order": False, "shape": (size,)}
    np.lib.format.write_array_header_1_0(header, fields)
    return header.getvalue()


def _text(request: Mapping[str, object], key: str) -> str:
    value = request.get(key)
    if not isinstance(value, str):
        _refuse(key, value, "text")
    return value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _short_integer(digits: str) -> int:
    if len(digits) > _LARGEST_COUNT_DIGITS:
        raise ValueError(digits[:_LARGEST_COUNT_DIGITS])
    return int(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _refuse(key: str, value: object, expected: str) -> NoReturn:
    raise SealError(f"{key} of the request is {value!r:.120}, expected {expected}")
