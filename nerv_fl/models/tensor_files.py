"""Safetensors, in which all our models are stored: read, compared with what they must be, written with equal bytes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nerv_fl.errors import CheckpointError


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return the header and the tensors of a file.

    Raises:
        CheckpointError: If it is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from error


def tensor_entries(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, object]]:
    """Return dtype and shape of each tensor, by its name, as JSON has them.

    >>> tensor_entries({"raw": torch.zeros(2, 3, dtype=torch.int64)})
    {'raw': {'dtype': 'int64', 'shape': [2, 3]}}
    """
    return {
        name: {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
        for name, tensor in sorted(tensors.items())
    }


def require_tensors(
    path: Path | str, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, what: str
) -> None:
    """Raise unless a file holds the tensors of a model, all finite.

    Args:
        path: The file, or what the tensors are of, for messages.
        tensors: What it holds.
        expected: Tensors of the same names, dtypes and shapes.
        what: The model, for messages.

    Raises:
        CheckpointError: If one is missing, unknown, of another dtype or shape, or not finite.
    """
    for name in sorted(tensors.keys() ^ expected.keys()):
        found_it = "an unknown tensor" if name in tensors else "no tensor"
        raise CheckpointError(f"{path} holds {found_it} {name}, expected the {len(expected)} of the {what}")
    for name, like in expected.items():
        found = tensors[name]
        if found.dtype != like.dtype:
            raise CheckpointError(f"{path} holds {name} as {found.dtype}, expected {like.dtype}")
        if found.shape != like.shape:
            raise CheckpointError(f"{path} holds {name} of shape {tuple(found.shape)}, expected {tuple(like.shape)}")
        if not bool(torch.isfinite(found).all()):
            raise CheckpointError(f"{path} holds NaN or infinite numbers in {name}, expected finite ones")


def read_facts(path: Path, text: str) -> dict[str, Any]:
    """Return the JSON object that a header holds.

    Raises:
        CheckpointError: If it is none.
    """
    try:
        facts = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path} holds facts that are no JSON ({error}), expected an object") from error
    if not isinstance(facts, dict):
        raise CheckpointError(f"{path} holds facts that are a {type(facts).__name__}, expected an object")
    return facts


def with_sorted_header(data: bytes) -> bytes:
    """Return a safetensors file with the keys of its header in order: safetensors' own order changes at each call.

    Source: the safetensors format: u64 length, JSON padded with spaces to a multiple of 8, tensors at relative offsets.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[end:]
