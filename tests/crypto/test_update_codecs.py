"""Codecs that round: unbiased, close, small, and the spacing they promise."""

import re
import struct
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from nerv_fl.config import CODEC_NAMES
from nerv_fl.crypto import CODECS, EnvelopeRefused, decode_update, encode_update, rounding_spacing, update_size_bytes
from nerv_fl.errors import ConfigError
from nerv_fl.rng import stream
from nerv_fl.types import Vector

ROUNDING = ("bf16", "int8")
MODERATE = st.floats(-(2.0**127), 2.0**127, width=32)
UPDATES = st_numpy.arrays(np.float32, st.integers(0, 2100), elements=MODERATE, fill=MODERATE)


class Evenly:
    """In place of a generator: every lot is the middle of one of `parts` equal parts of its range."""

    def __init__(self, number: int, parts: int) -> None:
        self.place = (number + 0.5) / parts

    def random(self, size: int) -> Vector:
        return np.full(size, self.place)

    def integers(self, high: int, *, size: int, dtype: type) -> Vector:
        return np.full(size, int(self.place * high), dtype=dtype)


def rounded(update_P: Vector, codec: str, rounding: object) -> Vector:
    payload = encode_update(update_P, codec=codec, rounding=cast("np.random.Generator", rounding))
    assert len(payload) == update_size_bytes(len(update_P), codec=codec)
    return decode_update(payload, num_parameters=len(update_P), codec=codec)


def noise(size: int = 5000) -> Vector:
    return (np.random.default_rng(4).normal(size=size) / 128).astype(np.float32)


def test_every_codec_can_be_asked_for() -> None:
    assert tuple(CODECS) == CODEC_NAMES
    assert all(len(name.encode()) == 4 for name in CODECS)


def test_bytes_are_those_of_the_format() -> None:
    update_P = np.array([127.0, -64.0, 0.0], np.float32)
    rounding = np.random.default_rng(0)
    assert encode_update(update_P, codec="bf16", rounding=rounding) == (
        b"bf16" + b"\x03" + bytes(7) + b"\xfe\x42" + b"\x80\xc2" + b"\x00\x00"
    )
    assert encode_update(update_P, codec="int8", rounding=rounding) == (
        b"int8" + b"\x03" + bytes(7) + b"\x80\x3f" + b"\x7f\xc0\x00"
    )


def test_sizes() -> None:
    """int8: one byte a coordinate and two for each block begun."""
    assert [update_size_bytes(49_376, codec=codec) - 12 for codec in CODECS] == [197_504, 98_752, 49_376 + 98]
    assert [update_size_bytes(1024, codec="int8"), update_size_bytes(1025, codec="int8")] == [12 + 1026, 12 + 1029]


@given(update_P=UPDATES, codec=st.sampled_from(ROUNDING))
def test_a_coordinate_becomes_a_neighbour_nearer_than_the_spacing(update_P: Vector, codec: str) -> None:
    found_P = rounded(update_P, codec, np.random.default_rng(1))
    moved_P = np.abs(found_P.astype(np.float64) - update_P)
    # Numbers below the least normal one become 0 or that: far below any threshold.
    assert (moved_P <= rounding_spacing(found_P, codec=codec).astype(np.float64) + 2.0**-126).all()
    assert found_P.dtype == np.float32
    assert found_P.shape == update_P.shape


@given(update_P=UPDATES)
def test_bf16_leaves_what_it_decoded_as_it_is(update_P: Vector) -> None:
    once_P = rounded(update_P, "bf16", np.random.default_rng(1))
    assert np.array_equal(rounded(once_P, "bf16", np.random.default_rng(2)), once_P)


@given(update_P=st_numpy.arrays(np.float32, st.integers(1, 40), elements=st.floats(-8, 8, width=32)))
def test_the_mean_over_all_lots_of_bf16_is_the_update_exactly(update_P: Vector) -> None:
    """65,536 equally likely lots a coordinate; a mean over them is a sum of two numbers."""
    low_P = rounded(update_P, "bf16", Evenly(0, 1 << 16)).astype(np.float64)
    high_P = rounded(update_P, "bf16", Evenly((1 << 16) - 1, 1 << 16)).astype(np.float64)
    ups_P = update_P.view(np.uint32) & np.uint32(0xFFFF)
    assert np.array_equal(low_P + (high_P - low_P) * ups_P / (1 << 16), update_P.astype(np.float64))


@given(update_P=st_numpy.arrays(np.float32, st.integers(1, 40), elements=st.floats(-8, 8, width=32)))
def test_the_mean_over_even_lots_of_int8_is_the_update(update_P: Vector) -> None:
    """With 64 even lots a mean is right to 1/128 of the grid, whatever the number."""
    rows = [rounded(update_P, "int8", Evenly(number, 64)) for number in range(64)]
    mean_P = np.stack(rows).astype(np.float64).mean(axis=0)
    step = float(np.abs(update_P).max()) / 127 * (1 + 2**-7)
    assert np.abs(mean_P - update_P).max() <= step / 128 * (1 + 1e-9) + 1e-37


