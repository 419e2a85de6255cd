"""int8 by the protocol's rule, and the 32.16 table that loses nothing."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from nerv_fl.errors import CheckpointError, DataError
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.homomorphism import LOW_BITS, state_numerator
from nerv_fl.models.presets import Preset, get_preset
from nerv_fl.models.quantize_encoder import (
    QuantizedEncoder,
    fixed_point_table,
    load_int8,
    quantize_encoder,
    quantize_tensor,
    save_int8,
    table_of_fixed_point,
)
from nerv_fl.rng import stream, torch_stream

TINY = Preset(name="tiny", num_accounts=8, width=8, num_layers=1, num_heads=2, position_std=0.3, embedding_std=0.05)
FINITE = st.integers(-(10**6), 10**6).map(lambda number: number / 997)


def make_encoder(preset: Preset = TINY, *, readout: str = "balance") -> Encoder:
    encoder = Encoder(preset, readout=readout)
    encoder.reset_parameters(torch_stream(5, "weights"))
    return encoder


# --- The rule ---------------------------------------------------------------------------------------------------------


def test_scale_and_rounding_by_hand() -> None:
    """Scale 255 / (2 x 127.5) = 1: halves go away from zero, the largest saturates at 127 and the smallest at -128."""
    found = quantize_tensor(np.array([127.5, -127.5, 0.5, -0.5, 1.49, -1.5, 2.5, 0], dtype=np.float32))
    assert found.scale == 1
    assert found.values.tolist() == [127, -128, 1, -1, 1, -2, 3, 0]
    below = np.nextafter(np.float32(0.5), np.float32(0))
    assert quantize_tensor(np.array([127.5, below, -below], dtype=np.float32)).values.tolist() == [127, 0, 0]


@given(st.lists(FINITE, min_size=1, max_size=20))
def test_every_weight_is_within_half_a_step_or_saturated(weights: list[float]) -> None:
    array = np.array(weights, dtype=np.float32)
    found = quantize_tensor(array)
    error = np.abs(found.dequantized() - array) * found.scale
    assert (error <= np.where(found.values == 127, 1.0, 0.5) + 1e-4).all()


def test_zero_matrix_stays_zero() -> None:
    found = quantize_tensor(np.zeros((2, 3), dtype=np.float32))
    assert found.scale == 1
    assert not found.dequantized().any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weight_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(DataError, match=r"^a weight is (nan|inf), expected finite numbers to quantise$"):
        quantize_tensor(np.array([1, bad], dtype=np.float32))


def test_weight_too_small_for_a_scale_is_refused() -> None:
    message = r"^the largest weight is 9.99995e-41, expected 0 or at least 1e-36: its scale overflows$"
    with pytest.raises(DataError, match=message):
        quantize_tensor(np.array([1e-40], dtype=np.float32))


# --- The encoder ------------------------------------------------------------------------------------------------------


def test_matrices_are_int8_and_the_rest_is_kept() -> None:
    encoder = make_encoder()
    found = quantize_encoder(encoder)
    assert sorted(found.matrices) == [
        "balance_head.weight",
        "blocks.0.attention.out.weight",
        "blocks.0.attention.qkv.weight",
        "blocks.0.feed_in.weight",
        "blocks.0.feed_out.weight",
        "embedding.weight",
        "out.weight",
    ]
    parameters = dict(encoder.named_parameters())
    assert set(found.matrices) | set(found.others) == set(parameters)
    assert all(np.array_equal(array, parameters[name].detach().numpy()) for name, array in found.others.items())


def test_int8_encoder_is_near_the_float32_one() -> None:
    encoder, near = make_encoder(get_preset("quickstart")), make_encoder(get_preset("quickstart"))
    quantize_encoder(encoder).apply_to(near)
    with torch.no_grad():
        error = float((near.table() - encoder.table()).norm() / encoder.table().norm())
    assert 0 < error < 0.03


@pytest.mark.parametrize("readout", ["balance", "mean"])
def test_file_gives_the_same_encoder_back(tmp_path: Path, readout: str) -> None:
    path, quantized = tmp_path / "int8.safetensors", quantize_encoder(make_encoder(readout=readout))
    size_bytes = save_int8(path, quantized, facts={"epsilon": None})
    found = load_int8(path)
    assert path.stat().st_size == size_bytes
    assert (found.preset, found.readout) == ("tiny", readout)
    assert found.matrices.keys() == quantized.matrices.keys()
    assert found.others.keys() == quantized.others.keys()
    for name, item in quantized.matrices.items():
        assert np.array_equal(found.matrices[name].values, item.values)
        assert found.matrices[name].scale == item.scale
    encoders = make_encoder(readout=readout), make_encoder(readout=readout)
    for encoder, source in zip(encoders, (found, quantized), strict=True):
        source.apply_to(encoder)
    assert torch.equal(encoders[0].table(), encoders[1].table())


def test_tee_is_at_most_2_mb_and_whitepaper_is_not(tmp_path: Path) -> None:
    """In our file, and in the protocol's: 8 + 4 D bytes a position, 12 D^2 int8 a layer, float32 norms, no biases."""
    path = tmp_path / "tee.safetensors"
    assert save_int8(path, quantize_encoder(make_encoder(get_preset("tee"))), facts={}) <= 2_000_000
    assert protocol_bytes(get_preset("tee")) <= 2_000_000
    assert protocol_bytes(get_preset("whitepaper")) == 80_570_491


