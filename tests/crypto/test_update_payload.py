"""Updates as bytes."""

import re
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from nerv_fl.crypto import EnvelopeRefused, decode_update, encode_update, update_size_bytes
from nerv_fl.errors import ConfigError


@given(update=st_numpy.arrays(np.float32, st.integers(0, 50)))
def test_an_update_keeps_all_its_bits(update: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
    payload = encode_update(update)
    assert len(payload) == update_size_bytes(update.size)
    decoded = decode_update(payload, num_parameters=update.size)
    assert decoded.dtype == np.float32
    assert decoded.tobytes() == update.tobytes()


def test_the_bytes_are_those_of_the_format() -> None:
    payload = encode_update(np.array([1.0, -2.0], np.float32))
    assert payload == b"fp32" + b"\x02" + bytes(7) + b"\x00\x00\x80\x3f" + b"\x00\x00\x00\xc0"


def test_strides_do_not_matter_and_the_result_is_writable() -> None:
    update = np.arange(6, dtype=np.float32)[::-2]
    decoded = decode_update(encode_update(update), num_parameters=3)
    decoded[0] += 1
    assert decoded.tolist() == [6.0, 3.0, 1.0]


def test_numbers_that_are_not_finite_pass() -> None:
    decoded = decode_update(encode_update(np.array([np.nan, np.inf], np.float32)), num_parameters=2)
    assert np.isnan(decoded[0])
    assert np.isinf(decoded[1])


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (np.zeros(3), "update is float64 [3], expected float32 [num_parameters]"),
        (np.zeros((2, 2), np.float32), "update is float32 [2, 2], expected float32 [num_parameters]"),
    ],
)
def test_other_arrays_are_not_encoded(update: np.ndarray[tuple[int, ...], np.dtype[np.float32]], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        encode_update(update)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"fp32", "update has 4 bytes, expected at least 12"),
        (struct.pack("<4sQ", b"fp64", 2) + bytes(16), "update has the codec b'fp64', expected b'fp32'"),
        (struct.pack("<4sQ", b"fp32", 3) + bytes(12), "update has 3 parameters, expected 2"),
        (struct.pack("<4sQ", b"fp32", 2) + bytes(7), "update has 19 bytes, expected 20"),
        (struct.pack("<4sQ", b"fp32", 2) + bytes(9), "update has 21 bytes, expected 20"),
    ],
)
def test_another_payload_is_refused_and_blamed_on_its_signer(payload: bytes, message: str) -> None:
    with pytest.raises(EnvelopeRefused, match=f"^{re.escape(message)}$") as refusal:
        decode_update(payload, num_parameters=2)
    assert refusal.value.reason == "bad-payload"
    assert refusal.value.attributable
