"""How the coordinates of an update become bytes. A new codec is one pair of functions and one line in `CODECS`.

    fp32    4 bytes a coordinate    as they are
    bf16    2 bytes                 the upper half of a binary32
    int8    1 byte, and 2 a block   c s: a code c in -127..127 and a scale s for each block of 1,024 coordinates

bf16 and int8 round at random: u between the neighbours a < b of its grid becomes b with probability (u - a) / (b - a).
So E[decoded] = u exactly, and what rounding adds to a mean over many nodes shrinks as noise does; rounding to nearest
would cost no randomness, and leave each node the same bias. s is the least bfloat16 number that is not below the
block's largest magnitude over 127; eight bits times seven are a binary32, so decoding rounds nothing again.

What is rounded is the noised update, so this is post-processing: epsilon is the same with every codec.

Sources: Gupta et al., "Deep learning with limited numerical precision", 2015, section 3.1 (stochastic rounding);
Alistarh et al., "QSGD", 2017, section 3.3 (a scale for each block); Dwork and Roth, "The algorithmic foundations of
differential privacy", 2014, proposition 2.1 (post-processing).

Shapes: P parameters, K blocks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nerv_fl.errors import ConfigError, DataError
from nerv_fl.types import Vector

BLOCK: Final = 1024
"""Coordinates that share a scale."""

LARGEST: Final = 2.0**127
"""Magnitude up to which rounding up gives a finite number."""

_MAX_CODE: Final = 127
_CHUNK: Final = 256 * BLOCK
_COORDINATE: Final = np.dtype("<f4")
_HALF: Final = np.dtype("<u2")


@dataclass(frozen=True, kw_only=True)
class Codec:
    """One way to write an update.

    Attributes:
        encode: Takes float32 [P], contiguous, and what to round with; returns bytes.
        decode: Takes `size_bytes(P)` bytes and P; returns float32 [P] that may be written, or raises DataError.
        size_bytes: Bytes of P coordinates.
        spacing: From a decoded update, more than each |decoded - encoded|, float32 [P], or [1] for all.
    """

    encode: Callable[[Vector, np.random.Generator | None], bytes]
    decode: Callable[[memoryview, int], Vector]
    size_bytes: Callable[[int], int]
    spacing: Callable[[Vector], Vector]


def _encode_fp32(update_P: Vector, _: np.random.Generator | None) -> bytes:
    return update_P.astype(_COORDINATE, copy=False).tobytes()


def _decode_fp32(body: memoryview, _: int) -> Vector:
    return np.frombuffer(body, _COORDINATE).astype(np.float32)


def _encode_bf16(update_P: Vector, rounding: np.random.Generator | None) -> bytes:
    """Add 16 random bits below the half that is kept: its carry is the rounding."""
    drawn_P = _ready(update_P, rounding).integers(1 << 16, size=len(update_P), dtype=np.uint16)
    return ((update_P.view(np.uint32) + drawn_P) >> 16).astype(_HALF).tobytes()


def _decode_bf16(body: memoryview, _: int) -> Vector:
    return _widen(np.frombuffer(body, _HALF))


def _encode_int8(update_P: Vector, rounding: np.random.Generator | None) -> bytes:
    rounding = _ready(update_P, rounding)
    scales_K = _scales(update_P)
    wide_K = np.where(scales_K > 0, scales_K, 1).astype(np.float64)
    codes_P = np.empty(len(update_P), dtype=np.int8)
    for start in range(0, len(update_P), _CHUNK):
        part = update_P[start : start + _CHUNK]
        whose = np.repeat(wide_K[start // BLOCK : (start + _CHUNK) // BLOCK], BLOCK)[: len(part)]
        exact = part / whose
        low = np.floor(exact)
        codes_P[start : start + _CHUNK] = low + (rounding.random(len(part)) < exact - low)
    return (scales_K.view(np.uint32) >> 16).astype(_HALF).tobytes() + codes_P.tobytes()


def _decode_int8(body: memoryview, num_parameters: int) -> Vector:
    num_blocks = -(-num_parameters // BLOCK)
    scales_K = _widen(np.frombuffer(body, _HALF, count=num_blocks))
    wrong_K = ~np.isfinite(scales_K) | np.signbit(scales_K)
    if wrong_K.any():
        block = int(wrong_K.argmax())
        raise DataError(f"has the scale {scales_K[block]:g} in block {block}, expected a finite one, at least 0")
    codes_P = np.frombuffer(body, np.int8, offset=_HALF.itemsize * num_blocks)
    if (codes_P < -_MAX_CODE).any():
        raise DataError(f"has the code {codes_P.min()}, expected {-_MAX_CODE} to {_MAX_CODE}")
    blocks_KB = np.zeros((num_blocks, BLOCK), dtype=np.float32)
    blocks_KB.reshape(-1)[:num_parameters] = codes_P
    with np.errstate(over="ignore"):  # the enclave counts what is not finite
        blocks_KB *= scales_K[:, None]
    return blocks_KB.reshape(-1)[:num_parameters]


def _spacing_int8(decoded_P: Vector) -> Vector:
    """Return s of each coordinate's block from above: the largest code of a block is 126 or 127."""
    return np.repeat(_largest(decoded_P) / np.float32(_MAX_CODE - 1), BLOCK)[: len(decoded_P)]


def _scales(update_P: Vector) -> Vector:
    """Return the least bfloat16 number >= max |u| / 127 of each block, float32 [K]."""
    exact_K = _largest(update_P).astype(np.float64) / _MAX_CODE
    near_K = exact_K.astype(np.float32)
    above_K = np.where(near_K < exact_K, np.nextafter(near_K, np.float32(np.inf)), near_K)
    return ((above_K.view(np.uint32) + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)).view(np.float32)


def _largest(vector_P: Vector) -> Vector:
    """Return the largest magnitude of each block, float32 [K]."""
    return np.maximum.reduceat(np.abs(vector_P), np.arange(0, len(vector_P), BLOCK), dtype=np.float32)


def _widen(halves: NDArray[np.uint16]) -> Vector:
    return (halves.astype(np.uint32) << 16).view(np.float32)


def _ready(update_P: Vector, rounding: np.random.Generator | None) -> np.random.Generator:
    """Return what to round with, unless it is missing or something cannot be rounded."""
    if rounding is None:
        raise ConfigError("rounding is None, expected a generator with a codec that rounds")
    wrong = len(update_P) - int(np.count_nonzero(np.abs(update_P) <= LARGEST))
    if wrong:
        raise ConfigError(f"update has {wrong} numbers beyond {LARGEST:g}, expected none with a codec that rounds")
    return rounding


CODECS: Final[Mapping[str, Codec]] = {
    "fp32": Codec(
        encode=_encode_fp32, decode=_decode_fp32, size_bytes=lambda p: 4 * p, spacing=lambda _: np.zeros(1, np.float32)
    ),
    "bf16": Codec(
        encode=_encode_bf16,
        decode=_decode_bf16,
        size_bytes=lambda p: 2 * p,
        spacing=lambda v: np.abs(v) * np.float32(2**-7),
    ),
    "int8": Codec(
        encode=_encode_int8, decode=_decode_int8, size_bytes=lambda p: p + 2 * -(-p // BLOCK), spacing=_spacing_int8
    ),
}
"""Every codec by its name, four ASCII letters, which stands in the payload."""