def protocol_bytes(preset: Preset) -> int:
    """Return the size of the protocol's own file: 50 bytes of settings, then tensors with their lengths and scales."""
    width, feed = preset.width, preset.feed_forward_width
    quantized = 13  # u64 length, f32 scale, u8 bits
    norm = 2 * (8 + 4 * width) + 4 + 8
    attention = 2 * quantized + 4 * width**2 + 3 * 8
    feed_forward = 2 * quantized + 2 * width * feed + 2 * 8
    layers = 8 + preset.num_layers * (attention + feed_forward + 2 * norm)
    tokens = quantized + preset.vocabulary * width
    positions = 8 + preset.num_tokens * (8 + 4 * width)
    return 50 + tokens + positions + layers + norm + 8 + 32


# --- Refusals ---------------------------------------------------------------------------------------------------------


def test_int8_of_another_preset_is_refused() -> None:
    quantized: QuantizedEncoder = quantize_encoder(make_encoder())
    message = "the int8 encoder holds preset 'tiny', expected 'quickstart'"
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        quantized.apply_to(make_encoder(get_preset("quickstart")))
    message = "the int8 encoder holds readout 'balance', expected 'mean'"
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        quantized.apply_to(make_encoder(readout="mean"))


def test_foreign_and_truncated_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "int8.safetensors"
    with pytest.raises(CheckpointError, match=f"^{path} cannot be read as safetensors: "):
        load_int8(path)
    save_int8(path, quantize_encoder(make_encoder()), facts={})
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(CheckpointError, match=f"^{path} cannot be read as safetensors: "):
        load_int8(path)
    path.write_bytes(data.replace(b"int8 encoder 1", b"int8 encoder 2"))
    message = f"{path} holds format 'nerv-fl int8 encoder 2', expected 'nerv-fl int8 encoder 1'"
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        load_int8(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "embedding.weight.scale",
            torch.tensor([torch.nan]),
            "scale [nan] of embedding.weight, expected one finite number",
        ),
        (
            "embedding.weight.scale",
            torch.zeros(1),
            "scale [0.0] of embedding.weight, expected one finite number above 0",
        ),
        (
            "embedding.weight",
            torch.zeros(3, 3),
            "embedding.weight as torch.float32, expected torch.int8: it has a scale",
        ),
        ("more.scale", torch.ones(1), "more as torch.float32, expected torch.int8: it has a scale"),
        ("norm.weight", torch.full((8,), torch.inf), "NaN or infinite numbers in norm.weight, expected finite ones"),
    ],
)
def test_tensors_that_are_no_int8_encoders_are_refused(
    tmp_path: Path, name: str, value: torch.Tensor, message: str
) -> None:
    path = tmp_path / "int8.safetensors"
    save_int8(path, quantize_encoder(make_encoder()), facts={})
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    save_file(load_file(path) | {name: value}, path, metadata=header)
    with pytest.raises(CheckpointError, match=f"^{re.escape(f'{path} holds {message}')}"):
        load_int8(path)


def test_tensors_of_another_shape_are_not_spread_over_the_encoder() -> None:
    quantized = quantize_encoder(make_encoder())
    wrong = replace(quantized, others={**quantized.others, "norm.weight": np.ones(1, dtype=np.float32)})
    with pytest.raises(
        CheckpointError, match=r"^the int8 encoder holds norm\.weight of shape \(1,\), expected \(8,\)$"
    ):
        wrong.apply_to(make_encoder())


# --- The table --------------------------------------------------------------------------------------------------------


def test_table_in_fixed_point_is_the_models_bit_for_bit() -> None:
    encoder = make_encoder(get_preset("quickstart"))
    raw_AD = fixed_point_table(encoder)
    assert raw_AD.dtype == np.int64
    with torch.no_grad():
        assert np.array_equal(table_of_fixed_point(raw_AD), encoder.table().numpy())


def test_numerator_from_the_fixed_point_table_is_exact() -> None:
    """Against Python's integers, at balances that together reach 10^16 NANO."""
    encoder = make_encoder()
    balances_BA = stream(5, "balances").integers(0, 10**16 // 8, size=(3, 8))
    balances_BA[0] = [10**16, 0, 0, 0, 0, 0, 0, 1]
    raw_AD = fixed_point_table(encoder)
    with torch.no_grad():
        model_AD = [[round(value * 2**16) for value in row] for row in encoder.table().double().tolist()]
    found = state_numerator(balances_BA, raw_AD)
    for row, balances in enumerate(balances_BA.tolist()):
        for column in range(8):
            exact = sum(balance * model_AD[account][column] for account, balance in enumerate(balances))
            assert int(found.high[row, column]) * 2**LOW_BITS + int(found.low[row, column]) == exact


def test_table_that_is_not_finite_is_refused() -> None:
    encoder = make_encoder()
    with torch.no_grad():
        encoder.out.bias[0] = torch.nan
    with pytest.raises(DataError, match=r"^table V has an entry nan, expected finite numbers below "):
        fixed_point_table(encoder)
