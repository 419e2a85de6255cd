"""The reader against the writer, and every kind of damage by the exact refusal."""

import re
import struct
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerv_fl.errors import DataError
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.export.bincode import rust_encoder, to_bytes
from nerv_fl.models.export.bincode_reader import parse_rust_encoder, read_rust_encoder
from nerv_fl.models.presets import Preset
from nerv_fl.models.quantize_encoder import quantize_encoder
from nerv_fl.rng import torch_stream

EMBEDDING = 8 * 6 + 2
POSITIONS = EMBEDDING + 8 + 265 * 8 + 5
LAYERS = POSITIONS + 8 + 17 * (8 + 4 * 8)
QKV = LAYERS + 8
OUT = QKV + 8 + 3 * 64 + 5
HEADS = OUT + 8 + 64 + 5
NORM = HEADS + 24
TINY_BYTES = 4_055
"""Of the tiny encoder's file: 8 accounts, width 8, one layer."""


@pytest.fixture
def data(encoder: Encoder) -> bytes:
    return to_bytes(rust_encoder(encoder, epoch=5))


def put(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def refused(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        parse_rust_encoder(data, source="x.bin")


def test_what_was_written_comes_back(encoder: Encoder, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "encoder.bin"
    path.write_bytes(data)
    rust = read_rust_encoder(path)
    assert to_bytes(rust) == data
    quantised = quantize_encoder(encoder)
    assert np.array_equal(rust.layers[0].feed_out.values, quantised.matrices["blocks.0.feed_out.weight"].values)
    assert np.array_equal(rust.positions_TD, encoder.positions.weight.detach().numpy())
    assert (rust.epoch, rust.num_heads, rust.model_path, rust.use_candle) == (5, 2, None, False)
    error = np.abs(rust.token_embedding.dequantized() - encoder.embedding.weight.detach().numpy())
    assert 0 < error.max() <= 1.01 / rust.token_embedding.scale


def test_a_path_in_the_config_comes_back(encoder: Encoder) -> None:
    rust = replace(rust_encoder(encoder), model_path="models/größe.bin", use_candle=True)
    again = parse_rust_encoder(to_bytes(rust), source="x.bin")
    assert (again.model_path, again.use_candle) == ("models/größe.bin", True)


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none.bin"
    with pytest.raises(DataError, match=rf"^{path} does not exist, expected an encoder in the bincode layout$"):
        read_rust_encoder(path)


@given(part=st.floats(0, 1, exclude_max=True))
def test_every_truncation_is_refused(part: float) -> None:
    data = _tiny()
    with pytest.raises(DataError, match=r"^x\.bin, offset [\d,]+: the file ends after [\d,]+ bytes of .+, expected"):
        parse_rust_encoder(data[: int(part * len(data))], source="x.bin")


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_makes_anything_but_a_refusal_or_a_model(place: float, bit: int) -> None:
    """Scales, positions, eps and the epoch are under no hash: a flip there may go unseen, and raises nothing."""
    data = bytearray(_tiny())
    data[int(place * len(data))] ^= 1 << bit
    with suppress(DataError):
        assert to_bytes(parse_rust_encoder(bytes(data), source="x.bin")) == bytes(data)


def _tiny() -> bytes:
    preset = Preset(
        name="tiny", num_accounts=8, width=8, num_layers=1, num_heads=2, position_std=0.3, embedding_std=0.3
    )
    encoder = Encoder(preset)
    encoder.reset_parameters(torch_stream(1, "tiny"))
    return to_bytes(rust_encoder(encoder))


def test_truncated_file(data: bytes) -> None:
    assert len(data) == TINY_BYTES
    refused(b"", "x.bin, offset 0: the file ends after 0 bytes of config.embedding_dim, expected 8")
    refused(
        data[:60],
        f"x.bin, offset {EMBEDDING + 8}: the file ends after 2 bytes of token_embedding values, expected 2,120",
    )
    refused(data[:-1], f"x.bin, offset {TINY_BYTES - 32:,}: the file ends after 31 bytes of weight_hash, expected 32")


def test_hostile_lengths_are_refused(data: bytes) -> None:
    largest = struct.pack("<Q", 2**64 - 1)
    huge = f"{2**64 - 1:,}"
    refused(put(data, 40, largest), f"x.bin, offset 40: config.vocab_size is {huge}, expected 1 to 1,048,576")
    refused(
        put(data, 40, struct.pack("<Q", 2**20)),
        "x.bin, offset 50: token_embedding length is 2,120, expected 8,388,608",
    )
    refused(put(data, EMBEDDING, largest), f"x.bin, offset 50: token_embedding length is {huge}, expected 2,120")
    refused(put(data, LAYERS, largest), f"x.bin, offset {LAYERS:,}: layers is {huge}, expected 1")
    path = data[:49] + b"\x01" + struct.pack("<Q", 2**40) + data[50:]
    left = f"{len(path) - 58:,}"
    refused(path, f"x.bin, offset 58: the file ends after {left} bytes of config.model_path, expected {2**40:,}")


def test_a_file_of_many_small_parts_takes_a_few_times_its_size() -> None:
    rows = 50_000
    sizes = struct.pack("<6Q", 1, 1, 1, 1, rows, 1)
    embedding = struct.pack("<Qbfb", 1, 1, 1.0, 8)
    hostile = sizes + b"\0\0" + embedding + struct.pack("<Q", rows) + struct.pack("<Qf", 1, 0.5) * rows
    tracemalloc.start()
    refused(hostile, f"x.bin, offset {len(hostile):,}: the file ends after 0 bytes of layers, expected 8")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * len(hostile)
    layers = put(hostile, 8, struct.pack("<Q", 1025))
    refused(layers, "x.bin, offset 8: config.num_layers is 1,025, expected 1 to 1,024")


def test_foreign_files(data: bytes) -> None:
    json_file = b'{"embedding_dim": 512}'
    first = int.from_bytes(json_file[:8], "little")
    refused(json_file, f"x.bin, offset 0: config.embedding_dim is {first:,}, expected 1 to 1,048,576")
    refused(bytes(64), "x.bin, offset 0: config.embedding_dim is 0, expected 1 to 1,048,576")
    refused(put(data, 16, struct.pack("<Q", 3)), "x.bin, offset 16: config.num_heads is 3, expected a divisor of 8")


def test_every_other_field_is_checked(data: bytes) -> None:
    refused(put(data, 48, b"\x02"), "x.bin, offset 48: config.use_candle is 2, expected 0 or 1")
    refused(put(data, 49, b"\x07"), "x.bin, offset 49: config.model_path is 7, expected 0 or 1")
    refused(
        data[:49] + b"\x01" + struct.pack("<Q", 2) + b"\xff\xfe" + data[50:],
        r"x.bin, offset 58: config.model_path is b'\xff\xfe', expected UTF-8",
    )
    scale = POSITIONS - 5
    refused(
        put(data, scale, bytes(4)), f"x.bin, offset {scale:,}: token_embedding scale is 0.0, expected a number above 0"
    )
    refused(put(data, scale + 4, b"\x04"), f"x.bin, offset {scale + 4:,}: token_embedding bits is 4, expected 8")
    second = POSITIONS + 8 + 40 + 8
    refused(
        put(data, second + 4, struct.pack("<f", float("nan"))),
        f"x.bin, offset {second + 4:,}: positional_embedding[1] holds nan, expected a finite number",
    )
    refused(
        put(data, HEADS, struct.pack("<Q", 4)),
        f"x.bin, offset {HEADS:,}: layers[0].attention.num_heads is 4, expected 2",
    )
    eps = NORM + 2 * (8 + 32)
    refused(
        put(data, eps, struct.pack("<f", -1.0)),
        f"x.bin, offset {eps:,}: layers[0].attn_norm.eps is -1.0, expected a number above 0",
    )


def test_a_changed_weight_is_found_by_the_hash(data: bytes) -> None:
    flipped = put(data, QKV + 8, bytes([data[QKV + 8] ^ 1]))
    found = data[-32:].hex()
    with pytest.raises(DataError, match=rf"^x\.bin, offset 4,023: weight_hash is {found}, expected [0-9a-f]{{64}}$"):
        parse_rust_encoder(flipped, source="x.bin")


def test_nothing_may_follow(data: bytes) -> None:
    refused(data + b"\n", f"x.bin, offset {TINY_BYTES:,}: 1 bytes follow weight_hash, expected the end of the file")
