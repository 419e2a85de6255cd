"""What an envelope carries: one update as bytes.

    offset  size  field
    0       4     codec: "fp32"
    4       8     num_parameters P, unsigned, little-endian
    12      4 P   coordinates, IEEE 754 binary32, little-endian

The update is all there is: no loss, batch size or gradient norm leaves a node.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from nerv_fl.errors import ConfigError
from nerv_fl.sealing.refusal import EnvelopeRefused

_FRAME = struct.Struct("<4sQ")
_FP32 = b"fp32"
_COORDINATE = np.dtype("<f4")


def update_size_bytes(num_parameters: int) -> int:
    """Return the size of an encoded update: 12 + 4 P.

    >>> update_size_bytes(40_000)
    160012
    """
    return _FRAME.size + _COORDINATE.itemsize * num_parameters


def encode_update(update: NDArray[np.float32]) -> bytes:
    """Encode an update.

    Args:
        update: float32 [P], any strides.

    Returns:
        `update_size_bytes(P)` bytes.

    Raises:
        ConfigError: If the array is not float32 with one axis.
    """
    if update.dtype != np.float32 or update.ndim != 1:
        raise ConfigError(f"update is {update.dtype} {list(update.shape)}, expected float32 [num_parameters]")
    return _FRAME.pack(_FP32, update.size) + update.astype(_COORDINATE, copy=False).tobytes()


def decode_update(payload: bytes, *, num_parameters: int) -> NDArray[np.float32]:
    """Decode the payload of an opened envelope.

    Args:
        payload: What `open_envelope` returned.
        num_parameters: P of the model of this run.

    Returns:
        float32 [P], a copy that may be written. Numbers that are not finite pass: the enclave counts them.

    Raises:
        EnvelopeRefused: "bad-payload", attributable, since only the node that signed the envelope can have written it.
    """
    if len(payload) < _FRAME.size:
        raise _bad_payload(f"has {len(payload)} bytes, expected at least {_FRAME.size}")
    codec, size = _FRAME.unpack_from(payload)
    if codec != _FP32:
        raise _bad_payload(f"has the codec {codec!r}, expected {_FP32!r}")
    if size != num_parameters:
        raise _bad_payload(f"has {size} parameters, expected {num_parameters}")
    if len(payload) != update_size_bytes(num_parameters):
        raise _bad_payload(f"has {len(payload)} bytes, expected {update_size_bytes(num_parameters)}")
    return np.frombuffer(payload, _COORDINATE, offset=_FRAME.size).astype(np.float32)


def _bad_payload(what: str) -> EnvelopeRefused:
    return EnvelopeRefused(f"update {what}", "bad-payload", attributable=True)
