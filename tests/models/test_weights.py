"""Weights on disk: the right file loads bit for bit, the wrong one is refused and changes nothing."""

import hashlib
import re
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nerv_fl.errors import CheckpointError
from nerv_fl.models.encoder import Encoder, get_flat, set_flat
from nerv_fl.models.presets import Preset
from nerv_fl.models.weights import encoder_bytes, load_encoder, save_encoder, vector_hash
from nerv_fl.rng import torch_stream

HEADER = {"preset": "tiny", "readout": "balance", "facts": "{}"}


@pytest.fixture
def path(tmp_path: Path, encoder: Encoder) -> Path:
    file = tmp_path / "encoder.safetensors"
    save_encoder(file, encoder, facts={"movement_floor": 0.25, "epsilon": None})
    return file


@pytest.fixture
def other(tiny: Preset) -> Encoder:
    fresh = Encoder(tiny)
    set_flat(fresh, torch.zeros(fresh.num_parameters))
    return fresh


def refused(path: Path, encoder: Encoder, message: str) -> None:
    """Expect exactly this refusal, and an encoder that is as it was."""
    before = get_flat(encoder)
    with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
        load_encoder(path, encoder)
    assert torch.equal(get_flat(encoder), before)


def test_weights_and_facts_come_back(path: Path, other: Encoder, theta: Tensor) -> None:
    assert load_encoder(path, other) == {"movement_floor": 0.25, "epsilon": None}
    assert torch.equal(get_flat(other), theta)


def test_missing_file(tmp_path: Path, other: Encoder) -> None:
    missing = tmp_path / "none.safetensors"
    reason = f"No such file or directory: {missing}"
    refused(missing, other, f"{missing} cannot be read as safetensors: {reason}")


def test_truncated_file(path: Path, other: Encoder) -> None:
    path.write_bytes(path.read_bytes()[:-4])
    reason = "Error while deserializing header: incomplete metadata, file not fully covered"
    refused(path, other, f"{path} cannot be read as safetensors: {reason}")


def test_foreign_file(path: Path, other: Encoder) -> None:
    path.write_bytes(struct.pack("<Q", 2**60) + b"not weights")
    refused(path, other, f"{path} cannot be read as safetensors: Error while deserializing header: header too large")


def test_file_without_a_header(path: Path, other: Encoder) -> None:
    save_file(load_file(path), path)
    refused(path, other, f"{path} holds preset None, expected 'tiny'")


def test_other_preset(path: Path, tiny: Preset) -> None:
    wide = Encoder(replace(tiny, name="wide", width=16))
    refused(path, wide, f"{path} holds preset 'tiny', expected 'wide'")


def test_other_readout(path: Path, tiny: Preset) -> None:
    refused(path, Encoder(tiny, readout="mean"), f"{path} holds readout 'balance', expected 'mean'")


def test_missing_tensor(path: Path, other: Encoder) -> None:
    tensors = load_file(path)
    count = len(tensors)
    del tensors["balance_head.bias"]
    save_file(tensors, path, metadata=HEADER)
    refused(path, other, f"{path} holds no tensor balance_head.bias, expected the {count} of the encoder")


def test_unknown_tensor(path: Path, other: Encoder) -> None:
    tensors = load_file(path)
    save_file({**tensors, "more": tensors["balance_head.bias"].clone()}, path, metadata=HEADER)
    refused(path, other, f"{path} holds an unknown tensor more, expected the {len(tensors)} of the encoder")


def test_tensor_of_another_type(path: Path, other: Encoder) -> None:
    tensors = load_file(path)
    tensors["balance_head.bias"] = tensors["balance_head.bias"].double()
    save_file(tensors, path, metadata=HEADER)
    refused(path, other, f"{path} holds balance_head.bias as torch.float64, expected torch.float32")


def test_facts_that_are_no_json(path: Path, other: Encoder) -> None:
    before = get_flat(other).clone()
    save_file(load_file(path), path, metadata={**HEADER, "facts": "{"})
    with pytest.raises(CheckpointError, match=r"holds facts that are no JSON \(.*\), expected an object$"):
        load_encoder(path, other)
    assert torch.equal(get_flat(other), before)


def test_tensor_of_another_shape(path: Path, other: Encoder) -> None:
    tensors = load_file(path)
    tensors["out.weight"] = tensors["out.weight"].reshape(4, 16)
    save_file(tensors, path, metadata=HEADER)
    refused(path, other, f"{path} holds out.weight of shape (4, 16), expected (8, 8)")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(path: Path, other: Encoder, value: float) -> None:
    tensors = load_file(path)
    tensors["norm.weight"][3] = value
    save_file(tensors, path, metadata=HEADER)
    refused(path, other, f"{path} holds NaN or infinite numbers in norm.weight, expected finite ones")


def test_hash_is_that_of_little_endian_float32() -> None:
    theta_P = np.array([1.0, -2.5], dtype=np.float32)
    assert vector_hash(theta_P) == hashlib.sha256(struct.pack("<2f", 1.0, -2.5)).hexdigest()
    assert vector_hash(theta_P.astype(">f4")) == vector_hash(theta_P)
    assert vector_hash(np.nextafter(theta_P, np.float32(9))) != vector_hash(theta_P)


def test_same_encoder_is_the_same_file(tiny: Preset) -> None:
    """Ten times: safetensors alone orders its header at random."""
    encoder = Encoder(tiny)
    encoder.reset_parameters(torch_stream(1, "weights"))
    assert len({encoder_bytes(encoder, facts={"epsilon": None, "best_step": 3}) for _ in range(10)}) == 1
