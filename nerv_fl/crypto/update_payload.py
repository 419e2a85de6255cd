"""What an envelope carries: one update as bytes.

    offset  size  field
    0       4     codec: "fp32", "bf16" or "int8"
    4       8     num_parameters P, unsigned, little-endian
    12      ...   body, in one piece and little-endian
                  fp32: P coordinates, IEEE 754 binary32
                  bf16: P coordinates, the upper halves of binary32
                  int8: ceil(P / 1024) scales as bf16, then P codes, two's complement

The update is all there is: no loss, batch size or gradient norm leaves a node. `codecs` says how coordinates round.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from nerv_fl.crypto.rejection import EnvelopeRefused
from nerv_fl.crypto.update_codecs import CODECS
from nerv_fl.errors import ConfigError, DataError
from nerv_fl.types import Vector

_FRAME = struct.Struct("<4sQ")


def update_size_bytes(num_parameters: int, *, codec: str = "fp32") -> int:
    """Return the size of an encoded update.

    >>> update_size_bytes(40_000)
    160012
    >>> update_size_bytes(40_000, codec="int8")
    40092
    """
    return _FRAME.size + CODECS[codec].size_bytes(num_parameters)


def encode_update(
    update: NDArray[np.float32], *, codec: str = "fp32", rounding: np.random.Generator | None = None
) -> bytes:
    """Encode an update.

    Args:
        update: float32 [P], any strides.
        codec: Name of a codec.
        rounding: What "bf16" and "int8" round with.

    Returns:
        `update_size_bytes(P, codec=codec)` bytes.

    Raises:
        ConfigError: If the array is not float32 with one axis, or a codec that rounds is given nothing to round with
            or numbers beyond 2^127, NaN among them.

    Guarantees:
        The mean of what is decoded, over the generator's draws, is the update. Being a function of the noised update
        and of independent draws, the bytes have its epsilon.
    """
    if update.dtype != np.float32 or update.ndim != 1:
        raise ConfigError(f"update is {update.dtype} {list(update.shape)}, expected float32 [num_parameters]")
    body = CODECS[codec].encode(np.ascontiguousarray(update), rounding)
    return _FRAME.pack(codec.encode(), update.size) + body


def decode_update(payload: bytes, *, num_parameters: int, codec: str = "fp32") -> Vector:
    """Decode the payload of an opened envelope.

    Args:
        payload: What `open_envelope` returned.
        num_parameters: P of the model of this run.
        codec: The run's codec.

    Returns:
        float32 [P], a copy that may be written. Numbers that are not finite pass: the enclave counts them.

    Raises:
        EnvelopeRefused: "bad-payload", attributable, since only the node that signed the envelope can have written it.
    """
    if len(payload) < _FRAME.size:
        raise _bad_payload(f"has {len(payload)} bytes, expected at least {_FRAME.size}")
    found, size = _FRAME.unpack_from(payload)
    if found != codec.encode():
        raise _bad_payload(f"has the codec {found!r}, expected {codec.encode()!r}")
    if size != num_parameters:
        raise _bad_payload(f"has {size} parameters, expected {num_parameters}")
    if len(payload) != update_size_bytes(num_parameters, codec=codec):
        raise _bad_payload(f"has {len(payload)} bytes, expected {update_size_bytes(num_parameters, codec=codec)}")
    try:
        return CODECS[codec].decode(memoryview(payload)[_FRAME.size :], num_parameters)
    except DataError as error:
        raise _bad_payload(str(error)) from error


def rounding_spacing(decoded_P: Vector, *, codec: str) -> Vector:
    """Return a bound on how far rounding moved each coordinate of an honest update: |decoded - encoded| < spacing.

    Args:
        decoded_P: float32 [P], as `decode_update` returned it.
        codec: The run's codec.

    Returns:
        float32 [P], or [1] where it is the same for all; 0 where nothing is rounded.
    """
    return CODECS[codec].spacing(decoded_P)


def _bad_payload(what: str) -> EnvelopeRefused:
    return EnvelopeRefused(f"update {what}", "bad-payload", attributable=True)
