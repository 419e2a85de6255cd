"""Models in int8: ONNX files by ONNX Runtime, modules by torch (for TorchScript).

A weight matrix W becomes round(W / s) with s = max|W| / 127 (torch) or / 64 (ONNX), one s for the matrix, or for each
of its outputs with `per_channel`. Where a processor has AVX2 without VNNI, ONNX Runtime adds pairs of products in 16
bits: two times 255 x 127 does not fit there, two times 255 x 64 does, so a file's answers are the same everywhere.
Activations get their scale at each call (dynamic), or once and for all from examples (static).
"""

import copy
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
import torch
from google.protobuf.message import DecodeError
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from nerv_fl.errors import ConfigError, DataError
from nerv_fl.io.atomic import write_atomically
from nerv_fl.privacy.layers import PerSampleLayer
from nerv_fl.validation import one_of

Feed = Mapping[str, npt.NDArray[np.generic]]
"""One example for an ONNX model: an array for each of its inputs, by name."""

METHODS: Final = ("dynamic", "static")
RECURRENT: Final = frozenset({"GRU", "LSTM", "RNN"})


def quantize_onnx(
    source: Path,
    target: Path,
    *,
    method: str = "dynamic",
    calibration: Iterable[Feed] | None = None,
    per_channel: bool = False,
) -> int:
    """Write an ONNX file with int8 weights, whole or not at all.

    Args:
        source: ONNX file in float32.
        target: File to write or replace.
        method: "dynamic", or "static". ONNX Runtime has no static form of LSTM, GRU and RNN: for those, dynamic.
        calibration: Examples of the model's inputs, at least one; for "static" only.
        per_channel: One scale for each output of a matrix, in place of one for the matrix.

    Returns:
        Size of the file, in bytes.

    Raises:
        ConfigError: If the method is unknown or not to be had for this model, or `calibration` is not what it takes.
        DataError: If the source is missing or not an ONNX model, or an example does not fit its inputs.
        OSError: If the target cannot be written.

    Source: Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only
    inference", 2018, section 2.
    """
    one_of("method", method, choices=METHODS)
    model = _read(source)
    feeds = _examples(source, model, method=method, calibration=calibration)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        prepared, staged = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(model, prepared, skip_symbolic_shape=True)
        common = {"per_channel": per_channel, "weight_type": QuantType.QInt8, "reduce_range": True}
        if method == "dynamic":
            quantize_dynamic(prepared, staged, **common)
        else:
            quantize_static(prepared, staged, _Reader(feeds), **common)
        content = staged.read_bytes()
    write_atomically(target, content)
    return len(content)


def quantize_torch(module: nn.Module) -> nn.Module:
    """Return a copy with int8 weights in its linear and LSTM layers, activations quantised at each call.

    Torch deprecates this path; it stays for programs that load TorchScript. `torch.jit` takes the result.

    Args:
        module: Model in float32, on the CPU; it is left as it is.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.ao.quantization is deprecated", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="torch.quantize_per_tensor", category=UserWarning)
        quantised: nn.Module = torch.ao.quantization.quantize_dynamic(
            _plain(module).eval(), {nn.Linear, nn.LSTM}, dtype=torch.qint8, inplace=True
        )
    return quantised


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands examples to ONNX Runtime, one at a time."""

    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._left = iter(feeds)

    def get_next(self) -> dict[str, npt.NDArray[np.generic]] | None:
        feed = next(self._left, None)
        return None if feed is None else dict(feed)


def _read(source: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(source)
        onnx.checker.check_model(model)
    except (OSError, DecodeError, onnx.checker.ValidationError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{source} cannot be read ({reason}), expected an ONNX model") from error
    return model


def _examples(
    source: Path, model: onnx.ModelProto, *, method: str, calibration: Iterable[Feed] | None
) -> tuple[Feed, ...]:
    if method == "dynamic":
        if calibration is not None:
            raise ConfigError("calibration is given, expected none: method 'dynamic' scales activations at each call")
        return ()
    for name in sorted(RECURRENT & {node.op_type for node in model.graph.node}):
        raise ConfigError(
            f"method is 'static', expected 'dynamic': {source} holds {name}, which ONNX Runtime leaves in float32"
        )
    feeds = tuple(calibration or ())
    if not feeds:
        raise ConfigError("calibration holds no example, expected at least one for method 'static'")
    weights = {tensor.name for tensor in model.graph.initializer}
    expected = sorted(entry.name for entry in model.graph.input if entry.name not in weights)
    for number, feed in enumerate(feeds):
        if sorted(feed) != expected:
            raise DataError(f"calibration example {number} has inputs {sorted(feed)}, expected {expected}")
    return feeds


def _plain(module: nn.Module) -> nn.Module:
    """Return a copy whose per-sample layers are torch's own: torch replaces layers of exactly its types."""
    plain = copy.deepcopy(module)
    for layer in plain.modules():
        kinds = [kind for kind in (nn.Linear, nn.LSTM) if isinstance(layer, kind)]
        if kinds and isinstance(layer, PerSampleLayer):
            layer.__class__ = kinds[0]  # type: ignore[assignment]
    return plain