@pytest.mark.parametrize("codec", ROUNDING)
def test_the_mean_over_many_roundings_is_the_update(codec: str) -> None:
    """Each coordinate within 5 standard deviations of a mean of 400, and neither up nor outward in the sum of all."""
    update_P, rounding = noise(), stream(7, "codec", 1, 0)
    rows = np.stack([rounded(update_P, codec, rounding) for _ in range(400)]).astype(np.float64)
    error_P = rows.mean(axis=0) - update_P
    most_P = rounding_spacing(np.abs(rows).max(axis=0).astype(np.float32), codec=codec) / 2 / 20
    assert (np.abs(error_P) <= 5 * most_P).all()
    std = float(np.sqrt(rows.var(axis=0).sum()) / 20)
    assert abs(error_P.sum()) < 4 * std
    assert abs((error_P * np.sign(update_P)).sum()) < 4 * std


@pytest.mark.parametrize("codec", ROUNDING)
def test_roundings_of_two_nodes_are_independent_and_a_nodes_own_is_repeatable(codec: str) -> None:
    update_P = noise()
    first_P, again_P, other_P = (rounded(update_P, codec, stream(7, "codec", 1, node)) for node in (0, 0, 1))
    assert np.array_equal(first_P, again_P)
    one_P, two_P = first_P - update_P, other_P - update_P
    # What two roundings of one number share is where it lies in its cell, not which way it went.
    assert abs(float(one_P @ two_P) / float(np.linalg.norm(one_P) * np.linalg.norm(two_P))) < 4 / len(update_P) ** 0.5


def test_rounding_is_small_beside_the_noise() -> None:
    """int8's step is a 127th of a block's largest number, about 3.2 tau: it adds 1.1e-4 of the noise's variance."""
    update_P = noise(100 * 1024)
    for codec, most in (("bf16", 1e-5), ("int8", 2e-4)):
        error_P = rounded(update_P, codec, stream(7, "codec", 1, 0)).astype(np.float64) - update_P
        assert 0.1 * most < np.square(error_P).mean() / np.square(update_P.astype(np.float64)).mean() < most


def test_a_scale_is_the_blocks_own() -> None:
    update_P = np.concatenate([np.full(1024, 1e3), np.full(1024, 1e-3), np.zeros(1024), np.full(7, -5.0)])
    found_P = rounded(update_P.astype(np.float32), "int8", np.random.default_rng(0))
    np.testing.assert_allclose(found_P, update_P, rtol=0.01)


def test_long_updates_are_rounded_in_parts_with_one_stream() -> None:
    update_P, rest = noise(300 * 1024), stream(1)
    rest.random(256 * 1024)
    expected = [rounded(update_P[: 256 * 1024], "int8", stream(1)), rounded(update_P[256 * 1024 :], "int8", rest)]
    assert np.array_equal(rounded(update_P, "int8", stream(1)), np.concatenate(expected))


# --- Refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ROUNDING)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 2e38])
def test_what_cannot_be_rounded_is_not_encoded(codec: str, wrong: float) -> None:
    message = "update has 1 numbers beyond 1.70141e+38, expected none with a codec that rounds"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        encode_update(np.array([0, wrong], np.float32), codec=codec, rounding=np.random.default_rng(0))


@pytest.mark.parametrize("codec", ROUNDING)
def test_a_codec_that_rounds_needs_something_to_round_with(codec: str) -> None:
    with pytest.raises(ConfigError, match=r"^rounding is None, expected a generator with a codec that rounds$"):
        encode_update(np.zeros(2, np.float32), codec=codec)


def int8_payload(scale: bytes, codes: bytes) -> bytes:
    return struct.pack("<4sQ", b"int8", 2) + scale + codes


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (encode_update(np.zeros(2, np.float32)), "update has the codec b'fp32', expected b'int8'"),
        (int8_payload(b"\x80\x3f", b"\x00"), "update has 15 bytes, expected 16"),
        (int8_payload(b"\x80\x3f", b"\x00\x00\x00"), "update has 17 bytes, expected 16"),
        (
            int8_payload(b"\x80\x7f", b"\x00\x00"),
            "update has the scale inf in block 0, expected a finite one, at least 0",
        ),
        (
            int8_payload(b"\xc0\x7f", b"\x00\x00"),
            "update has the scale nan in block 0, expected a finite one, at least 0",
        ),
        (
            int8_payload(b"\x80\xbf", b"\x00\x00"),
            "update has the scale -1 in block 0, expected a finite one, at least 0",
        ),
        (int8_payload(b"\x80\x3f", b"\x00\x80"), "update has the code -128, expected -127 to 127"),
    ],
)
def test_another_payload_is_refused_and_blamed_on_its_signer(payload: bytes, message: str) -> None:
    with pytest.raises(EnvelopeRefused, match=f"^{re.escape(message)}$") as refusal:
        decode_update(payload, num_parameters=2, codec="int8")
    assert refusal.value.reason == "bad-payload"
    assert refusal.value.attributable


def test_numbers_that_overflow_are_left_to_the_enclave_to_count() -> None:
    found_P = decode_update(int8_payload(b"\x7f\x7f", b"\x7f\x01"), num_parameters=2, codec="int8")
    assert np.isinf(found_P).tolist() == [True, False]
    half = struct.pack("<4sQ", b"bf16", 2) + b"\x80\x7f\x80\x3f"
    assert decode_update(half, num_parameters=2, codec="bf16").tolist() == [np.inf, 1.0]
