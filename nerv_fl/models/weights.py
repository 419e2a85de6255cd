"""Weights on disk and by name: safetensors with the facts needed to refuse the wrong file, and the hash of a model.

Shapes: P parameters.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save

from nerv_fl.errors import CheckpointError, ConfigError
from nerv_fl.io.atomic import write_atomically
from nerv_fl.models.encoder import Encoder, set_flat
from nerv_fl.models.presets import get_preset
from nerv_fl.models.tensor_files import read_facts, read_tensors, require_tensors, with_sorted_header


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


def load_encoder(path: Path, encoder: Encoder) -> dict[str, object]:
    """Copy a file's weights into an encoder and return the facts written with it.

    Raises:
        CheckpointError: If the file is missing, damaged, or holds another preset or read-out.
    """
    header, tensors = read_tensors(path)
    for name, expected in (("preset", encoder.preset.name), ("readout", encoder.readout)):
        if header.get(name) != expected:
            raise CheckpointError(f"{path} holds {name} {header.get(name)!r}, expected {expected!r}")
    parameters = dict(encoder.named_parameters())
    require_tensors(path, tensors, parameters, what="encoder")
    facts = read_facts(path, header.get("facts", "{}"))
    set_flat(encoder, torch.cat([tensors[name].reshape(-1) for name in parameters]))
    return facts


def open_encoder(path: Path) -> Encoder:
    """Return the encoder of a file, of whichever preset and read-out it says.

    Raises:
        CheckpointError: If the file is missing, damaged, or names no preset.
        ConfigError: If there is no such preset.
    """
    header, _ = read_tensors(path)
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
