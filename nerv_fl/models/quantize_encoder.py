"""The encoder in int8, and its table V in 32.16 fixed point.

    scale = 255 / (2 max|w|)        q = round(w scale), halves away from zero, held to -128..127        w ~ q / scale

One scale for each matrix. Positions, norms and biases stay float32, as in the protocol's own file, which has no biases.
The table is exact: V is a multiple of 2^-16 by construction, so its integers lose nothing, and a state's numerator
computed from them is the model's. But int8 weights have another table than the float32 ones: what a node commits to is
the table, not the weights.

Sources: NERV's `encoder.rs` (the scale) and `fixed_point.rs` (int64, 16 fraction bits).

Shapes: A accounts, D width.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save
from torch import Tensor

from nerv_fl.errors import CheckpointError, DataError
from nerv_fl.io.atomic import write_atomically
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.homomorphism import FRACTION_BITS, integer_table
from nerv_fl.models.tensor_files import read_tensors, require_tensors, with_sorted_header
from nerv_fl.types import IntArray

FORMAT: Final = "nerv-fl int8 encoder 1"
SMALLEST: Final = 1e-36
SCALE: Final = ".scale"
"""What is appended to a matrix's name for its scale's."""


@dataclass(frozen=True, kw_only=True)
class QuantizedTensor:
    """A matrix in int8.

    Attributes:
        values: int8, the shape of the matrix.
        scale: Reciprocal of the step, float32, positive.
    """

    values: npt.NDArray[np.int8]
    scale: np.float32

    def dequantized(self) -> npt.NDArray[np.float32]:
        """Return q / scale, float32."""
        return np.asarray(self.values.astype(np.float32) / self.scale)


@dataclass(frozen=True, kw_only=True)
class QuantizedEncoder:
    """An encoder whose matrices are int8.

    Attributes:
        preset: Name of its sizes.
        readout: Its read-out.
        matrices: Embedding, and the weight of every linear layer, by the parameter's name.
        others: Positions, norms and biases, float32.
    """

    preset: str
    readout: str
    matrices: Mapping[str, QuantizedTensor]
    others: Mapping[str, npt.NDArray[np.float32]]

    def apply_to(self, encoder: Encoder) -> None:
        """Give an encoder the weights that int8 stands for.

        Raises:
            CheckpointError: If it has another preset or read-out, or not the tensors of one.
        """
        for name, found, expected in (
            ("preset", self.preset, encoder.preset.name),
            ("readout", self.readout, encoder.readout),
        ):
            if found != expected:
                raise CheckpointError(f"the int8 encoder holds {name} {found!r}, expected {expected!r}")
        arrays = {name: item.dequantized() for name, item in self.matrices.items()} | dict(self.others)
        values = {name: torch.from_numpy(array) for name, array in arrays.items()}
        parameters = dict(encoder.named_parameters())
        require_tensors("the int8 encoder", values, parameters, what="encoder")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(values[name])


def quantize_tensor(weights: npt.NDArray[np.float32]) -> QuantizedTensor:
    """Quantise a matrix with one scale, in float32 arithmetic; the zero matrix has scale 1.

    Raises:
        DataError: If a weight is not finite.

    >>> quantize_tensor(np.array([-2, 0.5, 2], dtype=np.float32)).values.tolist()
    [-128, 32, 127]
    """
    largest = np.abs(weights).max(initial=np.float32(0))
    if not np.isfinite(largest):
        raise DataError(f"a weight is {largest}, expected finite numbers to quantise")
    if 0 < largest < SMALLEST:
        raise DataError(f"the largest weight is {largest:g}, expected 0 or at least {SMALLEST:g}: its scale overflows")
    scale = np.float32(255) / (np.float32(2) * largest) if largest > 0 else np.float32(1)
    # Half is added in float64: in float32 the number just below it would become 1.
    scaled = (weights * scale).astype(np.float64)
    rounded = np.trunc(scaled + np.copysign(0.5, scaled))
    return QuantizedTensor(values=np.clip(rounded, -128, 127).astype(np.int8), scale=np.float32(scale))


def quantize_encoder(encoder: Encoder) -> QuantizedEncoder:
    """Return an encoder in int8.

    Raises:
        DataError: If a weight is not finite.
    """
    arrays = {name: _array(parameter) for name, parameter in encoder.named_parameters()}
    matrices = {name for name, parameter in encoder.named_parameters() if _is_matrix(name, parameter)}
    return QuantizedEncoder(
        preset=encoder.preset.name,
        readout=encoder.readout,
        matrices={name: quantize_tensor(arrays[name]) for name in matrices},
        others={name: array for name, array in arrays.items() if name not in matrices},
    )


def save_int8(path: Path, quantized: QuantizedEncoder, *, facts: Mapping[str, object]) -> int:
    """Write an int8 encoder atomically as safetensors and return the file's size in bytes.

    Raises:
        OSError: If it cannot be written.
    """
    tensors: dict[str, npt.NDArray[np.generic]] = dict(quantized.others)
    for name, item in quantized.matrices.items():
        tensors |= {name: item.values, name + SCALE: np.asarray([item.scale], dtype=np.float32)}
    header = {
        "format": FORMAT,
        "preset": quantized.preset,
        "readout": quantized.readout,
        "facts": json.dumps(dict(facts), sort_keys=True),
    }
    data = with_sorted_header(save(tensors, metadata=header))
    write_atomically(path, data)
    return len(data)


def load_int8(path: Path) -> QuantizedEncoder:
    """Read an int8 encoder.

    Raises:
        CheckpointError: If the file is missing, truncated or foreign.
    """
    header, tensors = read_tensors(path)
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} holds format {header.get('format')!r}, expected {FORMAT!r}")
    for name in ("preset", "readout"):
        if name not in header:
            raise CheckpointError(f"{path} names no {name}, expected an int8 encoder")
    scales = {name.removesuffix(SCALE): item for name, item in tensors.items() if name.endswith(SCALE)}
    matrices = {name: tensors.pop(name, torch.empty(0)) for name in scales}
    for name, scale in scales.items():
        del tensors[name + SCALE]
        _require_matrix(path, name, values=matrices[name], scale=scale)
    require_tensors(path, tensors, {name: item.float() for name, item in tensors.items()}, what="int8 encoder")
    return QuantizedEncoder(
        preset=header["preset"],
        readout=header["readout"],
        matrices={
            name: QuantizedTensor(values=matrices[name].numpy(), scale=np.float32(scale))
            for name, scale in scales.items()
        },
        others={name: _array(item) for name, item in tensors.items()},
    )


def _require_matrix(path: Path, name: str, *, values: Tensor, scale: Tensor) -> None:
    if values.dtype != torch.int8:
        raise CheckpointError(f"{path} holds {name} as {values.dtype}, expected {torch.int8}: it has a scale")
    if scale.numel() != 1 or not bool(torch.isfinite(scale).all()) or float(scale) <= 0:
        raise CheckpointError(f"{path} holds scale {scale.tolist()} of {name}, expected one finite number above 0")


def _is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is stored in int8: embedding and linear weights, not positions."""
    return parameter.ndim == 2 and not name.startswith("positions.")  # noqa: PLR2004


def fixed_point_table(encoder: Encoder) -> IntArray:
    """Return V in 32.16 fixed point, int64 (A, D): exactly 2^16 V, which is what the protocol commits to.

    Raises:
        DataError: If an entry is not finite, too large for an exact numerator, or no multiple of 2^-16, as those of the
            read-out "mean" are not.
    """
    with torch.no_grad():
        table_AD = _array(encoder.table())
    raw_AD = integer_table(table_AD)
    if not np.array_equal(table_of_fixed_point(raw_AD), table_AD):
        raise DataError(f"the table of read-out {encoder.readout!r} is not in 32.16, expected multiples of 2^-16")
    return raw_AD


def table_of_fixed_point(raw_AD: IntArray) -> npt.NDArray[np.float32]:
    """Return V, float32 (A, D), from its 32.16 integers: the inverse of `fixed_point_table`, bit for bit."""
    return np.asarray(raw_AD / 2.0**FRACTION_BITS, dtype=np.float32)


def _array(tensor: Tensor) -> npt.NDArray[np.float32]:
    return np.asarray(tensor.detach().cpu().numpy(), dtype=np.float32)
