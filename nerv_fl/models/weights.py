"""Weights on disk and by name: safetensors with the facts needed to refuse the wrong file, and the hash of a model.

Shapes: P parameters.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from nerv_fl.errors import CheckpointError, ConfigError
from nerv_fl.files import write_atomically
from nerv_fl.models.encoder import Encoder, set_flat
from nerv_fl.models.presets import get_preset


def vector_hash(theta_P: npt.NDArray[np.float32]) -> str:
    """Return the SHA-256 of the weights' float32 little-endian bytes, in hex: the name of a model."""
    return hashlib.sha256(theta_P.astype("<f4").tobytes()).hexdigest()


def save_encoder(path: Path, encoder: Encoder, *, facts: dict[str, object]) -> None:
    """Write an encoder's named weights atomically, its preset and `facts` in the header."""
    write_atomically(path, encoder_bytes(encoder, facts=facts))


def encoder_bytes(encoder: Encoder, *, facts: dict[str, object]) -> bytes:
    """Return the file that `save_encoder` writes: the same bytes for the same encoder and facts."""
    tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in encoder.named_parameters()}
    header = {"preset": encoder.preset.name, "readout": encoder.readout, "facts": json.dumps(facts, sort_keys=True)}
    return with_sorted_header(save(tensors, metadata=header))


def with_sorted_header(data: bytes) -> bytes:
    """Return a safetensors file with the keys of its header in order: safetensors' own order changes at each call.

    Source: the safetensors format: u64 length, JSON padded with spaces to a multiple of 8, tensors at relative offsets.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[end:]


def load_encoder(path: Path, encoder: Encoder) -> dict[str, object]:
    """Copy a file's weights into an encoder and return the facts written with it.

    Raises:
        CheckpointError: If the file is missing, damaged, or holds another preset or read-out.
    """
    header, tensors = _read(path)
    for name, expected in (("preset", encoder.preset.name), ("readout", encoder.readout)):
        if header.get(name) != expected:
            raise CheckpointError(f"{path} holds {name} {header.get(name)!r}, expected {expected!r}")
    parameters = dict(encoder.named_parameters())
    for name in sorted(tensors.keys() ^ parameters.keys()):
        found_it = "an unknown tensor" if name in tensors else "no tensor"
        raise CheckpointError(f"{path} holds {found_it} {name}, expected the {len(parameters)} of the encoder")
    for name, parameter in parameters.items():
        if tensors[name].dtype != parameter.dtype:
            raise CheckpointError(f"{path} holds {name} as {tensors[name].dtype}, expected {parameter.dtype}")
        if tensors[name].shape != parameter.shape:
            found, expected_shape = tuple(tensors[name].shape), tuple(parameter.shape)
            raise CheckpointError(f"{path} holds {name} of shape {found}, expected {expected_shape}")
    theta_P = torch.cat([tensors[name].reshape(-1) for name in parameters])
    if not bool(torch.isfinite(theta_P).all()):
        raise CheckpointError(f"{path} holds NaN or infinite weights, expected finite numbers")
    try:
        facts: dict[str, object] = json.loads(header.get("facts", "{}"))
    except ValueError as error:
        raise CheckpointError(f"{path} holds facts that are no JSON ({error}), expected an object") from error
    set_flat(encoder, theta_P)
    return facts


def open_encoder(path: Path) -> Encoder:
    """Return the encoder of a file, of whichever preset and read-out it says.

    Raises:
        CheckpointError: If the file is missing, damaged, or names no preset.
        ConfigError: If there is no such preset.
    """
    header, _ = _read(path)
    for name in ("preset", "readout"):
        if name not in header:
            raise CheckpointError(f"{path} names no {name}, expected the weights of an encoder")
    encoder = Encoder(get_preset(header["preset"]), readout=header["readout"])
    load_encoder(path, encoder)
    return encoder


def read_table(path: Path, *, num_accounts: int) -> npt.NDArray[np.float64]:
    """Return the table V of an encoder on disk, float64 [accounts, width].

    Args:
        path: Weights of the encoder.
        num_accounts: Accounts of the data it is for.

    Raises:
        CheckpointError: If the file is not an encoder's.
        ConfigError: If the encoder is of another number of accounts.
    """
    encoder = open_encoder(path)
    if encoder.preset.num_accounts != num_accounts:
        raise ConfigError(f"{path} has {encoder.preset.num_accounts} accounts, expected {num_accounts} (the data's)")
    with torch.no_grad():
        return encoder.table().numpy().astype(np.float64)


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Return the header and the tensors of a file."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from error
